"""How long series stay in a store: rules, classes of experiment, pins, and sweeping."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from parvis.config import ConfigError
from parvis_services.stores.directory import DirectoryStore
from parvis_services.stores.expiry import EXPIRY, ExpiryRule, Swept, rules_of, sweep
from parvis_services.stores.layout import SeriesPlace
from parvis_services.stores.pins import LONGEST, pinned_until, pins_of, release, set_pin
from parvis_services.stores.removal import remove_series
from parvis_services.stores.store import AccessDenied, ImageStore, NoSuchObject, StoreUnavailable
from parvis_services.stores.url import BadUrl
from stored_series import HOUR, age, directory_store, kept, keys, pinned, put_series

RULE: dict[str, Any] = {"store": "ram", "bucket": "i04"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> DirectoryStore:
    return directory_store(root)


def swept(store: ImageStore, *rules: dict[str, Any], **how: Any) -> Swept:
    """What comes of sweeping by the first of some rules."""
    read = rules_of({EXPIRY: list(rules or [RULE])})
    return sweep(store, read[0], read, time.time(), **how)


def deleted(result: Swept) -> list[int]:
    return [series.place.dcid for series in result.deleted]


def test_each_class_of_experiment_has_its_time(store: DirectoryStore, root: Path) -> None:
    put_series(store, 1, experiment="grid")
    put_series(store, 2, experiment="rotation")
    put_series(store, 3)
    put_series(store, 4, experiment="Serial ")
    put_series(store, 5, axes={"omega": (10.0, 0.1)})
    put_series(store, 6, axes={"omega": (10.0, 0.0)})
    put_series(store, 7, axes={"omega": (0.0, 0.0)})
    rule = {**RULE, "classes": {"grid": 24, "rotation": 72, "serial": 1, "default": 48}}
    for hours, gone in [(0.5, []), (2, [4]), (25, [1, 6]), (49, [3, 7]), (73, [2, 5])]:
        age(root, hours)
        assert deleted(swept(store, rule)) == gone, hours
    assert keys(store) == []


def test_time_counts_from_the_last_image_on(store: DirectoryStore, root: Path) -> None:
    place = put_series(store, 1)
    age(root, 100)
    store.put(place.bucket, place.frame(4), b"image")
    assert deleted(swept(store)) == []
    age(root, 100)
    pinned(store, place, -1)  # which counts no more than that it is there
    assert deleted(swept(store)) == [1]
    assert keys(store) == []


def test_a_pin_keeps_a_series_until_its_own_time_is_over(store: DirectoryStore, root: Path) -> None:
    place = put_series(store, 1)
    pinned(store, place, 10)
    pinned(store, place, 20, "other")
    age(root, 50, "i04", "1", "1")
    for token in ("job", "other"):
        pinned(store, place, 10, token)
        result = swept(store)
        assert (deleted(result), [one.place for one in result.pinned]) == ([], [place])
    release(store, place, "job")
    assert deleted(swept(store)) == []
    release(store, place, "other")
    assert deleted(swept(store)) == [1]
    assert keys(store) == []


def test_a_pin_can_be_set_by_whoever_may_only_write_and_before_the_first_image(
    store: DirectoryStore, root: Path
) -> None:
    writer = DirectoryStore("ram", root, "write")
    place = SeriesPlace("standard", "i04", "", 9, 1)
    store.make_bucket("i04")
    until = time.time() + HOUR
    set_pin(writer, place, "job", until)
    with pytest.raises(AccessDenied):
        list(pins_of(writer, place))
    assert pinned_until(store, place, time.time()) == pytest.approx(until, abs=0.01)
    set_pin(writer, place, "job", until + HOUR)
    assert pinned_until(store, place, time.time()) == pytest.approx(until + HOUR, abs=0.01)
    assert pinned_until(store, place, until + 2 * HOUR) is None
    release(writer, place, "job")
    assert pinned_until(store, place, time.time()) is None
    for token in ("", "..", "a/b", "a\n", "x" * 300):
        with pytest.raises(BadUrl):
            set_pin(writer, place, token, until)


def test_no_pin_holds_for_ever_and_a_strange_one_for_a_day(store: DirectoryStore) -> None:
    place = put_series(store, 1)
    now = time.time()
    set_pin(store, place, "for-ever", 1e300)
    assert pinned_until(store, place, now) == pytest.approx(now + LONGEST, abs=60)
    release(store, place, "for-ever")
    store.put(place.bucket, place.pin("strange"), b"", {"until": "tomorrow"})
    assert pinned_until(store, place, now) == pytest.approx(now + 24 * HOUR, abs=60)


def test_the_longest_prefix_counts(store: DirectoryStore, root: Path) -> None:
    put_series(store, 1)
    put_series(store, 2, prefix="cm1")
    put_series(store, 3, prefix="cm1/keep")
    put_series(store, 4, prefix="cm12")
    age(root, 60)
    rules = [
        {**RULE, "classes": {"default": 100}},
        {**RULE, "prefix": "cm1", "classes": {"default": 50}},
        {**RULE, "prefix": "cm1/keep", "classes": {"default": 100}},
    ]
    assert deleted(swept(store, *rules)) == []
    assert deleted(swept(store, *rules[1:], rules[0])) == [2]
    assert sorted(keys(store)) == sorted(
        key for place in (_place(1), _place(3, "cm1/keep"), _place(4, "cm12")) for key in _keys(place)
    )


def _place(dcid: int, prefix: str = "") -> SeriesPlace:
    return SeriesPlace("standard", "i04", prefix, dcid, 1)


def _keys(place: SeriesPlace) -> list[str]:
    return [place.header, *map(place.frame, (1, 2, 3))]


def test_buckets_of_the_prototype_go_with_their_series(store: DirectoryStore, root: Path) -> None:
    put_series(store, 77, layout="prototype")
    put_series(store, 78, layout="prototype")
    put_series(store, 79)
    age(root, 60, "77")
    age(root, 60, "i04")
    rule = {"store": "ram", "layout": "prototype"}
    assert deleted(swept(store, rule)) == [77]
    assert store.buckets() == ["78", "i04"]


def test_objects_of_nobody_are_left_alone(store: DirectoryStore, root: Path) -> None:
    put_series(store, 1)
    store.put("i04", "notes.txt", b"mine")
    store.put("i04", "1/1/extra", b"mine")
    age(root, 100)
    assert deleted(swept(store)) == [1]
    assert keys(store) == ["1/1/extra", "notes.txt"]


def test_only_to_find_out_deletes_nothing(store: DirectoryStore, root: Path) -> None:
    put_series(store, 1)
    age(root, 100)
    assert deleted(swept(store, dry_run=True)) == [1]
    assert kept(store) == [1]


class Dying(DirectoryStore):
    """A store whose user is killed when it has deleted so often."""

    deletions = 0

    def delete(self, bucket: str, keys: list[str]) -> None:
        if self.deletions == 0:
            raise StoreUnavailable(self.url(bucket), "killed")
        self.deletions -= 1
        super().delete(bucket, keys)


@pytest.mark.parametrize("deletions", [0, 1, 2, 3])
def test_who_is_killed_in_mid_delete_is_followed_by_one_who_goes_on(root: Path, deletions: int) -> None:
    directory_store(root)
    store = Dying("ram", root)
    place = put_series(store, 1, experiment="grid")
    store.put(place.bucket, place.manifest, b"{}")
    pinned(store, place, -1)
    age(root, 30)  # a grid's time is over, that of what is of no class is not
    store.deletions = deletions
    with pytest.raises(StoreUnavailable):
        swept(store)
    left = keys(store)
    assert place.header in left or left == [place.pin("job")]
    store.deletions = 100
    assert deleted(swept(store)) == [1]
    assert keys(store) == []


def test_what_a_second_sweeper_has_deleted_meanwhile_does_no_harm(root: Path) -> None:
    class Raced(DirectoryStore):
        """Of which somebody else deletes everything just before we do."""

        def delete(self, bucket: str, keys: list[str]) -> None:
            other = DirectoryStore("ram", root)
            for dcid in (1, 2):
                remove_series(other, _place(dcid))
            super().delete(bucket, keys)

    directory_store(root)
    store = Raced("ram", root)
    put_series(store, 1)
    put_series(store, 2)
    age(root, 100)
    swept(store)
    assert keys(store) == []


def test_a_bucket_that_is_not_there_is_told_of(store: DirectoryStore) -> None:
    with pytest.raises(NoSuchObject, match="no such bucket"):
        swept(store)


def test_the_alarm_is_given_from_the_limit_on(store: DirectoryStore) -> None:
    put_series(store, 1)
    size = swept(store).used
    assert size > 15
    for gigabytes, alarm in [(size / 1e9 / 0.79, False), (size / 1e9 / 0.81, True)]:
        result = swept(store, {**RULE, "gigabytes": gigabytes})
        assert bool(result.alarm) is alarm
    assert "ram: i04 is 81 % full" in result.alarm
    by_the_disk = swept(store)
    assert by_the_disk.percent is not None
    assert by_the_disk.percent < 80


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        ("all", "must be a list"),
        ([7], "rule 1"),
        ([{"store": "ram"}], "must name a bucket"),
        ([{**RULE, "layout": "prototype"}], "must name a bucket"),
        ([{**RULE, "bucket": "A B"}], "cannot name a bucket"),
        ([{**RULE, "hours": 3}], "rule 1: hours"),
        ([{**RULE, "classes": {"grid": 0}}], "classes.grid"),
        ([{**RULE, "classes": {"grid": float("nan")}}], "classes.grid"),
        ([{**RULE, "prefix": "../x"}], "prefix"),
        ([{**RULE, "backstop_days": 1}], "backstop_days"),
        ([{**RULE, "alarm_percent": 101}], "alarm_percent"),
        ([RULE, RULE], "two rules"),
    ],
)
def test_rules_that_are_no_good(rules: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"{EXPIRY}.*{complaint}"):
        rules_of({EXPIRY: rules})


def test_the_backstop_is_behind_all_classes() -> None:
    assert ExpiryRule(store="ram", bucket="i04").days == 10
    assert ExpiryRule(store="ram", bucket="i04", classes={"grid": 1}).days == 9  # others stay two days
    assert rules_of({}) == []
