"""A poisonous image is found, understood, mended, sent in again and finished, with nothing but commands.

As told in `docs/how-to/put-a-failed-image-right.md`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dead_letter_world import World, world_of
from waiting import wait_until

SERVICES = ("Dispatcher", "FileWatcher", "PerImageAnalysis", "JSONLines")
IMAGES = 6
RECIPE = {
    "1": {
        "queue": "filewatcher",
        "parameters": {
            "pattern": "{directory}/grid_1_%05d.cbf",
            "pattern-start": 1,
            "pattern-end": IMAGES,
        },
        "output": {"every": 2},
    },
    "2": {"queue": "per_image_analysis", "output": {"result": 3}},
    "3": {"queue": "jsonlines", "parameters": {"output_filename": "{directory}/results.jsonl"}},
    "start": [[1, []]],
}


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("PARVIS_RECORDS_DIRECTORY", str(tmp_path / "records"))
    with world_of("embedded", request, tmp_path, monkeypatch) as made:
        yield made


@contextlib.contextmanager
def services(log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        command = [sys.executable, "-m", "parvis", "up", "--collect", *SERVICES]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def said(world: World, *words: str, code: int = 0) -> str:
    run = world.parvis(*words)
    assert run.exit_code == code, run.output
    return run.stdout


def test_from_the_poison_to_the_end(world: World) -> None:
    images = world.directory / "images"
    grid = ["grid", str(images), "--columns", "3", "--rows", "2", "--rate", "1000"]
    subprocess.run([sys.executable, "-m", "parvis_services.simulate", *grid], check=True, capture_output=True)
    image, copy = images / "grid_1_00004.cbf", world.directory / "copy.cbf"
    shutil.copy(image, copy)
    image.write_text("<html><body>502 Bad Gateway</body></html>\n")
    recipe = world.directory / "recipe.json"
    recipe.write_text(json.dumps(RECIPE))
    results = images / "results.jsonl"

    def lines() -> int:
        return len(results.read_text().splitlines()) if results.exists() else 0

    def is_told(recipe_id: str, words: str) -> bool:
        return words in " ".join(world.parvis("trace", recipe_id).stdout.split())

    with services(world.directory / "services.log"):
        said(world, "go", "-f", str(recipe), "--no-dcid", "-s", f"directory={images}")
        wait_until(lambda: lines() == IMAGES - 1, 60, "the results of the good images")

        # found
        found = said(world, "dlq", "list", code=1)
        assert f"DLQ for {world.whole('per_image_analysis')} contains 1 entries" in found
        assert f"{image}: not an image that can be read here" in found
        (letter,) = json.loads(said(world, "dlq", "list", "--json", code=1))["letters"]
        recipe_id = letter["recipe_id"]

        # understood
        shown = said(world, "dlq", "show", "1")
        assert f'"file": "{image}"' in shown
        assert "1 filewatcher > 2 per_image_analysis" in shown
        wait_until(lambda: is_told(recipe_id, "1 of 13 messages were given up"), 20, "the trace")
        wait_until(
            lambda: "set aside as a dead letter" in world.parvis("logs", "--recipe", recipe_id).stdout,
            20,
            "the log",
        )

        # mended
        shutil.copy(copy, image)
        before = said(world, "dlq", "reinject", "1", "--dry-run")
        assert (
            f"1 dead letter → {world.whole('per_image_analysis')} (PerImageAnalysis, 1 listening)" in before
        )
        said(world, "dlq", "reinject", "1", "--yes")

        # finished
        wait_until(lambda: lines() == IMAGES, 30, "the last result")
        wait_until(lambda: is_told(recipe_id, "Finished: 14 messages handled"), 20, "the trace")
        assert "sent in again: done" in said(world, "trace", recipe_id)
        assert said(world, "dlq", "list") == "No DLQ messages found\n"
