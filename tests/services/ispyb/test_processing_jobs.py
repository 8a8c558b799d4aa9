"""Reprocessing: the fields that a processing job adds, and the data collection it leads to."""

from __future__ import annotations

import pytest

import made_ispyb as made
from parvis_services.ispyb.database import Database
from parvis_services.ispyb.errors import BadParameter, UnknownProcessingJob
from parvis_services.ispyb.fields import message_fields
from parvis_services.ispyb.names import field_names
from parvis_services.ispyb.reprocessing import job_recipe


@pytest.fixture
def dcid(scratch: Database) -> int:
    return made.rotation(scratch, made.group(scratch), directory="/dls/i03/data/2026/cm50000-1/thau/")


@pytest.fixture
def job(scratch: Database, dcid: int) -> int:
    number = made.insert(scratch, "ProcessingJob", dataCollectionId=dcid, recipe="xia2-dials", automatic=0)
    for key, value in (("d_min", "1.5"), ("d_min", "2.0"), ("ice", "true")):
        made.insert(
            scratch, "ProcessingJobParameter", processingJobId=number, parameterKey=key, parameterValue=value
        )
    for first, last in ((1, 40), (61, 100)):
        values = {"dataCollectionId": dcid, "startImage": first, "endImage": last}
        made.insert(scratch, "ProcessingJobImageSweep", processingJobId=number, **values)
    return number


@pytest.mark.parametrize("name", ["ispyb_process", "ispyb_reprocessing_id"])
def test_a_job_names_data_collection_recipe_and_parameters(
    scratch: Database, dcid: int, job: int, name: str
) -> None:
    fields = message_fields(scratch, {name: str(job)})
    assert fields["ispyb_process"] == job
    assert fields["ispyb_dcid"] == dcid
    assert fields["ispyb_processing_job"]["processingJobId"] == job
    assert fields["ispyb_processing_parameters"] == {"d_min": ["1.5", "2.0"], "ice": ["true"]}
    assert fields["ispyb_reprocessing_parameters"] == {"d_min": "2.0", "ice": "true"}
    where = "/dls/i03/data/2026/cm50000-1/thau/thau_1_"
    assert fields["ispyb_images"] == f"{where}0001.cbf:1:40,{where}0061.cbf:61:100"
    assert fields["ispyb_image_last"] == 100
    assert job_recipe(fields) == "ispyb-xia2-dials"


def test_the_message_may_name_another_data_collection(scratch: Database, job: int) -> None:
    other = made.rotation(scratch, made.group(scratch))
    assert message_fields(scratch, {"ispyb_process": job, "ispyb_dcid": other})["ispyb_dcid"] == other


def test_the_sample_job(sample: Database) -> None:
    fields = message_fields(sample, {"ispyb_process": 5})
    assert fields["ispyb_processing_job"] == {
        "processingJobId": 5,
        "recordTimestamp": "2017-10-16T11:02:12",
        "dataCollectionId": 1002287,
        "displayName": "test job 01",
        "comments": "Testing the job submission system",
        "recipe": "DIALS/xia2",
        "automatic": 0,
    }
    path = "/dls/i03/data/2016/cm14451-1/20160122/gw/ins2/001/ins2_2_"
    assert fields["ispyb_images"] == f"{path}0001.cbf:1:270,{path}0271.cbf:271:360"
    assert job_recipe(fields) == "ispyb-DIALS/xia2"


def test_without_job_and_data_collection_there_are_no_fields(scratch: Database) -> None:
    assert message_fields(scratch, {"filename": "x"}) == {}
    assert job_recipe({}) is None


def test_unknown_job(scratch: Database) -> None:
    with pytest.raises(UnknownProcessingJob, match="no processing job 999999"):
        message_fields(scratch, {"ispyb_process": 999999})


@pytest.mark.parametrize("number", ["five", -1, 0.5, True, [5], "5; DROP TABLE Person"])
def test_what_is_no_number_of_a_job(scratch: Database, number: object) -> None:
    with pytest.raises(BadParameter, match="ispyb_process must be a positive whole number"):
        message_fields(scratch, {"ispyb_process": number})


def test_every_field_is_named_and_every_name_is_a_field(scratch: Database, job: int) -> None:
    assert set(message_fields(scratch, {"ispyb_process": job})) == field_names()
