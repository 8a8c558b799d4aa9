"""A series is not deleted while recipes are attached to it, whatever its store thinks of pins."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from detector_writer import Detector, Recipe, Site
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from parvis_services.acquire.ceph_writer import CephWriter
from parvis_services.acquire.series_pins import LEASE
from parvis_services.stores.expiry import EXPIRY, rules_of, sweep
from parvis_services.stores.pins import Pin, pins_of, token_of
from parvis_services.stores.profiles import open_store
from stored_series import HOUR, age
from waiting import wait_until


@pytest.fixture
def detector() -> Iterator[Detector]:
    made = Detector()
    yield made
    made.close()


@pytest.fixture
def site(tmp_path: Path, broker: BrokerThread, detector: Detector) -> Site:
    return Site(tmp_path, broker.port, detector.address)


def pins(site: Site) -> dict[str, Pin]:
    return {pin.token: pin for pin in pins_of(site.store, site.place(17))}


def deleted(site: Site, later: float = 0) -> list[int]:
    """The data collections that are swept away, of those whose time is over."""
    age(site.objects, 100, "images", "17")
    (rule,) = rules_of({EXPIRY: [{"store": "memory", "bucket": "images"}]})
    store = open_store("memory", "manage", site.storage)
    return [series.place.dcid for series in sweep(store, rule, [rule], time.time() + later).deleted]


def failures(writer: CephWriter) -> float:
    return next(one.value for one in writer.figures() if one.name == "pins_failed")


def test_a_series_stays_while_a_recipe_is_attached_and_for_a_while_after(
    site: Site, detector: Detector, transport: StompTransport
) -> None:
    with site.writer():
        recipe = Recipe(transport, 17)
        detector.start(17, 3)
        detector.images([1, 2])
        recipe.wait_for(2)
        wait_until(lambda: len(pins(site)) == 1, 20, "the pin")
        (first,) = pins(site).values()
        assert deleted(site) == []
        detector.image(3)
        detector.end()
        recipe.end()
        ended = time.time()
        wait_until(lambda: pins(site)[first.token].until > first.until, 20, "the pin at the end")
        assert len(pins(site)) == 1
    assert abs(pins(site)[first.token].until - (ended + LEASE)) < 60
    assert deleted(site, LEASE - HOUR) == []
    assert sorted(site.stored(site.place(17))) == [1, 2, 3]
    assert deleted(site, LEASE + HOUR) == [17]
    assert site.stored(site.place(17)) == {}


@pytest.mark.parametrize("recipe", ["../Über recipe/1", "..", "", "x" * 5000, "a\nb"])
def test_every_recipe_can_have_a_pin(recipe: str, site: Site) -> None:
    assert site.place(17).pin(token_of(recipe)).startswith("17/1/pins/")


def test_each_recipe_has_a_pin_and_a_series_without_any_has_none(
    site: Site, detector: Detector, transport: StompTransport
) -> None:
    with site.writer():
        detector.start(17, 1)
        detector.image(1)
        detector.end()
        site.manifest(site.place(17))
        assert pins(site) == {}
        for name in ("one", "two"):
            Recipe(transport, 17, name=name).end()
        wait_until(lambda: sorted(pins(site)) == ["recipe-one", "recipe-two"], 20, "both pins")


def test_a_store_that_takes_no_pins_harms_nothing_else(
    site: Site, detector: Detector, transport: StompTransport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "parvis.service")
    place = site.place(17)
    with site.writer() as writer:
        detector.start(17, 3)
        series = site.objects / place.bucket / place.frames_prefix
        wait_until((series / "header").exists, 20, "the series")
        (series / "pins").touch()  # a file where the pins would be: none can be made
        recipes = [Recipe(transport, 17, name=name) for name in ("one", "two")]
        detector.images([1, 2, 3])
        detector.end()
        for recipe in recipes:
            assert recipe.end()["success"] is True
            assert sorted(recipe.numbers()) == [1, 2, 3]
        assert site.manifest(place).stored == 3
        wait_until(lambda: failures(writer) >= 2, 20, "the failures")
    assert len([one for one in caplog.records if "is not pinned" in one.getMessage()]) == 1
