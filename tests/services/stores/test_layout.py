"""Keys of a series: made, and taken apart again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from parvis_services.stores.layout import LAST_NUMBER, Layout, SeriesPlace, is_prototype_bucket
from parvis_services.stores.url import BadUrl, ObjectUrl

STANDARD = SeriesPlace("standard", "mx-i04", "live/grids", 3474639, 14)
PROTOTYPE = SeriesPlace("prototype", "mx-i04", "live", 3474639, 14)


def place_of(text: str) -> SeriesPlace:
    return SeriesPlace.of(ObjectUrl.parse(f"s3://ceph/{text}"))


def test_keys_of_the_standard_layout() -> None:
    assert STANDARD.frames_prefix == "live/grids/3474639/14/"
    assert STANDARD.header == "live/grids/3474639/14/header"
    assert STANDARD.mask == "live/grids/3474639/14/mask"
    assert STANDARD.manifest == "live/grids/3474639/14/manifest"
    assert STANDARD.frame(1) == "live/grids/3474639/14/000001"
    assert STANDARD.pin("job-1") == "live/grids/3474639/14/pins/job-1"
    assert SeriesPlace("standard", "mx", "", 7, 1).frame(LAST_NUMBER) == "7/1/999999"


def test_keys_of_the_prototype() -> None:
    assert (PROTOTYPE.bucket, PROTOTYPE.frames_prefix) == ("3474639", "")
    assert (PROTOTYPE.header, PROTOTYPE.frame(12), PROTOTYPE.manifest) == ("header", "000012", "manifest")


def test_a_second_series_of_the_same_number() -> None:
    again = SeriesPlace("standard", "mx", "", 7, 1, repeat=2)
    assert again.frame(1) == "7/1-2/000001"
    assert place_of("mx/7/1-2/000001") == again
    assert place_of("7-2/000001") == SeriesPlace("prototype", "", "", 7, 1, repeat=2)
    assert is_prototype_bucket("7-2")
    assert not is_prototype_bucket("mx-2")


@given(
    layout=some.sampled_from(["standard", "prototype"]),
    prefix=some.sampled_from(["", "live", "live/grids", "2026/123456", "7"]),
    dcid=some.integers(1, 10**12) | some.sampled_from([123456, 100000]),
    series=some.integers(0, 10**9) | some.just(123456),
    repeat=some.integers(1, 20),
    number=some.integers(1, LAST_NUMBER),
)
def test_every_key_leads_back_to_its_series(
    layout: Layout, prefix: str, dcid: int, series: int, repeat: int, number: int
) -> None:
    place = SeriesPlace(layout, "mx-i04", prefix, dcid, series, repeat)
    keys = [
        place.header,
        place.mask,
        place.manifest,
        place.frame(number),
        place.pin("a.b"),
        place.pin("000001"),
    ]
    for key in keys:
        assert SeriesPlace.of(ObjectUrl("s3", "ceph", place.bucket, key)) == place
    assert place.number_of(place.frame(number)) == number
    assert all(
        place.number_of(key) is None for key in (place.header, place.pin("000001"), f"x{place.frame(1)}")
    )


def test_a_series_itself_has_an_address() -> None:
    assert place_of("mx/live/7/1") == place_of("mx/live/7/1/") == SeriesPlace("standard", "mx", "live", 7, 1)
    assert place_of("7") == SeriesPlace("prototype", "7", "", 7, 0)


@pytest.mark.parametrize(
    "text",
    ["mx", "mx/000001", "mx/7/header", "mx/live/000001", "7/some", "mx/7/1/other", "mx/7/01/000001", "07"],
)
def test_what_is_in_no_series(text: str) -> None:
    with pytest.raises(BadUrl, match="in no series"):
        place_of(text)


@pytest.mark.parametrize("number", [0, -1, LAST_NUMBER + 1])
def test_images_that_cannot_be(number: int) -> None:
    with pytest.raises(ValueError, match="numbered from 1"):
        STANDARD.frame(number)


def test_places_that_cannot_be() -> None:
    for dcid, series in ((0, 1), (-1, 1), (1, -1)):
        with pytest.raises(ValueError, match="no series"):
            SeriesPlace("standard", "mx", "", dcid, series)
    for bucket, prefix in (("MX", ""), ("mx", "../x"), ("mx", "/x"), ("mx", "x/")):
        with pytest.raises(BadUrl):
            SeriesPlace("standard", bucket, prefix, 1, 1)
    for token in ("", "a/b", "..", "x" * 201):
        with pytest.raises(BadUrl):
            STANDARD.pin(token)


def test_images_come_first_in_a_listing() -> None:
    keys = [STANDARD.frame(1), STANDARD.frame(LAST_NUMBER), STANDARD.header, STANDARD.mask, STANDARD.pin("0")]
    assert sorted(keys)[:2] == keys[:2]
