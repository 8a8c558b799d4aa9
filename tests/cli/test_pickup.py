"""`parvis pickup`: what was given while the broker was away arrives."""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from dead_letter_world import World
from parvis.cli import main
from parvis_services.dispatch.dispatcher import Dispatcher
from running import Listener

TRIGGERS = 50


NOWHERE = {"PARVIS_TRANSPORT": "StompTransport", "PARVIS_STOMP_HOST": "127.0.0.1", "PARVIS_STOMP_PORT": "1"}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with all triggers, given while nobody answered, many at a time."""
    directory = tmp_path_factory.mktemp("given")
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(TRIGGERS) as pool:
        for name, value in (NOWHERE | {"PARVIS_FALLBACK_LOCATION": str(directory)}).items():
            patch.setenv(name, value)
        wanted = [["go", "-r", "mimas", str(number)] for number in range(1, TRIGGERS + 1)]
        list(pool.map(lambda words: main.main(words, standalone_mode=False), wanted))
    assert len(list(directory.iterdir())) == TRIGGERS
    return directory


def store_some(world: World, given: Path, count: int = TRIGGERS) -> None:
    """Put triggers to where they are stored."""
    world.drop.mkdir()
    for file in sorted(given.iterdir())[:count]:
        shutil.copy2(file, world.drop)


def break_one(world: World) -> Path:
    """Cut a file off, as a full disk does."""
    broken = sorted(world.drop.iterdir())[7]
    broken.write_bytes(broken.read_bytes()[:60])
    return broken


def dcids(listener: Listener) -> list[int]:
    return [orjson.loads(message.body)["parameters"]["ispyb_dcid"] for message in listener.messages]


def test_all_triggers_arrive_and_a_broken_one_is_set_aside(every_world: World, given: Path) -> None:
    world = every_world
    store_some(world, given)
    whole = break_one(world)
    run = world.parvis("pickup", "--wait", "0", "--delay", "0")
    assert run.exit_code == 1
    assert run.stdout.startswith(f"Found {TRIGGERS} files\nSending {world.drop}/")
    assert " from host " in run.stdout
    assert " with recipes mimas\nDone (1 of 49)\n" in run.stdout
    assert run.stdout.endswith("Done (49 of 49)\n")
    assert f"{whole} is broken: it is not JSON" in run.stderr
    assert [path.name for path in world.drop.iterdir()] == ["broken"]
    assert (world.drop / "broken" / f"{whole.name}.reason").read_text().startswith("it is not JSON")
    listener = Listener(world.transport, "processing_recipe")
    listener.wait_for(TRIGGERS - 1)
    assert len(set(dcids(listener))) == TRIGGERS - 1

    # Mended by hand, it goes with the next.
    (world.drop / "broken" / whole.name).rename(whole)
    whole.write_text('{"headers": {}, "message": {"recipes": ["mimas"], "parameters": {"ispyb_dcid": 99}}}')
    run = world.parvis("pickup", "--wait", "0", "--delay", "0", "--json")
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout) == {"sent": [str(whole)], "broken": [], "failed": []}
    listener.wait_for(TRIGGERS)
    assert dcids(listener)[-1] == 99


def test_a_request_that_was_sent_and_stored_starts_once(world: World) -> None:
    recipes = world.directory / "recipes"
    recipes.mkdir()
    recipe = {"1": {"queue": "results"}, "start": [[1, []]]}
    started = Listener(world.transport, "results")
    with world.hosting(Dispatcher):
        message = {"recipes": [], "custom_recipe": recipe, "parameters": {}}
        headers = {"parvis-id": "one request"}
        for _ in range(2):
            world.drop.mkdir(exist_ok=True)
            (world.drop / "request").write_text(json.dumps({"headers": headers, "message": message}))
            assert world.parvis("pickup", "-w", "0").exit_code == 0
        other = {"headers": {"parvis-id": "another"}, "message": message}
        (world.drop / "other").write_text(json.dumps(other))
        assert world.parvis("pickup", "-w", "0").exit_code == 0
        started.wait_for(2)
    assert len(started.messages) == 2


def test_nothing_is_waited_for_if_all_are_old(world: World, given: Path) -> None:
    store_some(world, given, 1)
    (file,) = world.drop.iterdir()
    old = time.time() - 3600
    os.utime(file, (old, old))
    begun = time.monotonic()
    run = world.parvis("pickup")
    assert run.exit_code == 0, run.output
    assert "Waiting" not in run.stdout
    assert time.monotonic() - begun < 30


def test_nothing_to_do_needs_no_broker(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARVIS_STOMP_PORT", "1")
    run = world.parvis("pickup")
    assert (run.exit_code, run.stdout) == (0, "Found 0 files\n")


def test_without_a_broker_all_stays(world: World, given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_some(world, given, 3)
    before = {path: path.read_bytes() for path in world.drop.iterdir()}
    monkeypatch.setenv("PARVIS_STOMP_PORT", "1")
    run = CliRunner().invoke(main, ["pickup", "-w", "0"])
    assert run.exit_code == 2, run.output
    assert {path: path.read_bytes() for path in world.drop.iterdir()} == before


def test_hostile_requests_do_a_terminal_no_harm(world: World) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202eevil\r\n"
    world.drop.mkdir()
    content = {"headers": {"zocalo.go.host": evil}, "message": {"recipes": [evil, 3, None]}}
    (world.drop / "evil\x1b[2J").write_text(json.dumps(content))
    (world.drop / "broken\x1b[2J").write_text(evil)
    run = world.parvis("pickup", "-w", "0")
    assert run.exit_code == 1
    assert "Done (1 of 1)" in run.stdout
    assert all(sign.isprintable() or sign == "\n" for sign in run.output)
