"""The queue monitor on a real broker: what it shows, and what keys and mouse do; and in a real terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from rich.cells import cell_len
from textual.pilot import Pilot

from parvis.config import Config, StompSettings
from parvis.monitor.line_list import LineList
from parvis.monitor.queue_drawing import Row, queue_line
from parvis.monitor.queues import QueueMonitor
from parvis.observe.queue_figures import QueueFigures, QueueHistory, QueueSource, open_queue_source
from parvis.transport.base import Send
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from running import NAMESPACE, Listener, broker_environment, connected, recipe_message
from screen import Script, screen, shows, until, use
from tmux import terminal

EVIL = "\x1b[2J\x1b]0;owned\x07[red]mark-up[/red]"


@pytest.fixture
def source(broker: BrokerThread, transport: StompTransport) -> Iterator[QueueSource]:
    """Of a broker with 60 messages in `work`, 4 of them in flight, one in `reduce`, one dead, and a topic."""
    transport.send(*(recipe_message("work", {"number": number}) for number in range(60)))
    transport.send(Send("reduce", EVIL.encode(), {"evil": EVIL}))
    transport.send(Send(f"DLQ.{NAMESPACE}.work", b"{}", {"parvis-reason": "too bright"}, absolute=True))
    transport.send(Send("news", b"{}", kind="topic"))
    holder = Listener(transport)
    transport.subscribe("work", holder.messages.append, prefetch=4)
    holder.wait_for(4)
    with closing(open_queue_source(config_for(broker))) as opened:
        yield opened


def config_for(broker: BrokerThread) -> Config:
    return Config(stomp=StompSettings("127.0.0.1", broker.port, "", "", NAMESPACE))


def monitor(source: QueueSource, broker: BrokerThread, interval: float = 0.1) -> QueueMonitor:
    return QueueMonitor(source, config_for(broker), interval)


def row(pilot: Pilot[None], name: str) -> list[str]:
    """The figures in the line of a queue."""
    line = next(line for line in screen(pilot.app).splitlines() if name in line)
    return line.split(name)[1].split()


def size(broker: BrokerThread, queue: str) -> int:
    return sum(one.size for one in broker.statistics() if one.name == f"/queue/{queue}")


def run(source: QueueSource, broker: BrokerThread, script: Script, size: tuple[int, int] = (80, 24)) -> None:
    use(monitor(source, broker), script, size)


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
def test_every_queue_and_topic_with_its_figures(
    source: QueueSource, broker: BrokerThread, transport: StompTransport, size: tuple[int, int]
) -> None:
    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "Embedded broker: 3 queues, 1 topic, 62 messages  † 1 dead", "OLDEST")
        held, trend, flight, clients, came, *_ = row(pilot, "  work ")
        assert (held, flight, clients, came) == ("60", "4", "1", "60")
        assert set(trend) == {"█"}
        assert row(pilot, "  reduce ")[2] == "none", "nobody takes what is in there"
        names = re.findall(r"^[†T ] (\S+)", screen(pilot.app), re.MULTILINE)
        assert names[:5] == ["NAME", "work", f"DLQ.{NAMESPACE}.work", "reduce", "news"]
        transport.send(*(Send("fresh", b"1") for _ in range(3)))
        await shows(pilot, "4 queues", "fresh")

    run(source, broker, script, size)


def test_filter_sort_and_hide_what_is_idle(source: QueueSource, broker: BrokerThread) -> None:
    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "  work", "news")
        await pilot.press("a")
        await until(pilot, lambda: "news" not in screen(pilot.app), "the idle topic to go")
        await pilot.press("a", "slash", *"red", "enter")
        await shows(pilot, "1 shown of 3 queues", "filter: red", "reduce")
        assert "  work" not in screen(pilot.app)
        await pilot.press("escape", "s")
        await shows(pilot, "by name")
        text = screen(pilot.app)
        assert text.index("reduce") < text.index("  work")
        await pilot.press("question_mark")
        await shows(pilot, "sort by messages held, name, rate, age of the oldest")

    run(source, broker, script)


def test_a_queue_is_opened_and_a_message_and_all_stay_there(
    source: QueueSource, broker: BrokerThread
) -> None:
    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "  work")
        await pilot.press("enter")
        await shows(pilot, "test.work  queue", "held 60", "in flight 4", "1 to 50 of 60")
        assert 'test-rec node 1 {"number": 0}' in screen(pilot.app)
        await pilot.press("n")
        await shows(pilot, "51 to 60 of 60", '{"number": 59}')
        await pilot.press("p")
        await shows(pilot, "1 to 50 of 60")
        await pilot.press("down", "enter")
        await shows(pilot, "ID    test-recipe", "node  1  work", '"number": 1')
        await pilot.press("escape", "escape")
        await shows(pilot, "3 queues")
        await pilot.click("#queues", offset=(4, 2))
        await pilot.click("#queues", offset=(4, 2))
        await shows(pilot, "test.reduce  queue")
        await pilot.press("enter")
        await shows(pilot, r"\x1b[2J\x1b]0;owned\x07[red]mark-up[/red]")

    run(source, broker, script)
    assert size(broker, f"{NAMESPACE}.work") == 60


@pytest.mark.parametrize("width", [40, 80, 200])
def test_any_name_and_any_figures_make_a_line_that_fits(width: int) -> None:
    """A queue of RabbitMQ may have any name."""
    wild = QueueFigures(
        EVIL * 20 + "\u202e\u4e2d\u6587", "queue", EVIL, 10**12, None, 10**7, 123_456, 10**6, 1e9
    )
    (traffic,) = QueueHistory().take([wild])
    text = "".join(part.text for part in queue_line(Row(traffic, wild.oldest), width, False))
    assert text.isprintable()
    assert 68 <= cell_len(text) <= max(width, 68)


def test_a_topic_says_that_it_keeps_nothing(source: QueueSource, broker: BrokerThread) -> None:
    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "news")
        await pilot.press("end", "enter")
        await shows(pilot, "A topic keeps no messages")

    run(source, broker, script)


def test_a_large_message_is_shown_in_no_time(
    source: QueueSource, broker: BrokerThread, transport: StompTransport
) -> None:
    transport.send(Send("aaa", b"x\x9b" * 5_000_000))

    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "aaa")
        await pilot.press("slash", *"aaa", "enter", "enter")
        await shows(pilot, "1 to 1 of 1")
        await pilot.press("enter", "f")
        lines = pilot.app.screen.query_one("#message", LineList)
        await until(pilot, lambda: len(lines.items) > 1000, "all lines of the message")
        await pilot.press("end")
        await shows(pilot, "the first 1.0 MB of 10 MB")

    run(source, broker, script)


def test_it_says_that_the_broker_is_gone_and_goes_on_when_it_is_back(
    broker: BrokerThread, transport: StompTransport
) -> None:
    transport.send(Send("work", b"1"))
    with BrokerThread() as other, closing(open_queue_source(config_for(other))) as source:

        async def script(pilot: Pilot[None]) -> None:
            await shows(pilot, "0 queues")
            other.disconnect_all()
            await shows(pilot, "0 queues, 0 topics")
            other.stop()
            await shows(pilot, "✖ trying again: no connection to the broker")
            with BrokerThread(other.port):
                await until(pilot, lambda: "✖" not in screen(pilot.app), "the broker to be back")

        use(monitor(source, other), script)


def test_a_queue_that_is_opened_says_it_as_well() -> None:
    with BrokerThread() as other, closing(open_queue_source(config_for(other))) as source:
        with connected(other.port) as transport:
            transport.send(Send("work", b"1"))

        async def script(pilot: Pilot[None]) -> None:
            await shows(pilot, "1 message")
            await pilot.press("enter")
            await shows(pilot, "PLACE")
            other.stop()
            await shows(pilot, "✖ trying again: no connection to the broker")
            assert "PLACE" in screen(pilot.app)

        use(monitor(source, other), script)


def test_where_a_look_costs_something_it_waits_to_be_asked(source: QueueSource, broker: BrokerThread) -> None:
    class Costly:
        """The same source, on a broker where a look leaves a trace."""

        peek_cost = "Each look leaves a trace"

        def __getattr__(self, name: str) -> object:
            return getattr(source, name)

    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "  work")
        await pilot.press("enter")
        await shows(pilot, "Each look leaves a trace. Press r to look all the same.")
        assert "node 1" not in screen(pilot.app)
        await pilot.press("r")
        await shows(pilot, "1 to 50 of 60")

    app = QueueMonitor(Costly(), config_for(broker), 0.1)  # pyright: ignore[reportArgumentType] - see above
    use(app, script)


def test_in_a_terminal_it_is_readable_and_leaves_no_trace(
    source: QueueSource, broker: BrokerThread, tmp_path: Path
) -> None:
    environment = broker_environment(broker.port) | {"NO_COLOR": "1"}
    with terminal(tmp_path, environment) as shell:
        shell.command(sys.executable, "-m", "parvis", "queue", "monitor", "--interval", "0.5")
        shell.wait_for("Embedded broker: 3 queues", "work", "OLDEST", "q Quit")
        assert "\x1b[3" not in shell.escapes().replace("\x1b[39m", ""), "no colour was asked for"
        shell.type("Enter")
        shell.wait_for("test.work  queue", "1 to 50 of 60")
        shell.resize(120, 40)
        shell.wait_for("test.work  queue", '{"number": 25}')
        shell.type("Escape")
        shell.wait_for("3 queues", "CLIENTS")
        # Where a terminal has grown, tmux leaves lines of a full-screen program behind, whichever it is.
        shell.resize(80, 24)
        shell.wait_for("3 queues", "CLNT")
        shell.type("q")
        seen = shell.wait_for("queue monitor --interval")
        assert "Embedded broker" not in seen
        shell.command("echo", "still", "here")
        shell.wait_for("still here\n")
