"""The ledger of what is in flight: shares, bounds, and what becomes of them when reports get lost."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from parvis.config import ConfigError
from parvis.service.flow_ledger import HORIZON, SMALL, UNBOUNDED, Ledger
from parvis.service.flow_limits import Limits
from parvis.service.flow_report import Key, Report, Sent, Served, Tally

QUEUE = "work"
STORE = "store"
LARGE = 100_000


class Site:
    """A ledger, its clock, and consumers that report what the test says they did."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.now = 1000.0
        self.ledger = Ledger(limits or Limits(), lambda: self.now)
        self._done: dict[tuple[str, Key], int] = {}
        self._handled: dict[str, int] = {}
        self._sent: dict[Key, int] = {}

    def report(
        self,
        done: Mapping[Key, int] | None = None,
        *,
        host: str = "a",
        rate: float | None = 100.0,
        idle: float = 0.0,
        waiting: int = 0,
        lost: bool = False,
        others: int = 0,
        gone: bool = False,
    ) -> None:
        """A consumer has handled some more messages of each key, and `others` that are nobody's."""
        entries: dict[tuple[str, Key], Tally] = {}
        for key, new in (done or {}).items():
            total = self._done[host, key] = self._done.get((host, key), 0) + new
            entries[QUEUE, key] = Tally(total, new, waiting)
        self._handled[host] = self._handled.get(host, 0) + sum((done or {}).values()) + others
        report = Report(host, idle, gone, {QUEUE: Served(self._handled[host], rate)}, entries)
        if not lost:
            self.ledger.hear(Report.parse(report.to_bytes()))

    def look(self, key: Key, total: int | None = LARGE) -> int:
        """What the watch of a fan-out is told when it asks."""
        return self.ledger.look(QUEUE, key, sent=self._sent.get(key, 0), done=0, total=total)

    def send(self, key: Key, messages: int, delay: float = 0) -> None:
        """The watch sends, and the broker confirms."""
        self._sent[key] = self._sent.get(key, 0) + messages
        self.ledger.add(QUEUE, key, messages, delay)

    def fill(self, key: Key, total: int | None = LARGE) -> int:
        """The watch sends as much as it may, and wants more."""
        room = self.look(key, total)
        self.send(key, max(0, room))
        self.ledger.hold(QUEUE, key)
        return room

    def restart(self) -> None:
        """A new instance takes over, which knows nothing but the checkpoints."""
        self.ledger = Ledger(Limits(), lambda: self.now)


def key(number: int, user: str = "") -> Key:
    return Key.of(f"recipe-{number}", user, f"{number:x}")


@pytest.fixture
def site() -> Site:
    site = Site()
    site.report()
    return site


def test_a_fan_out_alone_gets_some_seconds_of_work(site: Site) -> None:
    assert site.fill(key(1)) == 100 * HORIZON
    assert site.look(key(1)) == 0
    site.report({key(1): 40})
    assert site.look(key(1)) == 40


def test_consumers_add_up(site: Site) -> None:
    site.report(host="b", rate=50)
    site.report(host="c", rate=None)  # knows no rate yet: the mean of the others
    assert site.look(key(1)) == 225 * HORIZON


def test_fan_outs_share_evenly(site: Site) -> None:
    site.fill(key(1))
    assert site.fill(key(2)) == 150
    site.report({key(1): 300, key(2): 150})
    assert site.fill(key(1)) == 150
    assert site.fill(key(2)) == 150


def test_what_one_does_not_use_is_there_for_the_other(site: Site) -> None:
    site.look(key(1))
    site.send(key(1), 20)
    assert site.look(key(2)) == 280


def test_a_small_fan_out_goes_at_once_beside_large_ones(site: Site) -> None:
    for number in range(10):
        site.fill(key(number))
    assert site.look(key(11), total=100) == 100


def test_many_small_ones_of_one_user_do_not_count_as_small(site: Site) -> None:
    rooms = [site.fill(key(number, "eve"), total=SMALL) for number in range(20)]
    assert rooms[1] == SMALL
    assert rooms[-1] < SMALL / 4
    assert site.fill(key(30, "adam"), total=SMALL) == SMALL


def test_the_first_messages_go_before_any_rate_is_known() -> None:
    site = Site()
    site.report(rate=None)
    assert site.fill(key(1)) == SMALL
    assert site.look(key(1)) == 0


