"""Waiting for the run status of a data collection."""

from __future__ import annotations

import pytest

import made_ispyb as made
from parvis_services.ispyb.collections import SUCCESSFUL, set_run_status
from parvis_services.ispyb.database import Database
from parvis_services.ispyb.errors import BadParameter, UnknownDataCollection
from parvis_services.ispyb.ready import is_ready


@pytest.mark.parametrize("wait", [True, 1, "1", "yes"])
def test_ready_when_the_run_status_is_there(scratch: Database, wait: object) -> None:
    dcid = made.rotation(scratch, made.group(scratch))
    parameters = {"ispyb_wait_for_runstatus": wait, "ispyb_dcid": str(dcid)}
    assert is_ready(scratch, parameters) is False
    set_run_status(scratch, dcid)
    assert is_ready(scratch, parameters) is True


@pytest.mark.parametrize("wait", [None, False, 0, "0", "", "false", "No"])
def test_ready_at_once_when_nobody_asks_to_wait(scratch: Database, wait: object) -> None:
    dcid = made.rotation(scratch, made.group(scratch))
    assert is_ready(scratch, {"ispyb_wait_for_runstatus": wait, "ispyb_dcid": dcid}) is True


def test_ready_without_data_collection(scratch: Database) -> None:
    assert is_ready(scratch, {"ispyb_wait_for_runstatus": 1}) is True


def test_an_empty_run_status_counts(scratch: Database) -> None:
    dcid = made.rotation(scratch, made.group(scratch), runStatus="")
    assert is_ready(scratch, {"ispyb_wait_for_runstatus": 1, "ispyb_dcid": dcid}) is True


def test_sample_collections_are_ready(sample: Database) -> None:
    assert is_ready(sample, {"ispyb_wait_for_runstatus": 1, "ispyb_dcid": 993677}) is True
    assert is_ready(sample, {"ispyb_wait_for_runstatus": 1, "ispyb_dcid": 6017406}) is False


def test_unknown_and_bad_numbers(scratch: Database) -> None:
    with pytest.raises(UnknownDataCollection, match="no data collection 999999999"):
        is_ready(scratch, {"ispyb_wait_for_runstatus": 1, "ispyb_dcid": 999999999})
    with pytest.raises(BadParameter, match="ispyb_dcid"):
        is_ready(scratch, {"ispyb_wait_for_runstatus": 1, "ispyb_dcid": "x"})


def test_run_status(scratch: Database) -> None:
    dcid = made.rotation(scratch, made.group(scratch))
    for _ in range(2):
        set_run_status(scratch, dcid, SUCCESSFUL)
    with pytest.raises(UnknownDataCollection, match="999999999"):
        set_run_status(scratch, 999999999)
