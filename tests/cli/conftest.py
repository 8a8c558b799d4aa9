"""Places with a broker for the tests of commands: an embedded one, and each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dead_letter_world import World, world_of

KINDS = [
    "embedded",
    pytest.param("activemq", marks=pytest.mark.real("activemq")),
    pytest.param("rabbitmq", marks=pytest.mark.real("rabbitmq")),
]


@pytest.fixture(params=KINDS)
def every_world(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """A place with each kind of broker."""
    with world_of(request.param, request, tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A place with the embedded broker."""
    with world_of("embedded", request, tmp_path, monkeypatch) as made:
        yield made
