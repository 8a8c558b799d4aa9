"""The fields of the sample data collections, against what the original's filter answers for them."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from parvis_services.ispyb.database import Database
from parvis_services.ispyb.fields import collection_fields
from real_data import real_data

GUID = "00000000-0000-4000-8000-000000000001"


def fields_of(database: Database, dcid: int, **parameters: Any) -> dict[str, Any]:
    """The fields as they arrive in a message."""
    return orjson.loads(
        orjson.dumps(collection_fields(database, dcid, parameters={"guid": GUID, **parameters}))
    )


@pytest.mark.parametrize("dcid", [993677, 1052494, 6017405])
def test_fields_equal_those_of_the_original(sample: Database, dcid: int) -> None:
    expected = json.loads(real_data("dispatcher_fields.json").read_text())[str(dcid)]
    # The original was asked on rows that lack the sessions.
    expected["ispyb_beamline"] = "i03"
    assert fields_of(sample, dcid) == expected


def test_second_rotation(sample: Database) -> None:
    fields = fields_of(sample, 1002287)
    assert len(fields) == 39
    assert fields["ispyb_dc_class"]["rotation"] is True
    assert fields["ispyb_image"] == "/dls/i03/data/2016/cm14451-1/20160122/gw/ins2/001/ins2_2_0001.cbf:1:7200"
    assert fields["ispyb_related_sweeps"] == [[1002287, 1, 7200]]
    assert fields["ispyb_related_dcids"] == [{"dcids": []}]
    assert fields["ispyb_energy_scan_info"] == {}
    assert fields["ispyb_results_directory"] == (
        f"/dls/i03/data/2016/cm14451-1/processed/20160122/gw/ins2/001/ins2_2/{GUID}"
    )


def test_second_screening(sample: Database) -> None:
    fields = fields_of(sample, 1052503)
    assert len(fields) == 37
    assert fields["ispyb_dc_class"]["screen"] is True
    assert fields["ispyb_image"] == "/dls/i03/data/2016/cm14451-2/20160413/test_xtal/xtal1_3_0001.cbf:1:3"
    assert fields["ispyb_related_dcids"] == [{"dcids": [1052494]}]
    assert fields["ispyb_pin_info"] == {}


def test_screening_with_sample_and_plan(sample: Database) -> None:
    fields = fields_of(sample, 1066786)
    assert fields["ispyb_dc_class"]["screen"] is True
    assert fields["ispyb_pin_info"] == {
        "containerId": 34864,
        "location": "8",
        "loopType": None,
        "subLocation": None,
    }
    assert fields["ispyb_diffraction_plan"]["diffractionPlanId"] == 197784
    assert fields["ispyb_diffraction_plan"]["experimentKind"] == "OSC"
    assert fields["ispyb_diffraction_plan"]["requiredResolution"] == pytest.approx(1.1)
    assert fields["ispyb_diffraction_plan"]["recordTimeStamp"] == "2016-03-20T23:50:27"
    assert fields["ispyb_protein_info"]["proteinId"] == 123491
    assert fields["ispyb_related_dcids"] == [
        {"dcids": [1066786], "sample_group_id": 6, "name": "foo"},
        {"dcids": [993677, 6017405, 1066786], "sample_group_id": 7, "name": "bar"},
        {"dcids": [1066786], "sample_id": 398810, "name": "thau8"},
    ]


def test_grid_survives_a_detector_that_does_not_exist(sample: Database) -> None:
    fields = fields_of(sample, 6017405)
    assert fields["ispyb_dc_info"]["detectorId"] == 78
    assert (fields["ispyb_detectorclass"], fields["ispyb_detectorname"]) == ("eiger", None)
    assert fields["ispyb_dc_info"]["gridinfo"]["steps_x"] == 30


def test_bare_rows_have_all_fields_too(sample: Database) -> None:
    fields = fields_of(sample, 6017406)
    assert fields["ispyb_visit"] is None
    assert fields["ispyb_working_directory"] is None
    assert fields["ispyb_project"] == "AUTOMATIC"
    assert fields["ispyb_crystal"] == "DEFAULT"
    assert fields["ispyb_dc_class"]["rotation"] is None
    assert fields["ispyb_image_pattern"] is None
    assert "ispyb_image" not in fields
