"""Rows and parameters that somebody wrote to do harm: no crash, and nothing outside the visit."""

from __future__ import annotations

from pathlib import Path

import pytest

import made_ispyb as made
from parvis_services.ispyb.database import Database
from parvis_services.ispyb.directories import Site
from parvis_services.ispyb.errors import BadParameter, UnknownDataCollection
from parvis_services.ispyb.fields import collection_fields
from parvis_services.ispyb.schema import CORE_TABLES, create_schema

DIRECTORIES = ("ispyb_working_directory", "ispyb_results_directory", "ispyb_final_directory")


@pytest.mark.parametrize(
    "directory",
    [
        "/dls/i03/data/2026/cm60000-1/../../../../../etc/",
        "/dls/../cm60000-1/x/",
        "relative/cm60000-1/x/",
        "/dls/i03/data/no visit here/",
        "/dls/cm60000-1/x\n/etc/",
    ],
)
def test_directories_that_are_in_no_visit(scratch: Database, directory: str) -> None:
    fields = collection_fields(scratch, made.rotation(scratch, made.group(scratch), directory=directory))
    assert fields["ispyb_visit"] is None
    assert fields["ispyb_visit_directory"] is None
    assert [fields[name] for name in DIRECTORIES] == [None] * 3
    assert fields["ispyb_image_directory"] == directory
    assert fields["ispyb_pdb"] == []


@pytest.mark.parametrize("prefix", ["../../../../escape", "x/../../../../y", ".."])
def test_a_prefix_that_climbs_out_of_the_visit(scratch: Database, prefix: str) -> None:
    dcid = made.rotation(scratch, made.group(scratch), imagePrefix=prefix)
    fields = collection_fields(scratch, dcid)
    assert fields["ispyb_visit"] is not None
    for name in DIRECTORIES:
        assert fields[name] is None or fields[name].startswith(f"{fields['ispyb_visit_directory']}/")
        assert "/../" not in f"{fields[name]}/"


@pytest.mark.parametrize("guid", ["../../x", "a/b", ".", "..", "x" * 65, 5, "a\nb", "-rf"])
def test_a_guid_that_is_no_name(scratch: Database, guid: object) -> None:
    with pytest.raises(BadParameter, match="guid must be"):
        collection_fields(scratch, made.rotation(scratch, made.group(scratch)), parameters={"guid": guid})


@pytest.mark.parametrize(
    ("template", "pattern", "path"),
    [
        ("100%_####.cbf", "100%%_%04d.cbf", "100%_0001.cbf"),
        ("%s%s%n_master.h5", "%s%s%n_master.h5", "%s%s%n_master.h5"),
        ("a#b_###.cbf", "a#b_%03d.cbf", "a#b_001.cbf"),
        ("{ispyb_dcid.__class__}_##.cbf", "{ispyb_dcid.__class__}_%02d.cbf", "{ispyb_dcid.__class__}_01.cbf"),
        ("frame_%06d.cbf", "frame_%06d.cbf", "frame_000001.cbf"),
        ("/etc/passwd", "/etc/passwd", "etc/passwd"),
    ],
)
def test_templates(scratch: Database, template: str, pattern: str, path: str) -> None:
    directory = "/dls/i03/data/2026/cm60001-1/x/"
    dcid = made.rotation(scratch, made.group(scratch), directory=directory, fileTemplate=template)
    fields = collection_fields(scratch, dcid)
    assert fields["ispyb_image_pattern"] == pattern
    assert fields["ispyb_image"] == f"{directory}{path}:1:100"


def test_small_numbers_keep_their_digits(scratch: Database) -> None:
    dcid = made.rotation(scratch, made.group(scratch), flux=1.25e-13)
    assert collection_fields(scratch, dcid)["ispyb_dc_info"]["flux"] == 1.25e-13


@pytest.mark.parametrize("text", ["0000-00-00 00:00:00", "yesterday", "2026-02-31 25:00:00"])
def test_dates_that_are_none(tmp_path: Path, text: str) -> None:
    database = Database(f"sqlite:///{tmp_path / 'dates.db'}")
    create_schema(database, tables=CORE_TABLES)
    dcid = made.rotation(database, made.group(database))
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE DataCollection SET startTime = ?", (text,))
    assert collection_fields(database, dcid)["ispyb_dc_info"]["startTime"] == text.replace(" ", "T")


def test_unknown_data_collection(scratch: Database) -> None:
    with pytest.raises(UnknownDataCollection, match="ISPyB has no data collection 987654321"):
        collection_fields(scratch, 987654321)


@pytest.mark.parametrize("dcid", ["", "abc", -5, 0, 1.5, "1 OR 1=1", None, "٣"])
def test_what_is_no_number_of_a_data_collection(scratch: Database, dcid: object) -> None:
    with pytest.raises(BadParameter, match="ispyb_dcid must be a positive whole number"):
        collection_fields(scratch, dcid)  # pyright: ignore[reportArgumentType] - hostile on purpose


@pytest.mark.parametrize("dcid", [2**31, "99999999999", 10**20])
def test_a_number_larger_than_any_of_a_data_collection(scratch: Database, dcid: int | str) -> None:
    with pytest.raises(BadParameter, match="ispyb_dcid is too large"):
        collection_fields(scratch, dcid)


def test_without_guid_a_new_one_is_made_each_time(scratch: Database) -> None:
    dcid = made.rotation(scratch, made.group(scratch))
    first, second = collection_fields(scratch, dcid), collection_fields(scratch, dcid)
    assert first["guid"] != second["guid"]
    assert first["ispyb_working_directory"].endswith(f"/{first['guid']}")
    assert first["ispyb_dc_info"]["uuid"] == first["guid"]


def test_what_the_message_says_of_images_is_kept(scratch: Database) -> None:
    dcid = made.rotation(scratch, made.group(scratch))
    given = {"ispyb_image": "/a/b.cbf:1:2", "ispyb_images": "/a/c.cbf:1:9"}
    fields = collection_fields(scratch, dcid, parameters=given)
    assert {name: fields[name] for name in given} == given


def test_another_sites_rules(scratch: Database) -> None:
    site = Site(
        visit_pattern=r"(?P<directory>/asap3/(?P<beamline>[a-z0-9]+)/gpfs/(?P<visit>[0-9]{8}))/",
        working="scratch_cc",
        results="processed/zocalo",
        final="shared",
        preferred_processing="crystfel",
    )
    group = made.group(scratch, of=made.session(scratch, beamline=""))
    dcid = made.rotation(scratch, group, directory="/asap3/p11/gpfs/11012345/raw/thau")
    fields = collection_fields(scratch, dcid, parameters={"guid": "g"}, site=site)
    assert fields["ispyb_visit"] == "11012345"
    assert fields["ispyb_beamline"] == "p11"
    assert fields["ispyb_working_directory"] == "/asap3/p11/gpfs/11012345/scratch_cc/raw/thau/thau_1/g"
    assert fields["ispyb_results_directory"] == "/asap3/p11/gpfs/11012345/processed/zocalo/raw/thau/thau_1/g"
    assert fields["ispyb_final_directory"] == "/asap3/p11/gpfs/11012345/shared/raw/thau/thau_1/g"
    assert fields["ispyb_preferred_processing"] == "crystfel"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"working": "/tmp"}, "plain path below the visit"),
        ({"results": "../.."}, "plain path below the visit"),
        ({"visit_pattern": "("}, "no regular expression"),
        ({"visit_pattern": "(?P<visit>x)"}, "lacks the group directory"),
        ({"wrking": "x"}, "wrking"),
    ],
)
def test_rules_that_cannot_be(rule: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Site.model_validate(rule)
