"""A request that reaches the broker and is in a drop file as well, as its confirmation came too late."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from parvis.recipe.envelope import dump_json
from parvis.transport.base import Send
from parvis.transport.embedded.thread import BrokerThread
from parvis_services.dispatch.dispatcher import Dispatcher
from running import Listener, broker_environment, connected, hosted


@pytest.fixture
def dropped(tmp_path: Path) -> Path:
    """The drop file that `go` writes when there is no broker."""
    recipe = tmp_path / "one.json"
    recipe.write_text(json.dumps({"1": {"queue": "results"}, "start": [[1, {"started": True}]]}))
    with BrokerThread(port=0) as gone:
        port = gone.port
    location = tmp_path / "dropfiles"
    subprocess.run(
        [sys.executable, "-m", "parvis", "go", "-n", "-f", str(recipe)],
        env=os.environ | broker_environment(port) | {"PARVIS_FALLBACK_LOCATION": str(location)},
        check=True,
        capture_output=True,
    )
    (file,) = location.iterdir()
    return file


def test_it_starts_its_recipe_once(dropped: Path):
    content = json.loads(dropped.read_text())
    request = Send("processing_recipe", dump_json(content["message"]), content["headers"])
    content["message"]["custom_recipe"]["start"] = [[1, "another"]]
    another = Send(
        "processing_recipe", dump_json(content["message"]), content["headers"] | {"parvis-id": "another"}
    )
    with BrokerThread(port=0) as broker, connected(broker.port) as transport:
        results = Listener(transport, "results")
        with hosted(broker.port, Dispatcher):
            transport.send(request)
            results.wait_for(1)
            transport.send(request)
            transport.send(another)
            results.wait_for(2)
    assert results.payloads() == [{"started": True}, "another"]
