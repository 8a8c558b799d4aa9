"""Watches that are held back: bounds, fairness, and that nothing that fails stops them for good."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from parvis.config import Config
from parvis.service import flow_ledger
from parvis.service.base import AnyService
from parvis.service.fan_out import STATE
from parvis.service.flow_ledger import HORIZON, Ledger
from parvis.service.flow_limits import Limits
from parvis.service.flow_report import Key, Report, Served, State, Tally
from parvis.service.handling import handle
from parvis.service.host import Host
from parvis.service.testing import Run, run
from parvis.transport.base import Message
from parvis.transport.embedded.thread import BrokerThread
from parvis_services.watch.file_watcher import FileWatcher
from running import NAMESPACE, Listener, connected, process_of, transport_to
from scans import (
    ENDED,
    WORK,
    Record,
    Store,
    Worker,
    make_images,
    most_in_flight,
    quick_directory,
    scan_message,
)
from waiting import wait_until

LIMIT = 50
BURST = 100  # images that a watcher looks at in one go
BOUNDED = Config(storage={"parvis.flow.fan_out": LIMIT})


@pytest.fixture
def directory() -> Iterator[Path]:
    with quick_directory() as directory:
        yield directory


@pytest.fixture
def record(directory: Path) -> Record:
    return Record(directory / "record")


@contextlib.contextmanager
def running(port: int, *services: type[AnyService], config: Config = BOUNDED) -> Generator[None]:
    """Each service in a host and a thread of its own."""
    hosts = [Host(transport_to(port), [service(config)]) for service in services]
    threads = [threading.Thread(target=host.run, daemon=True) for host in hosts]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for host in hosts:
            host.stop()
        for thread in threads:
            thread.join(timeout=30)
            assert not thread.is_alive(), "a host did not stop"


def depth(broker: BrokerThread) -> int:
    """How many images wait for the workers, those that they have in hand included."""
    return _statistics(broker, WORK)[0]


def looks(broker: BrokerThread) -> int:
    """How many looks the watchers have taken."""
    return _statistics(broker, "filewatcher")[1]


def _statistics(broker: BrokerThread, queue: str) -> tuple[int, int]:
    name = f"/queue/{NAMESPACE}.{queue}"
    found = [(entry.size, entry.dequeued) for entry in broker.statistics() if entry.name == name]
    return found[0] if found else (0, 0)


def wait_for_looks(broker: BrokerThread, count: int) -> None:
    begun = looks(broker)
    wait_until(lambda: looks(broker) >= begun + count, 30, f"{count} looks")


def wait_for(record: Record, scan: str, count: int, timeout: float = 60) -> None:
    wait_until(lambda: record.count(scan) >= count, timeout, f"{count} images of {scan}")


def test_no_more_is_in_flight_than_allowed_and_every_image_is_handled(
    broker: BrokerThread, record: Record, directory: Path
) -> None:
    pattern = make_images(directory, 300)
    with running(broker.port, FileWatcher, Worker, Worker), connected(broker.port) as transport:
        ended = Listener(transport, ENDED)
        transport.send(scan_message("a", pattern, 300, record, seconds=0.001))
        wait_for(record, "a", 300)
        ended.wait_for(1)
    images = record.images("a")
    assert sorted(image.number for image in images) == list(range(1, 301))
    assert most_in_flight(images) <= LIMIT
    assert ended.payloads() == [{"files-expected": 300, "files-seen": 300, "success": True}]


def test_a_small_scan_does_not_wait_for_a_large_one(
    broker: BrokerThread, record: Record, directory: Path
) -> None:
    pattern = make_images(directory, 6_000)
    with (
        running(broker.port, FileWatcher, Worker, Worker, config=Config()),
        connected(broker.port) as transport,
    ):
        transport.send(scan_message("large", pattern, 6_000, record))
        wait_for(record, "large", 400)
        ahead = record.count("large")
        transport.send(scan_message("small", pattern, 100, record))
        wait_for(record, "small", 100)
        images = record.images()
    pace = len(images) / (images[-1].handled - images[0].handled)
    between = sum(image.scan == "large" for image in images) - ahead
    assert between < 2 * HORIZON * pace


def test_the_bound_of_a_user_holds_for_all_scans_and_watchers(
    broker: BrokerThread, record: Record, directory: Path
) -> None:
    pattern = make_images(directory, 250)
    config = Config(storage={"parvis.flow.user": LIMIT})
    with (
        running(broker.port, FileWatcher, FileWatcher, Worker, config=config),
        connected(broker.port) as transport,
    ):
        for scan in ("a", "b"):
            transport.send(scan_message(scan, pattern, 250, record, seconds=0.001, user="eve"))
        for scan in ("a", "b"):
            wait_for(record, scan, 250)
    # Two watchers that look at the same moment do not know of each other's images yet.
    assert most_in_flight(record.images()) <= 2 * LIMIT


def test_dead_letters_make_room(broker: BrokerThread, record: Record, directory: Path) -> None:
    pattern = make_images(directory, 250)
    with running(broker.port, FileWatcher, Worker), connected(broker.port) as transport:
        dead = Listener(transport, f"DLQ.{NAMESPACE}.{WORK}")
        transport.send(scan_message("a", pattern, 250, record, seconds=0, reject_every=2))
        wait_for(record, "a", 250)
        dead.wait_for(125)
    assert most_in_flight(record.images("a")) <= LIMIT


def test_images_that_are_tried_again_make_no_room(
    broker: BrokerThread, record: Record, directory: Path
) -> None:
    pattern = make_images(directory, 250)
    away = directory / "away"
    away.touch()
    with running(broker.port, FileWatcher, Worker), connected(broker.port) as transport:
        transport.send(scan_message("a", pattern, 250, record, seconds=0, retry_while=str(away)))
        wait_for_looks(broker, 8)  # long enough for the worker to say that it has nothing to do
        # Beside the watch's own checkpoint some may be on their way between the two.
        assert depth(broker) + broker.broker.destinations.delayed < LIMIT + 10
        away.unlink()
        wait_for(record, "a", 250)


def test_results_that_nobody_can_store_hold_the_watch_back(
    broker: BrokerThread, record: Record, directory: Path
) -> None:
    pattern = make_images(directory, 400)
    away = directory / "away"
    away.touch()
    with running(broker.port, FileWatcher, Worker, Store), connected(broker.port) as transport:
        transport.send(scan_message("a", pattern, 400, record, seconds=0, away=away))
        wait_for_looks(broker, 8)
        # A last lot of images was under way when the results began to pile up.
        assert LIMIT <= record.count("a") <= 3 * LIMIT
        away.unlink()
        wait_for(record, "a", 400)


def test_a_watcher_that_is_killed_in_the_middle(
    broker: BrokerThread, record: Record, directory: Path
) -> None:
    pattern = make_images(directory, 400)
    site = directory / "site.yml"
    site.write_text(
        f"version: 1\nflow: {{plugin: storage, parvis.flow.fan_out: {LIMIT}}}\n"
        "environments: {default: [flow]}\n"
    )
    environment = {"ZOCALO_CONFIG": str(site)}
    with running(broker.port, Worker), connected(broker.port) as transport:
        with process_of(FileWatcher, broker.port, environment) as watcher:
            transport.send(scan_message("a", pattern, 400, record, seconds=0.001))
            wait_for(record, "a", 120)
            watcher.send_signal(signal.SIGKILL)
        wait_until(lambda: depth(broker) == 0, 20, "the workers, which nobody hears")
        with process_of(FileWatcher, broker.port, environment):
            wait_for(record, "a", 400)
    assert most_in_flight(record.images("a")) <= LIMIT + BURST


def test_a_worker_that_is_killed_with_what_it_has_not_reported(
    broker: BrokerThread, record: Record, directory: Path
) -> None:
    pattern = make_images(directory, 300)
    with running(broker.port, FileWatcher), connected(broker.port) as transport:
        with process_of(Worker, broker.port) as worker:
            transport.send(scan_message("a", pattern, 300, record, seconds=0.001))
            wait_for(record, "a", LIMIT + 5)
            worker.send_signal(signal.SIGKILL)
        with process_of(Worker, broker.port):
            wait_for(record, "a", 300)
    assert most_in_flight(record.images("a")) <= 2 * LIMIT


def test_workers_that_are_away_for_a_while(broker: BrokerThread, record: Record, directory: Path) -> None:
    pattern = make_images(directory, 400)
    with running(broker.port, FileWatcher), connected(broker.port) as transport:
        with running(broker.port, Worker):
            transport.send(scan_message("a", pattern, 400, record, seconds=0.001))
            wait_for(record, "a", LIMIT)
        wait_for_looks(broker, 4)
        assert depth(broker) <= LIMIT
        with running(broker.port, Worker):
            wait_for(record, "a", 400)


def test_workers_that_do_not_report(
    broker: BrokerThread, record: Record, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_ledger, "_GRACE", 1.0)
    pattern = make_images(directory, 400)
    with running(broker.port, FileWatcher), connected(broker.port) as transport:
        foreign = Listener(transport, WORK)
        transport.send(scan_message("a", pattern, 400, record))
        foreign.wait_for(400)


def test_monitors_see_that_a_watch_is_held_back(
    broker: BrokerThread, record: Record, directory: Path
) -> None:
    pattern = make_images(directory, 400)
    cards: list[Any] = []

    def is_held(card: Any) -> bool:
        flow = card.get("parvis-flow", {})
        return flow.get("held") == 1 and flow["in-flight"] > 0

    def take(message: Message) -> None:
        cards.append(orjson.loads(message.body))

    with running(broker.port, FileWatcher, Worker), connected(broker.port) as transport:
        transport.subscribe_broadcast("transient.status", take)
        transport.send(scan_message("a", pattern, 400, record, seconds=0.02))
        wait_until(lambda: any(map(is_held, cards)), 20, "the card")
    (held, *_) = filter(is_held, cards)
    assert held["serviceclass"] == "FileWatcher"
    assert held["parvis-flow"]["in-flight"] <= LIMIT
    assert all("parvis-flow" not in card for card in cards if card["serviceclass"] == "Worker")


OUTPUTS = ["first", "every", "last", "any", "finally", "timeout"]


class Held:
    """A file watcher whose ledger has room for so many messages."""

    def __init__(self, room: int) -> None:
        self.watcher = FileWatcher(Config())
        self.ledger = self.watcher.ledger = Ledger(Limits(fan_out=max(1, room)))
        served = {f"output.{number}": Served(0, 1e6) for number in range(2, 2 + len(OUTPUTS))}
        self.ledger.hear(Report("worker", queues=served))

    def look(
        self,
        pattern: str,
        count: int,
        payload: Any = None,
        header: Mapping[str, str] | None = None,
        **parameters: Any,
    ) -> Run:
        values = {"pattern": pattern, "pattern-start": 1, "pattern-end": count, **parameters}
        return run(self.watcher, payload, parameters=values, outputs=OUTPUTS, header=header)


def test_what_does_not_fit_stays_in_the_checkpoint(directory: Path) -> None:
    look = Held(room=3).look(make_images(directory, 300), 300)
    assert [image["file-number"] for image in look.sent("every")] == [1, 2, 3]
    assert len(look.sent("first")) == 1
    (checkpoint,) = look.checkpoints
    assert checkpoint.payload["filewatcher-status"]["seen-files"] == 3
    assert checkpoint.delay == 0.5


def test_the_checkpoint_says_how_much_of_what_was_sent_is_handled(directory: Path) -> None:
    held = Held(room=3)
    key = Key.of("test", "", "0f")
    handled = {("output.3", key): Tally(done=2, done_new=2)}
    held.ledger.hear(Report("worker", queues={"output.3": Served(2, 1e6)}, tallies=handled))
    before = State("0f", {"output.3": (3, 0)})
    look = held.look(make_images(directory, 300), 300, header={STATE: before.to_header()})
    (checkpoint,) = [send for send in look.outcome.sends if send.destination == "filewatcher"]
    assert State.parse(checkpoint.headers[STATE]) == State("0f", {"output.3": (5, 2)})


def test_a_watch_that_is_held_back_does_not_time_out(directory: Path) -> None:
    held = Held(room=3)
    pattern = make_images(directory, 300)
    status = {"seen-files": 3, "start-time": 1000.0, "last-seen": 1001.0}
    first = held.look(pattern, 300, {"filewatcher-status": status}, timeout=60)
    assert [image["file-number"] for image in first.sent("every")] == [4, 5, 6]
    assert first.sent("timeout") == []
    assert first.checkpoints[0].payload["filewatcher-status"]["last-seen"] > 1001


def test_an_image_that_is_missing_holds_nothing_back_and_times_out(directory: Path) -> None:
    status = {"seen-files": 0, "start-time": 1000.0}
    look = Held(room=3).look(str(directory / "%d"), 300, {"filewatcher-status": status}, timeout=60)
    assert [sent.output for sent in look.everything] == ["timeout", "finally"]


def test_a_small_scan_goes_at_once_if_its_first_image_goes_to_the_same_queue(
    directory: Path, record: Record
) -> None:
    watcher = FileWatcher(Config())
    ledger = watcher.ledger = Ledger(Limits())
    ledger.hear(Report("worker", queues={WORK: Served(0, 10.0)}))
    large = Key.of("large", "", "1")
    ledger.add(WORK, large, 30, 0)
    ledger.hold(WORK, large)
    small = scan_message("small", make_images(directory, 100), 100, record)
    body = orjson.loads(small.body)
    body["recipe"]["1"]["output"] = {"first": 2, "every": 2, "finally": 3}
    message = Message("filewatcher", orjson.dumps(body), small.headers, "a", 1)
    sent = [send for send in handle(watcher, message).sends if send.destination == WORK]
    assert len(sent) == 101
