"""Whole recipes with joins and error edges, on the embedded broker; a join that is killed."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest
from pydantic import BaseModel

from parvis.recipe.check import check
from parvis.recipe.envelope import RECIPE_HEADER, Envelope
from parvis.recipe.graph import Recipe
from parvis.recipe.template import fill_recipe
from parvis.service.base import Service, Step
from parvis.service.contract import Anything, Contract, Outputs
from parvis.service.registry import contracts
from parvis.transport.base import Send
from parvis.transport.embedded.thread import BrokerThread
from parvis.transport.stomp import StompTransport
from parvis_services.deliver.json_lines import JSONLines
from parvis_services.operate.join import Join
from running import Listener, hosted, process_of
from sample_services import Multiplier, Number
from waiting import wait_until


class Splitter(Service[Anything, Anything]):
    """Sends numbers, one by one, and one message at the end."""

    name: ClassVar[str] = "Splitter"
    queue: ClassVar[str] = "split"
    outputs: ClassVar[Outputs] = {"each": Number, "end": None}

    def process(self, payload: Any, step: Step[Anything]) -> None:
        numbers: list[int] = payload.model_dump()["numbers"]
        for number in numbers:
            step.send("each", {"number": number})
        step.send("end", {"sent": len(numbers)})


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "parvis" / "joins.sqlite"


def fan_out(directory: Path, **join: Any) -> dict[str, Any]:
    """A recipe, checked and filled: split, multiply each, gather; what fails is written into a file."""
    recipe = Recipe.from_dict(
        {
            "1": {"queue": "split", "output": {"each": 2, "end": 3}},
            "2": {"queue": "multiply", "output": 3, "error": 5, "retries": 1, "retry-delay": 0},
            "3": {
                "queue": "join",
                "parameters": {"wait-for": {"1": 1, "2": "{count}"}, **join},
                "output": {"complete": 4, "timeout": 6},
            },
            "4": {"queue": "results"},
            "5": {"queue": "jsonlines", "parameters": {"output_filename": f"{directory}/failed.jsonl"}},
            "6": {"queue": "incomplete"},
            "start": [[1, {}]],
        }
    )
    known: dict[str, Contract] = {
        **contracts(),
        **{one.queue: Contract.of(one) for one in (Splitter, Multiplier)},
    }
    assert check(recipe, known, {"count"}, ["results", "incomplete"]) == []
    return recipe.to_dict()


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


def known_to(state: Path) -> int:
    """How many messages a join has written down."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as database:
            return database.execute("SELECT count(*) FROM arrivals").fetchone()[0]
    except sqlite3.OperationalError:
        return 0  # not made yet


def start(recipe: dict[str, Any], numbers: list[int], recipe_id: str = "r1") -> list[Send]:
    filled = fill_recipe(Recipe.from_dict(recipe), {"count": len(numbers)}).to_dict()
    filled["start"] = [[1, {"numbers": numbers}]]
    return list(Envelope(filled, 0, None, environment={"ID": recipe_id}).start())


def test_a_fan_out_is_joined(broker: BrokerThread, transport: StompTransport, tmp_path: Path) -> None:
    results = Listener(transport, "results")
    recipe = fan_out(tmp_path)
    with hosted(broker.port, Splitter, Multiplier, Join):
        transport.send(*start(recipe, [1, 2, 3], "r1"), *start(recipe, [4], "r2"))
        results.wait_for(2)
    found = {
        Envelope.parse(message.body).recipe_id: Envelope.parse(message.body).payload["arrived"]
        for message in results.messages
    }
    assert found == {
        "r1": {"1": [{"sent": 3}], "2": [{"number": 2}, {"number": 4}, {"number": 6}]},
        "r2": {"1": [{"sent": 1}], "2": [{"number": 8}]},
    }


def test_what_fails_is_in_the_file_of_the_error_node_and_missing_in_the_join(
    broker: BrokerThread, transport: StompTransport, tmp_path: Path
) -> None:
    incomplete = Listener(transport, "incomplete")
    with hosted(broker.port, Splitter, Multiplier, Join, JSONLines):
        transport.send(*start(fan_out(tmp_path, timeout=2), [1, 13, 15, 2]))
        incomplete.wait_for(1)
        wait_until(lambda: len(lines_of(tmp_path / "failed.jsonl")) == 2, 10, "two lines")
    (payload,) = incomplete.payloads()
    assert payload == {
        "arrived": {"1": [{"sent": 4}], "2": [{"number": 2}, {"number": 4}]},
        "missing": {"2": 2},
    }
    lines = [orjson.loads(line) for line in lines_of(tmp_path / "failed.jsonl")]
    assert {line["payload"]["number"]: line["error"]["reason"] for line in lines} == {
        13: "13 is no good",
        15: "ZeroDivisionError: 15 is a surprise",
    }
    assert {line["error"]["tries"] for line in lines} == {1, 2}


def test_a_join_that_is_killed_again_and_again_completes_once_with_everything(
    broker: BrokerThread, transport: StompTransport, tmp_path: Path, state: Path
) -> None:
    results = Listener(transport, "results", "DLQ.test.join")
    recipe, numbers, jobs = fan_out(tmp_path), list(range(100, 140)), 5
    total = jobs * (len(numbers) + 1)
    with hosted(broker.port, Splitter, Multiplier):
        for job in range(jobs):
            transport.send(*start(recipe, numbers, f"r{job}"))
        for arrivals in sorted(random.Random(1).sample(range(1, total + 1), 8)):
            with process_of(Join, broker.port) as process:
                wait_until(lambda least=arrivals: known_to(state) >= least, 60, f"{arrivals} arrivals")
                process.kill()
        with process_of(Join, broker.port):
            results.wait_for(jobs, timeout=60)
            # Whatever else is in the queue of the join comes before this.
            transport.send(*start(recipe, [1], "last"))
            results.wait_for(jobs + 1, timeout=60)
    found = sorted(str(Envelope.parse(message.body).recipe_id) for message in results.messages)
    assert found == ["last", *(f"r{job}" for job in range(jobs))]
    for message in results.messages:
        envelope = Envelope.parse(message.body)
        if envelope.recipe_id != "last":
            arrived = envelope.payload["arrived"]
            assert sorted(entry["number"] for entry in arrived["2"]) == [2 * number for number in numbers]


def test_nodes_of_foreign_services_may_lead_to_a_join(
    broker: BrokerThread, transport: StompTransport, tmp_path: Path
) -> None:
    """They set no identity: the broker's identifier of a message stands in for it."""
    results = Listener(transport, "results")
    filled = fill_recipe(Recipe.from_dict(fan_out(tmp_path)), {"count": 2}).to_dict()
    for source, payload in ((2, "one"), (1, None), (2, "two")):
        body = {
            "payload": payload,
            "recipe": filled,
            "recipe-pointer": 3,
            "recipe-path": [1, source] if source == 2 else [1],
            "environment": {"ID": "theirs"},
        }
        transport.send(Send("join", orjson.dumps(body), {RECIPE_HEADER: "True"}))
    with hosted(broker.port, Join):
        results.wait_for(1)
    assert results.payloads() == [{"arrived": {"1": [None], "2": ["one", "two"]}}]


def test_the_contract_of_a_join_is_announced() -> None:
    contract = contracts()["join"]
    assert contract.service == "Join"
    assert issubclass(contract.parameters, BaseModel)