def test_no_bound_that_is_configured_is_exceeded() -> None:
    site = Site(Limits(fan_out=100, recipe=150, user=220))
    site.report(rate=1e6)
    assert site.fill(key(1, "eve")) == 100
    other_watch = Key.of("recipe-1", "eve", "ff")
    assert site.fill(other_watch) == 50
    assert site.fill(key(2, "eve")) == 70
    assert site.fill(key(3, "eve")) == 0
    assert site.fill(key(4, "adam")) == 100


def test_what_other_instances_send_counts_for_the_user(site: Site) -> None:
    site.ledger = Ledger(Limits(user=500), lambda: site.now)
    site.report(rate=1e6)
    site.ledger.hear(Report("other", sent={(QUEUE, key(1, "eve")): Sent(450, 50, held=True)}))
    assert site.look(key(2, "eve")) == 100


def test_slow_consumers_get_what_keeps_them_busy() -> None:
    site = Site()
    for number in range(40):
        site.report(host=f"host-{number}", rate=0.01)
    assert site.look(key(1)) == 80


def test_dead_letters_and_what_is_done_make_room_but_what_is_tried_again_does_not(site: Site) -> None:
    site.fill(key(1))
    site.report({key(1): 0}, waiting=300)
    assert site.look(key(1)) == 0
    site.now += 10
    site.report({key(1): 0}, waiting=300, idle=5)  # idle, as everything waits to be tried again
    assert site.look(key(1)) == 0


def test_a_lost_report_is_made_good_by_the_next(site: Site) -> None:
    site.report({key(1): 0})
    site.fill(key(1))
    site.report({key(1): 100}, lost=True)
    assert site.look(key(1)) == 0
    site.report({key(1): 10})
    assert site.look(key(1)) == 110


def test_what_a_consumer_says_when_it_leaves_counts(site: Site) -> None:
    site.fill(key(1))
    site.report({key(1): 30}, gone=True)
    site.report(host="b")
    assert site.look(key(1)) == 30


def test_consumers_with_nothing_to_do_prove_that_nothing_is_in_flight(site: Site) -> None:
    site.fill(key(1))
    site.report({key(1): 300}, lost=True)
    site.report(host="b", rate=0, idle=0)
    site.now += 5
    site.report(idle=5)
    site.look(key(1))
    site.now += 1
    assert site.look(key(1)) == 0  # the other one is at work
    site.report(host="b", rate=0, idle=5)
    site.now += 1
    assert site.look(key(1)) == 300


def test_consumers_may_be_idle_while_the_broker_holds_messages_back(site: Site) -> None:
    site.look(key(1))
    site.send(key(1), 300, delay=60)
    site.now += 30
    site.report(idle=10)
    assert site.look(key(1)) == 0
    site.now += 40
    site.report(idle=10)
    site.now += 1
    assert site.look(key(1)) == 300


def test_what_others_have_overtaken_is_written_off(site: Site) -> None:
    site.fill(key(1))
    site.report({key(1): 300}, lost=True)
    for _ in range(20):  # the consumer is busy with other messages all the time
        site.now += 1
        site.report(others=100)
        site.look(key(1))
    assert site.look(key(1)) == 300


def test_a_new_instance_goes_on_with_what_the_checkpoint_says(site: Site) -> None:
    site.fill(key(1))
    site.report({key(1): 100})
    site.restart()
    site.report({key(1): 0})
    assert site.ledger.look(QUEUE, key(1), sent=300, done=100, total=LARGE) == 100
    site.report({key(1): 50})
    assert site.ledger.look(QUEUE, key(1), sent=300, done=100, total=LARGE) == 150


def test_a_new_instance_is_never_stuck(site: Site) -> None:
    site.fill(key(1))
    site.report({key(1): 300}, lost=True)  # handled while no watcher was there
    site.restart()
    site.report(idle=5)
    assert site.look(key(1)) == 0
    site.now += 4
    site.report(idle=9)
    site.now += 1
    assert site.look(key(1)) == 300


def test_what_came_twice_does_not_widen_the_window(site: Site) -> None:
    site.fill(key(1))
    site.report({key(1): 900})
    assert site.fill(key(1)) == 300
    assert site.look(key(1)) == 0


def test_consumers_that_do_not_report_are_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    assert site.fill(key(1)) == SMALL
    assert site.look(key(1)) == 0
    site.now += 10
    assert site.look(key(1)) == UNBOUNDED
    assert site.look(key(2)) == UNBOUNDED
    assert [record.getMessage() for record in caplog.records] == [
        "queue work has no consumer that reports: flow control is off for it"
    ]
    site.report()
    assert site.look(key(3)) < UNBOUNDED


