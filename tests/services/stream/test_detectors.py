"""What a site says of its detectors, and what it is told of mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parvis.config import Config, ConfigError
from parvis_services.stream.dcid import DCID_KEYS
from parvis_services.stream.detectors import (
    DetectorSettings,
    address_of,
    detector_of,
    detectors,
    file_name_of,
    ring_of,
)
from parvis_services.stream.events import Header

STREAM = "tcp://i04-eiger:9999"


def config(detectors: dict[str, Any], chosen: str | None = None) -> Config:
    storage: dict[str, Any] = {"parvis.detectors": detectors}
    return Config(storage=storage if chosen is None else storage | {"parvis.detector": chosen})


def settings(**content: Any) -> DetectorSettings:
    return detector_of(config({"eiger": {"stream": STREAM, **content}}))[1]


def test_what_holds_if_nothing_is_said() -> None:
    name, of_eiger = detector_of(config({"eiger": {"stream": STREAM}}))
    assert (name, of_eiger.when_slow, of_eiger.memory, of_eiger.uploaders) == ("eiger", "drop", 512, 4)
    assert (of_eiger.layout, of_eiger.prefix, of_eiger.series_timeout) == ("standard", "", 30)
    assert (of_eiger.dcid_keys, of_eiger.recipes, of_eiger.images_per_file) == (DCID_KEYS, (), 1000)
    assert address_of(name, of_eiger) == STREAM
    assert ring_of(name, of_eiger) is None


def test_which_detector() -> None:
    several = {"i03": {"stream": STREAM}, "i04": {"stream": "ipc:///run/eiger"}}
    assert detector_of(config(several, "i04"))[1].stream == "ipc:///run/eiger"
    assert list(detectors(config(several))) == ["i03", "i04"]
    with pytest.raises(ConfigError, match=r"several detectors \(i03, i04\): say which, by PARVIS_DETECTOR"):
        detector_of(config(several))
    with pytest.raises(ConfigError, match=r"no detector 'i05' under parvis.detectors, only i03, i04"):
        detector_of(config(several, "i05"))
    with pytest.raises(ConfigError, match="no detector is configured"):
        detector_of(Config())


def test_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "site.yml"
    file.write_text(
        "version: 1\nplaces:\n  plugin: storage\n  parvis.detectors:\n"
        "    a: {stream: 'tcp://a:1'}\n    b: {stream: 'tcp://b:1'}\nenvironments: {default: [places]}\n"
    )
    monkeypatch.setenv("ZOCALO_CONFIG", str(file))
    monkeypatch.setenv("PARVIS_DETECTOR", "b")
    assert detector_of(Config.load())[0] == "b"


def test_a_ring() -> None:
    of_eiger = settings(ring={"slots": 16, "slot_megabytes": 2.5})
    assert (ring_of("eiger", of_eiger), address_of("eiger", of_eiger)) == ("eiger", "ring://eiger")
    assert address_of("eiger", settings(ring={"name": "i04"})) == "ring://i04"
    assert address_of("eiger", settings(stream="ring://other")) == "ring://other"


def test_file_names() -> None:
    assert file_name_of("eiger", settings(), 4077358, 3) == "4077358_3"
    assert file_name_of("eiger", settings(), None, 3) == "none_3"
    assert file_name_of("eiger", settings(file_name="{detector}-{series}_x"), 1, 3) == "eiger-3_x"


def test_what_is_filled_in_for_the_detector() -> None:
    geometry = settings(geometry={"distance": 0.3, "beam_centre": [10, 20], "wavelength": 1}).geometry
    filled = geometry.completed(Header(shape=(2, 3), distance=0.2))
    assert (filled.shape, filled.distance, filled.beam_centre, filled.wavelength) == (
        (2, 3),
        0.2,
        (10, 20),
        1,
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"stream": "eiger"}, "stream: 'eiger' is no address of a stream"),
        ({"strem": STREAM}, "strem: Extra inputs are not permitted"),
        ({"stream": STREAM, "store": "fast"}, "bucket: the standard layout needs the name of a bucket"),
        ({"stream": STREAM, "bucket": "Up"}, "bucket: 'Up' cannot name a bucket"),
        ({"stream": STREAM, "prefix": "../x"}, "prefix: '../x' cannot be the key"),
        ({"stream": STREAM, "when_slow": "wait"}, "when_slow: Input should be 'drop' or 'block'"),
        ({"stream": STREAM, "uploaders": 0}, "uploaders: Input should be greater than or equal to 1"),
        ({"stream": STREAM, "series_timeout": 0}, "series_timeout: Input should be greater than 0"),
        ({"stream": STREAM, "series_timeout": float("nan")}, "series_timeout"),
        ({"stream": STREAM, "dcid_keys": []}, "dcid_keys: must name at least one key"),
        ({"stream": STREAM, "recipes": ["../x"]}, "recipes: '../x' is no name of a recipe"),
        ({"stream": STREAM, "directory": "data"}, "directory: must be an absolute path"),
        ({"stream": STREAM, "file_name": "../{series}"}, "file_name: may have letters"),
        ({"stream": STREAM, "file_name": "{series.__class__}"}, "only {detector}, {dcid}, {series} can"),
        (
            {"stream": STREAM, "file_name": "{dcid:>100000000}{series}"},
            "only {detector}, {dcid}, {series} can",
        ),
        ({"stream": STREAM, "file_name": "{dcid}"}, "file_name: must hold {series}"),
        ({"stream": STREAM, "file_name": "{"}, "file_name: is no good"),
        ({"stream": STREAM, "ring": {"slots": 1}}, "ring.slots: Input should be greater than or equal to 4"),
        ({"stream": STREAM, "ring": {"name": "a/b"}}, "ring.name: 'a/b' cannot name a ring"),
        ({"stream": "ring://x", "ring": {}}, "ring: the stream is a ring already"),
        (
            {"stream": STREAM, "geometry": {"distance": -1}},
            "geometry.distance: Input should be greater than 0",
        ),
        ("tcp://i04:9999", "parvis.detectors.eiger must be a mapping"),
    ],
)
def test_mistakes(content: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=r"^parvis.detectors.eiger") as error:
        detector_of(config({"eiger": content}))
    assert problem in str(error.value)


def test_mistakes_of_the_whole() -> None:
    with pytest.raises(ConfigError, match="must be a mapping from the names of detectors"):
        detectors(Config(storage={"parvis.detectors": [STREAM]}))
    with pytest.raises(ConfigError, match=r"'\.\./x' cannot name a detector"):
        detectors(config({"../x": {"stream": STREAM}}))
