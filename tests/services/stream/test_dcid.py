"""The DCID of a series, from what the beamline had the detector send along."""

from __future__ import annotations

from typing import Any

import pytest

from parvis_services.stream.dcid import dcid_of
from parvis_services.stream.events import SeriesStart


def dcid(appendix: Any, **keys: Any) -> int | None:
    return dcid_of(SeriesStart(1, appendix=appendix), **keys)


@pytest.mark.parametrize(
    "appendix",
    [
        4077358,
        4077358.0,
        "4077358",
        " 4077358\n",
        {"dcid": 4077358},
        {"DCID": "4077358"},
        {"ispyb_dcid": 4077358.0},
        {"acqID": "4077358"},
        {"data_collection_id": 4077358, "dcid": None},
        '{"dcid": 4077358, "visit": "nt1234-5"}',
    ],
)
def test_where_it_may_stand(appendix: Any) -> None:
    assert dcid(appendix) == 4077358


@pytest.mark.parametrize(
    "appendix",
    [
        None,
        "",
        0,
        -5,
        1.5,
        True,
        float("inf"),
        "12x",
        "x" * 100_000,
        "9" * 30,
        "\u0663\u0664",
        2**64,
        [4077358],
        {},
        {"dcid": "no"},
        {"dcid": {"dcid": 1}},
        {"dcid": True},
        {"scan": 4077358},
        "{" * 10_000,
        '{"dcid": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"dcid": 1' + " " * 100_000 + "}",
        "\ud800{",
        '{"\ud800": 1}',
    ],
)
def test_what_is_none(appendix: Any) -> None:
    assert dcid(appendix) is None


def test_keys_of_a_site() -> None:
    assert dcid({"dcid": 1, "collection": 2}, keys=["collection"]) == 2
    assert dcid({"dcid": 1}, keys=["collection"]) is None
