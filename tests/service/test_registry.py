"""Services of other packages, good and bad."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from parvis.service import registry

ENTRY_POINTS = """[parvis.services]
Missing = parvis_no_such_module:Service
Helper = os.path:join
Multiplier = sample_services:Multiplier
"""


@pytest.fixture(autouse=True)
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that announces a service, a function, and what is not there."""
    information = tmp_path / "parvis_other-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: parvis-other\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    registry.find_services.cache_clear()
    yield
    registry.find_services.cache_clear()


def test_a_service_of_another_package_is_found() -> None:
    assert registry.load_service("multi").queue == "multiply"
    assert registry.contracts()["multiply"].service == "Multiplier"


@pytest.mark.parametrize(
    ("name", "reason"), [("Missing", "parvis_no_such_module"), ("Helper", "not a class derived from")]
)
def test_what_cannot_be_loaded_is_named_with_the_reason_and_harms_no_other(name: str, reason: str) -> None:
    with pytest.raises(registry.BrokenService, match=reason):
        registry.load_service(name)
    assert reason in registry.broken_services()[name]
    assert "filewatcher" in registry.contracts()