def test_a_queue_without_flow_control_does_not_use_up_the_bounds(site: Site) -> None:
    site.report(rate=1e6)
    foreign = {"sent": 0, "done": 0, "total": LARGE}
    assert site.ledger.look("foreign", key(1, "eve"), **foreign) == SMALL
    site.now += 10
    site.report(rate=1e6)
    assert site.ledger.look("foreign", key(1, "eve"), **foreign) == UNBOUNDED
    site.ledger.add("foreign", key(1, "eve"), LARGE, 0)
    assert site.look(key(1, "eve")) == Limits().fan_out
    assert site.look(key(2, "eve")) == Limits().fan_out


def test_consumers_that_reported_are_waited_for(site: Site) -> None:
    site.fill(key(1))
    site.now += 60
    assert site.look(key(1)) < 1
    site.report({key(1): 300})
    assert site.look(key(1)) == 300
    site.report(gone=True)
    site.now += 60
    assert site.look(key(1)) == SMALL
    site.now += 1000
    site.look(key(1))
    site.now += 10
    assert site.look(key(1)) == UNBOUNDED


def stored(done: int = 0, sent: int = 0, host: str = "a") -> Report:
    """What a host says that has sent so much on to the next queue, or handled so much of it, in all."""
    queues = {STORE: Served(done, 100.0)} if done or host == "store" else {QUEUE: Served(0, 100.0)}
    return Report(host, queues=queues, tallies={(STORE, key(1)): Tally(done, 0, 0, sent, 0)})


def test_what_is_sent_on_is_in_flight_too() -> None:
    site = Site(Limits(fan_out=100, recipe=150))
    site.report()
    site.ledger.hear(stored(host="store"))
    site.fill(key(1))
    site.report({key(1): 60})
    assert site.look(key(1)) == 60
    site.ledger.hear(stored(sent=80))
    assert site.look(key(1)) == 20  # of the fan-out at any queue
    site.ledger.hear(stored(sent=120))
    assert site.look(key(1)) == 0
    site.ledger.hear(stored(done=70, host="store"))
    assert site.look(key(1)) == 50
    site.ledger.hear(stored(sent=105))  # it has begun to count anew
    assert site.look(key(1)) == 0


def test_what_is_sent_on_to_those_who_do_not_report_is_not_waited_for() -> None:
    site = Site(Limits(fan_out=100))
    site.report()
    site.ledger.hear(stored(sent=5000))
    assert site.look(key(1)) == 100
    site.now += 3600
    site.report()
    assert site.look(key(1)) == 100


def test_a_new_instance_knows_what_was_sent_on_before() -> None:
    site = Site(Limits(fan_out=100))
    site.report()
    site.ledger.hear(stored(sent=500))
    site.ledger.hear(stored(done=420, host="store"))
    assert site.look(key(1)) == 20


def test_monitors_see_what_is_held_back(site: Site) -> None:
    site.fill(key(1))
    site.look(key(2), total=50)
    site.send(key(2), 50)
    assert site.ledger.summary() == {"held": 1, "in-flight": 350, "room": 100}


def test_nobody_repeats_what_another_instance_says(site: Site) -> None:
    """Two that did would remind each other for ever of a fan-out that is long over."""
    site.fill(key(1))
    told = site.ledger.tell(everything=True)
    assert told == {(QUEUE, key(1)): Sent(300, 0, held=True)}
    other = Ledger(Limits(), lambda: site.now)
    other.hear(Report("first", sent=told))
    assert other.tell(everything=True) == {}


def test_a_summary_is_quick_however_much_is_reported() -> None:
    """Every look waits for it. Worked out anew for each fan-out, it would take minutes."""
    site = Site()
    sent = {(QUEUE, key(number)): Sent(5, 0, held=True) for number in range(20_000)}
    site.ledger.hear(Report("other", sent=sent))
    assert site.ledger.summary() == {"held": 20_000, "in-flight": 100_000, "room": 0}


@pytest.mark.parametrize("value", [0, -1, "many", 1.5, True])
def test_a_bound_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"parvis\.flow\.user must be a number of messages from 1 to"):
        Limits.of({"parvis.flow.user": value})


def test_bounds_come_from_the_configuration() -> None:
    assert Limits.of({"parvis.flow.fan_out": 7, "parvis.flow.user": 8}) == Limits(fan_out=7, user=8)
