"""`parvis queue`, with an embedded broker."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from parvis.cli import main
from parvis.transport.base import Send
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from running import Listener, broker_environment, recipe_message

ORIGIN = {"original-destination": "/queue/test.work", "parvis-reason": "ValueError: too bright"}


@pytest.fixture
def runner(broker: BrokerThread, transport: StompTransport) -> CliRunner:
    """Leads to a broker with queues `work` (3 messages, 1 of them in flight), `idle`, and a dead letter."""
    transport.send(*(recipe_message("work", {"number": number}) for number in range(3)))
    transport.send(Send(f"DLQ.{transport.namespace}.work", b"[1, 2]", ORIGIN, absolute=True))
    transport.send(Send("news", b"{}", kind="topic"))
    Listener(transport, "idle")
    holder = Listener(transport)
    transport.subscribe("work", holder.messages.append, prefetch=1)
    holder.wait_for(1)
    return CliRunner(env=broker_environment(broker.port))


def run(runner: CliRunner, *words: str) -> Result:
    return runner.invoke(main, ["queue", *words])


def size(broker: BrokerThread, queue: str) -> int:
    return sum(one.size for one in broker.statistics() if one.name == f"/queue/{queue}")


def test_list(runner: CliRunner) -> None:
    result = run(runner, "list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "Embedded broker status: 3 queues containing 4 messages"
    rows = {line.split()[0]: line.split()[1:6] for line in lines[2:5]}
    assert rows == {
        "work": ["3", "1", "1", "3", "0"],
        "DLQ.test.work": ["1", "0", "0", "1", "0"],
        "idle": ["0", "0", "1", "0", "0"],
    }
    assert "Embedded broker status: 1 topics" in lines
    assert "news" not in result.stdout
    assert "news" in run(runner, "list", "--all").stdout


def test_list_for_programs(runner: CliRunner) -> None:
    content = json.loads(run(runner, "list", "--json").stdout)
    first, second, _ = content["queues"]
    assert (first["name"], first["held"], first["in_flight"], first["clients"]) == ("work", 3, 1, 1)
    assert first["oldest"] >= 0
    assert (second["absolute"], second["dead_letters"]) == ("DLQ.test.work", True)
    assert [one["name"] for one in content["topics"]] == ["news"]


def test_peek_shows_of_a_recipe_message_what_matters_first(runner: CliRunner) -> None:
    result = run(runner, "peek", "work", "-n", "1", "--skip", "1")
    assert result.exit_code == 0
    text = result.stdout
    assert text.startswith("test.work: 1 of 3 messages\n── 2  ")
    order = [
        text.index(part)
        for part in ("ID    test-recipe", "node  1  work", "payload", '"number": 1', "headers")
    ]
    assert order == sorted(order)
    assert "results" not in text
    assert '"queue": "results"' in run(runner, "peek", "work", "-n", "1", "--full").stdout


def test_peek_shows_of_a_dead_letter_why_it_died(runner: CliRunner) -> None:
    lines = run(runner, "peek", "DLQ.test.work").stdout.splitlines()
    assert [line.strip() for line in lines[2:4]] == ["reason", "ValueError: too bright"]


def test_peek_for_programs(runner: CliRunner, broker: BrokerThread) -> None:
    found = json.loads(run(runner, "peek", "work", "--json").stdout)
    assert [one["body"]["payload"]["number"] for one in found] == [0, 1, 2]
    assert [(one["place"], one["complete"], one["headers"]["note"]) for one in found] == [
        (place, True, "kept") for place in (1, 2, 3)
    ]
    assert size(broker, "test.work") == 3


def test_hostile_messages_do_a_terminal_no_harm(runner: CliRunner, transport: StompTransport) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e[bold red]\r\n"
    transport.send(Send("evil", evil.encode(), {"na\x1bme": evil, "workflows-recipe": "True"}))
    transport.send(Send("evil", b"[" * 100_000, {"workflows-recipe": "True"}))
    transport.send(Send("evil", b"x" * 10_000_000))
    for more in ((), ("--full",)):
        result = run(runner, "peek", "evil", *more)
        assert result.exit_code == 0
        assert all(sign.isprintable() or sign == "\n" for sign in result.stdout)
        assert "[bold red]" in result.stdout
        assert "10 MB" in result.stdout
    assert len(run(runner, "peek", "evil").stdout) < 10_000


def test_peek_at_nothing_says_what_there_is(runner: CliRunner) -> None:
    result = run(runner, "peek", "wrok")
    assert result.exit_code == 1
    assert "There is no queue 'wrok' on the broker. Did you mean 'work'?" in result.stderr
    assert run(runner, "peek", "work", "-n", "1000", "--skip", "1").exit_code == 2
    assert run(runner, "peek", "news").exit_code == 1


def test_no_broker_is_one_line() -> None:
    result = CliRunner(env=broker_environment(1)).invoke(main, ["queue", "list"])
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: no connection to the broker: 127.0.0.1:1 cannot be reached")


def test_monitor_without_a_terminal_prints_the_lines_of_the_original_once(runner: CliRunner) -> None:
    result = run(runner, "monitor", "--interval", "0.5")
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == "Embedded broker status: 3 queues containing 4 messages"
    assert lines[1:3] == ["test.work >[ 3 | 1 | 1 ]>", "DLQ.test.work >[ 1 | | ]>"]
    assert "Embedded broker status: 1 topics" in lines
    assert lines[-1] == "topic/queue name m.in/0.5s >[ m.held | clients | m.dispatchd ]> m.out/0.5s"


def test_monitor_for_programs(runner: CliRunner) -> None:
    content = json.loads(run(runner, "monitor", "--once", "--json", "--interval", "0.5").stdout)
    assert content["broker"] == "Embedded broker"
    first = content["queues"][0]
    assert (first["name"], first["rate_in"], first["trend"]) == ("work", 0.0, [3, 3])


def test_drain_prints_the_lines_of_the_original(runner: CliRunner, broker: BrokerThread) -> None:
    result = run(runner, "drain", "DLQ.test.work", "elsewhere", "--wait", "0", "--stop", "0.3")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:3] == ["Reading messages from DLQ.test.work", "Writing messages to elsewhere", ""]
    assert lines[3].startswith("Message date: 20")
    assert lines[4].startswith("   1 message(s) drained in 0.")
    assert lines[5] == "1 message(s) drained, no message seen for 0.3 seconds"
    assert (size(broker, "DLQ.test.work"), size(broker, "test.elsewhere")) == (0, 1)


def test_drain_to_where_messages_belong(
    runner: CliRunner, broker: BrokerThread, transport: StompTransport
) -> None:
    message = recipe_message("lost", {"number": 7})
    body = message.body.replace(b'"queue":"lost"', b'"queue":"found"')
    transport.send(Send("lost", body, message.headers))
    result = run(runner, "drain", "lost", ".", "--wait", "0", "--stop", "0.3")
    assert result.exit_code == 0
    assert "Recipe ID:    test-recipe\nTarget Queue: found\n" in result.stdout
    assert (size(broker, "test.lost"), size(broker, "test.found")) == (0, 1)
    found = run(runner, "drain", "DLQ.test.work", ".", "--wait", "0", "--stop", "0.3", "--json")
    assert json.loads(found.stdout) == {"source": "DLQ.test.work", "destination": ".", "moved": 1}
    assert size(broker, "test.work") == 4


def test_drain_stops_at_what_belongs_nowhere_and_leaves_it(
    runner: CliRunner, broker: BrokerThread, transport: StompTransport
) -> None:
    transport.send(Send("odd", b"whose am I?"))
    result = run(runner, "drain", "odd", ".", "--wait", "0", "--stop", "5")
    assert result.exit_code == 1
    assert "does not say where it belongs: name a destination" in result.stderr
    assert size(broker, "test.odd") == 1
    transport.send(recipe_message("circle", {}))
    assert "belongs where it is" in run(runner, "drain", "circle", ".", "--wait", "0").stderr
    assert size(broker, "test.circle") == 1


def test_drain_with_wrong_arguments(runner: CliRunner) -> None:
    for words in (
        ("work", "work"),
        ("test.work", "test.work"),
        ("a b", "c"),
        ("work",),
        ("a", "b", "--wait", "-1"),
    ):
        assert run(runner, "drain", *words).exit_code == 2


def test_help_has_examples(runner: CliRunner) -> None:
    for command in ("list", "peek", "monitor", "drain"):
        assert f"parvis queue {command}" in run(runner, command, "--help").stdout
