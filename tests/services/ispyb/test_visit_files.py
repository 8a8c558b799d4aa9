"""What users put into their visit: settings, sample groups, models; and file systems that hang."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import made_ispyb as made
from parvis_services.ispyb.database import Database
from parvis_services.ispyb.directories import Site
from parvis_services.ispyb.errors import VisitUnreachable
from parvis_services.ispyb.fields import collection_fields
from parvis_services.ispyb.visit_files import within
from waiting import wait_until

MODEL = "CRYST1   68.000   84.000   89.000  90.00  90.00  90.00 P 21 21 21\nEND\n"


@pytest.fixture
def visit(tmp_path: Path) -> Path:
    """A visit that has a processing directory."""
    path = tmp_path / "i03" / "data" / "cm70000-1"
    (path / "processing").mkdir(parents=True)
    return path


def rotation(database: Database, visit: Path, *, below: str = "Foo/bar", sample: int | None = None) -> int:
    return made.rotation(database, made.group(database, sample=sample), directory=f"{visit}/{below}/")


@pytest.mark.parametrize("name", ["foo.yml", "FoO.yaml", "BAR.yml"])
def test_settings_named_like_a_directory_of_the_images(scratch: Database, visit: Path, name: str) -> None:
    (visit / "processing" / name).write_text(
        "ispyb_space_group: P 21 21 21\nispyb_unit_cell: 10, 11, 12, 90 90 90"
    )
    fields = collection_fields(scratch, rotation(scratch, visit))
    assert fields["ispyb_space_group"] == "P 21 21 21"
    assert fields["ispyb_unit_cell"] == (10, 11, 12, 90, 90, 90)


def test_settings_of_other_images_do_not_count(scratch: Database, visit: Path) -> None:
    (visit / "processing" / "fo.yml").write_text("ispyb_space_group: P4")
    assert collection_fields(scratch, rotation(scratch, visit))["ispyb_space_group"] is None


def test_ispyb_goes_before_the_users_settings(scratch: Database, visit: Path) -> None:
    (visit / "processing" / "foo.yml").write_text(
        "ispyb_space_group: P4\nispyb_unit_cell: [1, 2, 3, 90, 90, 90]"
    )
    sample = made.sample(scratch, about_crystal={"spaceGroup": "I23"})
    fields = collection_fields(scratch, rotation(scratch, visit, sample=sample))
    assert (fields["ispyb_space_group"], fields["ispyb_unit_cell"]) == ("I23", None)


@pytest.mark.parametrize(
    "text",
    [
        "ispyb_space_group: foo\nispyb_unit_cell: P 6 2 2",
        "ispyb_space_group: [P4]\nispyb_unit_cell: [10, 11, 12, 90, 90]",
        "ispyb_space_group: '$(reboot)'\nispyb_unit_cell: [10, 11, 12, 90, 90, .nan]",
        "ispyb_space_group: 4\nispyb_unit_cell: [10, 11, -12, 90, 90, 90]",
        "ispyb_space_group: {}\nispyb_unit_cell: 5",
        "- a list",
        "just text",
        "{unfinished: [",
        "!!python/object/apply:os.system ['touch /tmp/owned']",
        "[" * 5000,
        "",
        "\x00\xff",
    ],
)
def test_settings_that_make_no_sense_are_ignored(scratch: Database, visit: Path, text: str) -> None:
    (visit / "processing" / "foo.yml").write_text(text)
    (visit / "processing" / "sample_groups.yml").write_text(text)
    fields = collection_fields(scratch, rotation(scratch, visit))
    assert (fields["ispyb_space_group"], fields["ispyb_unit_cell"]) == (None, None)
    assert fields["ispyb_related_dcids"] == [{"dcids": []}]


def test_the_log_does_not_quote_a_broken_file(
    scratch: Database, visit: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (visit / "processing" / "foo.yml").write_text("root:x:0:0: {secret\n  : [")
    with caplog.at_level(logging.WARNING):
        collection_fields(scratch, rotation(scratch, visit))
    assert "foo.yml" in caplog.text
    assert "secret" not in caplog.text


def test_a_pipe_and_a_huge_file_are_ignored(scratch: Database, visit: Path) -> None:
    os.mkfifo(visit / "processing" / "foo.yml")
    (visit / "processing" / "sample_groups.yml").write_text("- [Foo]\n" * 100_000)
    fields = collection_fields(scratch, rotation(scratch, visit))
    assert fields["ispyb_space_group"] is None
    assert fields["ispyb_related_dcids"] == [{"dcids": []}]


def test_reference_geometry(scratch: Database, visit: Path) -> None:
    geometry = visit / "processing" / "reference_geometry.expt"
    dcid = rotation(scratch, visit)
    assert collection_fields(scratch, dcid)["ispyb_reference_geometry"] is None
    geometry.write_text("{}")
    assert collection_fields(scratch, dcid)["ispyb_reference_geometry"] == str(geometry)


def test_sample_groups_that_users_wrote(scratch: Database, visit: Path) -> None:
    (visit / "processing" / "sample_groups.yml").write_text(
        "- [well_10, well_11]\n- [well_11, well_12, 13]\n- [well_99]\n"
    )
    session = made.session(scratch)
    wells = {
        name: made.rotation(
            scratch, made.group(scratch, of=session), directory=f"{visit}/plate/{name}/images"
        )
        for name in ("well_10", "well_11", "well_12", "well_13")
    }
    made.rotation(scratch, made.group(scratch, of=session), directory=f"/other{visit}/plate/well_12/")
    made.rotation(scratch, made.group(scratch), directory=f"{visit}/plate/well_12/")
    assert collection_fields(scratch, wells["well_11"])["ispyb_related_dcids"] == [
        {"dcids": [wells["well_10"], wells["well_11"]]},
        {"dcids": [wells["well_11"], wells["well_12"]]},
        {"dcids": []},
    ]
    assert collection_fields(scratch, wells["well_13"])["ispyb_related_dcids"] == [{"dcids": []}]


def models_of(
    database: Database, visit: Path, *rows: Mapping[str, str | None]
) -> list[dict[str, str | None]]:
    protein = made.protein(database)
    for row in rows:
        model = made.insert(database, "PDB", **row)
        made.insert(database, "Protein_has_PDB", proteinid=protein, pdbid=model)
    dcid = rotation(database, visit, sample=made.sample(database, protein=protein))
    return collection_fields(database, dcid)["ispyb_pdb"]


def test_models_from_ispyb_and_from_the_user(scratch: Database, visit: Path) -> None:
    (visit / "processing" / "pdb").mkdir()
    mine = visit / "processing" / "pdb" / "mine.pdb"
    mine.write_text(MODEL)
    (visit / "processing" / "pdb" / "notes.txt").write_text("x")
    rows = (
        {"code": "2ID8"},
        {"name": "ranked_0.pdb", "contents": MODEL, "source": "AlphaFold"},
        {"name": "empty"},
    )
    coded, stored, users = models_of(scratch, visit, *rows)
    assert coded == {"code": "2ID8", "filepath": None, "source": None}
    assert (stored["code"], stored["source"]) == (None, "AlphaFold")
    path = Path(stored["filepath"] or "")
    assert path.parent.parent == visit / "tmp" / "pdb"
    assert path.name == "ranked_0.pdb"
    assert path.read_text() == MODEL
    assert [each.name for each in path.parent.iterdir()] == ["ranked_0.pdb"]
    assert users == {"code": None, "filepath": str(mine), "source": None}


@pytest.mark.parametrize("name", ["../../evil.pdb", "/etc/evil.pdb", ".hidden", "", "a\nb", ".."])
def test_models_with_names_that_are_no_file_names(scratch: Database, visit: Path, name: str) -> None:
    assert models_of(scratch, visit, {"name": name, "contents": MODEL}) == []
    assert not (visit / "tmp").exists()


def test_models_are_not_written_through_a_link_out_of_the_visit(
    scratch: Database, visit: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (visit / "tmp").symlink_to(outside)
    assert models_of(scratch, visit, {"name": "m.pdb", "contents": MODEL}) == []
    assert list(outside.iterdir()) == []


def test_no_visit_is_made_for_a_model(scratch: Database, tmp_path: Path) -> None:
    nowhere = tmp_path / "cm70009-1"
    assert models_of(scratch, nowhere, {"name": "m.pdb", "contents": MODEL}) == []
    assert not nowhere.exists()


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """Set it, and the look-ups that wait for it go on; they have gone on when the test has ended."""
    event = threading.Event()
    yield event
    event.set()
    looking = [each for each in threading.enumerate() if each.name.startswith("look at")]
    wait_until(lambda: not any(each.is_alive() for each in looking), 10, "the look-ups to end")


def test_a_look_up_that_hangs_is_left_behind(stuck: threading.Event) -> None:
    with pytest.raises(VisitUnreachable, match=r"the disk could not be looked at within 0\.01 s"):
        within(0.01, "the disk", stuck.wait)
    assert within(10, "the disk", lambda: 5) == 5


def test_no_more_than_a_few_are_left_behind(stuck: threading.Event) -> None:
    for _ in range(8):
        with pytest.raises(VisitUnreachable, match="could not be looked at"):
            within(0.001, "the disk", stuck.wait)
    with pytest.raises(VisitUnreachable, match="earlier look-ups still hang"):
        within(10, "the disk", lambda: 5)
    stuck.set()
    wait_until(lambda: within_or_none() == 5, 10, "a place to look")


def within_or_none() -> int | None:
    try:
        return within(10, "the disk", lambda: 5)
    except VisitUnreachable:
        return None


def test_what_goes_wrong_in_a_look_up_is_told() -> None:
    with pytest.raises(ZeroDivisionError):
        within(10, "the disk", lambda: 1 // 0)


class Hanging(logging.Handler):
    """Holds up whoever logs, as a file system might hold up whoever looks."""

    def __init__(self, event: threading.Event) -> None:
        super().__init__()
        self.event = event

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - the signature of logging
        self.event.wait()


def test_the_sites_time_limit_holds(scratch: Database, visit: Path, stuck: threading.Event) -> None:
    (visit / "processing" / "foo.yml").write_text("{broken")
    dcid = rotation(scratch, visit)
    handler = Hanging(stuck)
    log = logging.getLogger("parvis_services.ispyb.visit_files")
    log.addHandler(handler)
    try:
        with pytest.raises(VisitUnreachable, match=r"the files of visit cm70000-1 .* within 0\.05 s"):
            collection_fields(scratch, dcid, site=Site(file_timeout=0.05))
    finally:
        log.removeHandler(handler)
    stuck.set()
    assert collection_fields(scratch, dcid, site=Site(file_timeout=10))["ispyb_space_group"] is None
