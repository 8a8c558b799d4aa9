"""What is made of successive figures of queues."""

from __future__ import annotations

import pytest

from parvis.observe.queue_figures import (
    QueueFigures,
    QueueHistory,
    find_queue,
)


def figures(name: str, held: int, enqueued: int = 0, dequeued: int = 0) -> QueueFigures:
    return QueueFigures(name, "queue", name, enqueued, dequeued, held, 0)


def test_rates_and_trends() -> None:
    history = QueueHistory()
    (first,) = history.take([figures("a", 3, 10, 7)], 100.0)
    assert (first.rate_in, first.rate_out, first.trend) == (None, None, (3,))
    (second,) = history.take([figures("a", 5, 30, 25)], 104.0)
    assert (second.rate_in, second.rate_out, second.trend) == (5.0, 4.5, (3, 5))
    new, old = history.take([figures("b", 8, 8), figures("a", 5, 30, 25)], 106.0)
    assert (new.figures.name, new.rate_in, old.rate_in) == ("b", 4.0, 0.0)
    (after,) = history.take([figures("a", 1, 2, 1)], 108.0)
    assert (after.rate_in, after.rate_out) == (1.0, 0.5), "the broker was started again and counts anew"


def test_an_idle_queue_fades_out() -> None:
    history = QueueHistory()
    history.take([figures("a", 0, 0, 0)], 0.0)
    seen = [history.take([figures("a", 0, 8, 8)], float(second))[0].relevance for second in range(1, 8)]
    assert seen == [16.0, 8.0, 4.0, 2.0, 1.0, 0.0, 0.0]


def test_those_that_hold_most_come_first_then_by_name() -> None:
    taken = QueueHistory().take([figures("c", 1), figures("b", 1), figures("a", 0), figures("d", 9)])
    assert [one.figures.name for one in taken] == ["d", "b", "c", "a"]


def test_a_figure_that_is_not_told_stays_unknown() -> None:
    history = QueueHistory()
    unknown = QueueFigures("a", "topic", "a")
    history.take([unknown], 0.0)
    (one,) = history.take([unknown], 1.0)
    assert (one.rate_in, one.rate_out, one.trend, one.relevance) == (None, None, (), 0.0)
    assert one.to_json()["held"] is None


def test_a_queue_is_found_by_either_name() -> None:
    known = [
        QueueFigures("work", "queue", "zocalo.work"),
        QueueFigures("DLQ.zocalo.work", "queue", "DLQ.zocalo.work"),
        QueueFigures("news", "topic", "zocalo.news"),
    ]
    assert find_queue(known, "work", "zocalo").absolute == "zocalo.work"
    assert find_queue(known, "zocalo.work", "zocalo").absolute == "zocalo.work"
    assert find_queue(known, "DLQ.zocalo.work", "zocalo").dead_letters is False
    with pytest.raises(ValueError, match=r"no queue 'wrk'.*Did you mean 'work'"):
        find_queue(known, "wrk", "zocalo")
    with pytest.raises(ValueError, match="no queue 'news'"):
        find_queue(known, "news", "zocalo")
