"""Numbers in words."""

import math
import time

import pytest

from parvis.observe.wording import (
    age_text,
    clock_text,
    counted,
    duration_text,
    moment_text,
    short_age,
    short_duration,
    size_text,
)


@pytest.mark.parametrize(
    ("seconds", "age", "short", "duration", "narrow"),
    [
        (0.0, "0 s", "0 s", "0 ms", "0 ms"),
        (0.32, "0 s", "0 s", "320 ms", "320 ms"),
        (4.1, "4 s", "4 s", "4.1 s", "4.1 s"),
        (59.99, "1 min", "59 s", "1 min", "60.0 s"),
        (200, "3 min 20 s", "3 min", "3 min 20 s", "3 min"),
        (3599, "59 min 59 s", "59 min", "59 min 59 s", "60 min"),
        (7500, "2 h 5 min", "2 h", "2 h 5 min", "2.1 h"),
        (273_600, "3 d 4 h", "3 d", "3 d 4 h", "76.0 h"),
    ],
)
def test_lengths_of_time(seconds: float, age: str, short: str, duration: str, narrow: str) -> None:
    assert age_text(seconds) == age
    assert short_age(seconds) == short
    assert duration_text(seconds) == duration
    assert short_duration(seconds) == narrow


def test_counts_and_sizes() -> None:
    assert [counted(number, "queue") for number in (0, 1, 2)] == ["0 queues", "1 queue", "2 queues"]
    assert [size_text(size) for size in (512, 1234, 12_345, 10_000_000, 5_100_000_000)] == [
        "512 B",
        "1.2 kB",
        "12 kB",
        "10 MB",
        "5.1 GB",
    ]


def test_moments_are_local_time_and_near_ones_without_their_day() -> None:
    moment = time.mktime((2026, 11, 20, 14, 30, 5, 0, 0, -1))
    assert moment_text(moment) == "2026-11-20 14:30:05"
    now = time.time()
    assert clock_text(now) == moment_text(now).split()[1]
    assert clock_text(now - 100_000) == moment_text(now - 100_000)
    assert clock_text(None) == "?"


@pytest.mark.parametrize("moment", [1e30, -1e30, math.inf, -math.inf, math.nan, 10.0**18])
def test_a_moment_that_no_calendar_knows_is_no_error(moment: float) -> None:
    assert moment_text(moment)
    assert clock_text(moment)
