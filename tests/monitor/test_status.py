"""The status monitor on a real broker: what it shows, and what keys and mouse do."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from textual.pilot import Pilot

from inbox import Inbox
from parvis.monitor.log_view import LogLines
from parvis.monitor.overview import Overview
from parvis.monitor.status import StatusApp
from parvis.observe.cards import CardBoard
from parvis.observe.log_broadcast import TOPIC as LOG
from parvis.recipe.envelope import dump_json
from parvis.service.status import TOPIC as STATUS
from parvis.transport.base import Send
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from running import connected, hosted
from sample_services import Multiplier
from screen import screen, shows, until, use
from waiting import wait_until

PIA = {
    "host": "uk.example.vm2.12",
    "service": "PIA",
    "serviceclass": "PerImageAnalysis",
    "status": 4,
    "parvis": "0.1.0",
    "mem-uss": 81.4,
    "utilization": {"2": 0.2, "4": 0.8},
    "tag": "blue",
    "parvis-recipe": "3f2a91c0-0000-1111-2222-333344445555",
    "parvis-flow": {"held": 2, "in-flight": 1846},
    "parvis-recent": {
        "handled": 1234,
        "errors": {"reject": 3},
        "last": [[1.7e9, "3f2a91c0-aaaa", "7", "reject", 0.25, "no such file: x_00001.cbf"]],
    },
}
OLD = {"host": "uk.example.vm1.11", "service": "Dispatcher", "status": 2, "parvis": "0.0.9"}
TASK = {
    "host": "node7.99",
    "task": "xia2 (visit x)",
    "status": 4,
    "zocalo": "1.5.0",
    "cluster_JOB_ID": "4711",
}
POD = {"host": "pod-1.1", "service": "Mailer", "status": 7, "container_node": "k8s-3", "tag": "mail-0"}
HOSTILE = "\x1b[2J\x1b]0;x\x07[red]evil[/red] \u202eabc \u05d0\u05d1 \u0000"


@dataclass
class Site:
    """A broker, and a monitor that listens to it."""

    broker: BrokerThread
    transport: StompTransport
    board: CardBoard = field(default_factory=CardBoard)
    lines: LogLines = field(default_factory=LogLines)
    late: float = 0.0

    def __post_init__(self) -> None:
        self.transport.subscribe_broadcast(STATUS, self.board.take)
        self.transport.subscribe_broadcast(LOG, self.lines.take)

    def tell(self, *cards: dict[str, Any]) -> None:
        """Broadcast cards, and wait until the monitor has them."""
        for card in cards:
            self.transport.post(Send(STATUS, dump_json(card), kind="topic", persistent=False))
        hosts = {card["host"] for card in cards}
        wait_until(lambda: hosts <= {card.host for card in self.board.cards()}, 10, "the cards")

    def log(self, message: str, service: str = "PIA", host: str = PIA["host"], level: str = "INFO") -> None:
        """Broadcast a log record."""
        record = {"time": time.time(), "level": level, "service": service, "host": host, "message": message}
        self.transport.post(Send(LOG, dump_json(record), kind="topic", persistent=False))

    def app(self) -> StatusApp:
        """The monitor; its clock is `late` seconds ahead."""
        return StatusApp(
            self.board, self.lines, self.transport, "broker zocalo", lambda: time.monotonic() + self.late
        )


@pytest.fixture
def site(broker: BrokerThread, transport: StompTransport) -> Site:
    return Site(broker, transport)


def overview(pilot: Pilot[None]) -> Overview:
    return pilot.app.screen_stack[0].query_one(Overview)


def services(pilot: Pilot[None]) -> list[str]:
    """First words of the lines of the overview, without signs."""
    view = overview(pilot)
    lines = [view.render_line(y).text[2:].split() for y in range(view.size.height)]
    return [line[0] for line in lines if line]


def test_cards_where_there_is_room(site: Site) -> None:
    site.tell(PIA, OLD, TASK, POD)

    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "4 instances of 4 services", "broker zocalo", "sorted by service")
        text = screen(pilot.app)
        for expected in (
            *("PIA", "● processing", "80%", "vm2.12", "blue", "held 2", "81 MB", "3 errors"),
            "3f2a91c0-0000-1111",
            *("Dispatcher", "○ idle", "vm1.11", "outdated parvis 0.0.9"),
            *("xia2 (visit x)", "node7.99 job 4711"),
            *("Mailer", "✖ error", "k8s-3.mail-0"),
        ):
            assert expected in text, text

    use(site.app(), script, (200, 60))


def test_a_line_each_where_cards_do_not_fit_and_a_line_a_service_where_those_do_not(site: Site) -> None:
    site.tell(PIA, OLD, TASK, POD, *(PIA | {"host": f"uk.example.vm3.{number}"} for number in range(6)))

    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "10 instances of 4 services", "HOST", "vm3.5")
        site.tell(*(PIA | {"host": f"vm4.{number}", "status": 2 + number % 2 * 5} for number in range(190)))
        await shows(pilot, "200 instances of 4 services", "COUNT", "✖ 95 error", "● 7 processing")
        assert services(pilot) == ["Dispatcher", "Mailer", "PIA", "xia2"]
        await pilot.press("down", "down", "right")
        await until(pilot, lambda: services(pilot)[3] == "└", "instances below their service")
        assert services(pilot)[-1] == "└"
        await pilot.press("down", "down", "left")
        await until(pilot, lambda: services(pilot)[3] == "xia2", "a closed service")

    use(site.app(), script)


def test_sort_by_key_and_by_mouse(site: Site) -> None:
    site.tell(PIA, OLD, TASK, POD, *(OLD | {"host": f"vm3.{n}"} for n in range(3)))

    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "SERVICE ▾")
        assert services(pilot)[0] == "Dispatcher"
        await pilot.press("s", "s")
        await shows(pilot, "STATE ▾")
        assert services(pilot)[0] == "Mailer"
        await pilot.press("s")
        assert services(pilot)[0] == "PIA"
        await pilot.click("#heading", offset=(30, 0))
        await shows(pilot, "HOST ▾")
        assert services(pilot)[:2] == ["xia2", "Mailer"]

    use(site.app(), script)


def test_filter_by_typing(site: Site) -> None:
    site.tell(PIA, OLD, TASK, POD)
    site.log("seen 40 files")
    site.log("mail sent", "Mailer", "pod-1.1")

    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "seen 40 files", "mail sent")
        await pilot.press("slash", *"pia")
        await shows(pilot, "1 of 4 instances", "filter: pia")
        assert "Dispatcher" not in screen(pilot.app)
        assert "mail sent" not in screen(pilot.app)
        await pilot.press("enter", "x")
        await shows(pilot, "Stop PIA at uk.example.vm2.12?")
        await pilot.press("n", "escape")
        await shows(pilot, "4 instances of 4 services", "mail sent")

    use(site.app(), script)


def test_all_of_an_instance(site: Site) -> None:
    site.tell(OLD, PIA)
    site.log("found 17 spots", level="WARNING")
    site.log("of somebody else", "Dispatcher", OLD["host"])

    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "2 instances")
        await pilot.press("right", "enter")
        await shows(
            pilot,
            *("PerImageAnalysis", "uk.example.vm2.12", "81.4 MB", "held 2", "1,234", "reject 3"),
            *("node 7", "no such file: x_00001.cbf", "warning: found 17 spots"),
        )
        assert screen(pilot.app).count("of somebody else") <= 1
        site.tell(PIA | {"mem-uss": 512.5})
        await shows(pilot, "512.5 MB")
        await pilot.press("escape")
        await until(pilot, lambda: "512.5" not in screen(pilot.app), "the box to close")

    use(site.app(), script, (120, 50))


def test_a_mouse_is_enough(site: Site) -> None:
    site.tell(PIA, OLD)

    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "2 instances")
        await pilot.click(Overview, offset=(50, 3))
        await pilot.click(Overview, offset=(50, 3))
        await shows(pilot, "uk.example.vm2.12", "PerImageAnalysis")
        await pilot.click("#stop")
        await shows(pilot, "Stop PIA at uk.example.vm2.12?")
        await pilot.click("#no")
        await pilot.click("#close")
        await until(pilot, lambda: len(pilot.app.screen_stack) == 1, "the boxes to close")

    use(site.app(), script, (100, 50))


def test_stopping_an_instance(site: Site) -> None:
    commands = Inbox()
    site.transport.subscribe_broadcast("command", commands)

    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "Multiplier", "idle")
        await pilot.press("x")
        await shows(pilot, f".{os.getpid()}?", "Cancel (n)")
        await pilot.press("enter")  # which cancels
        await until(pilot, lambda: len(pilot.app.screen_stack) == 1, "the question to close")
        assert not commands.messages
        await pilot.press("x", "y")
        await until(pilot, lambda: host.is_stopping, "the host to stop")
        await shows(pilot, "Told to stop", "shutdown")

    with hosted(site.broker.port, Multiplier) as host:
        use(site.app(), script)
    assert len(commands.messages) == 1


def test_stopping_a_whole_service(site: Site) -> None:
    commands = Inbox()
    site.transport.subscribe_broadcast("command", commands)
    site.tell(PIA | {"serviceclass": "PIA, Other"}, OLD)

    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "2 instances")
        await pilot.press("down", "X")
        await shows(pilot, "Stop all 1 instance of PIA?")
        await pilot.press("y")
        await until(pilot, lambda: len(commands.messages) == 2, "the commands")

    use(site.app(), script)
    told = [orjson.loads(body) for body in commands.bodies]
    assert told == [{"command": "shutdown", "service": name} for name in ("PIA", "Other")]


def test_a_task_takes_no_command(site: Site) -> None:
    site.tell(TASK)

    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "1 instance")
        await pilot.press("x")
        await shows(pilot, "cancel job 4711")
        assert len(pilot.app.screen_stack) == 1

    use(site.app(), script)


def test_silence_is_told_and_then_the_card_goes(site: Site) -> None:
    site.tell(PIA, OLD | {"status": 6})

    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "2 instances", "shutdown")
        site.late = 11
        await shows(pilot, "1 instance of", "? last seen 1", "? 1 silent")
        site.late = 60
        await shows(pilot, "? last seen 6")
        site.late = 91
        await shows(pilot, "0 instances")

    use(site.app(), script)


def test_the_broker_goes_and_comes_back(site: Site) -> None:
    site.tell(PIA)
    port = site.broker.port

    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "1 instance")
        site.broker.stop()
        await shows(pilot, "connection lost, trying again", "1 instance")
        await pilot.press("x", "y")
        await shows(pilot, "Not stopped: ", timeout=20)
        with BrokerThread(port=port), connected(port) as other:
            wait_until(lambda: site.transport.is_connected, 20, "the connection")
            other.post(Send(STATUS, dump_json(OLD), kind="topic", persistent=False))
            await shows(pilot, "2 instances")
            assert "connection lost" not in screen(pilot.app)

    use(site.app(), script)


def test_hostile_names_are_harmless(site: Site) -> None:
    names = dict.fromkeys(
        ("service", "serviceclass", "tag", "statustext", "parvis", "parvis-recipe"), HOSTILE
    )
    row = [1.0, HOSTILE, HOSTILE, HOSTILE, 1.0, HOSTILE]
    site.tell(
        {"host": "evil.1", **names, "parvis-recent": {"handled": 1, "errors": {HOSTILE: 1}, "last": [row]}}
    )
    site.transport.post(
        Send(
            STATUS, dump_json({"host": "evil.2", "service": "x" * 10_000_000}), kind="topic", persistent=False
        )
    )
    site.log(HOSTILE * 10, HOSTILE, "evil.1")

    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "1 instance of 1 service", "[red]evil[/red]")
        await pilot.press("enter")
        await shows(pilot, "class", "[red]evil[/red]")
        await pilot.press("x")
        await shows(pilot, "evil.1?")
        shown = screen(pilot.app).replace("\n", "")
        assert shown.isprintable()
        assert "\u05d0" not in shown
        await pilot.press("y")
        await shows(pilot, "Told to stop: ")

    use(site.app(), script, (100, 40))
    assert site.board.ignored == 1


@pytest.mark.parametrize("size", [(40, 10), (1, 1), (200, 60)])
def test_every_key_at_every_size(site: Site, size: tuple[int, int]) -> None:
    site.tell(PIA, OLD, TASK, POD, *(PIA | {"host": f"vm4.{number}"} for number in range(60)))
    moves = "down up right left end home pagedown pageup"
    keys = f"s v {moves} v enter escape v v l l question_mark escape enter x escape slash p escape escape"

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: overview(pilot).matched == 64, "the cards")
        await pilot.press(*keys.split())
        await pilot.resize_terminal(80, 24)
        await shows(pilot, "64 instances of 4 services")

    use(site.app(), script, size)


def test_a_flood_of_log_records(site: Site) -> None:
    for number in range(3000):
        site.log(f"flood {number}")
    site.tell(PIA)  # which comes after all those
    lines = [line.message for line in site.lines.drain()]
    assert lines[:2] == ["flood 0", "flood 1"]
    assert lines[-1] == "2900 more came at once and are not shown"
    assert len(lines) == 101
    site.log("after it")

    async def script(pilot: Pilot[None]) -> None:
        await shows(pilot, "after it")

    use(site.app(), script)
