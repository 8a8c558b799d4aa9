"""What is remembered from one run of the checks to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parvis.observe.health import CheckResult, Finding
from parvis.observe.health_history import History, HistoryError


def bad(name: str, subject: str = "", message: str = "away", level: Any = "error") -> CheckResult:
    return CheckResult(name, Finding(level, message, subject), 0.1)


def good(name: str, subject: str = "") -> CheckResult:
    return CheckResult(name, Finding("ok", "fine", subject), 0.1)


class TestHistory:
    @pytest.fixture
    def history(self, tmp_path: Path) -> History:
        return History(tmp_path / "state" / "health.sqlite", "a site")

    def test_it_knows_since_when(self, history: History) -> None:
        assert history.take([bad("broker")], now=100).results[0].since == 100
        assert history.take([bad("broker", level="warning")], now=200).results[0].since == 100
        after = history.take([good("broker")], now=300)
        assert after.results[0].since is None
        (cleared,) = after.cleared
        assert (cleared.check, cleared.level, cleared.since, cleared.at) == ("broker", "warning", 100, 300)
        (still,) = history.take([good("broker")], now=400).cleared
        assert still.at == 300
        again = history.take([bad("broker")], now=500)
        assert (again.results[0].since, again.cleared) == (500, [])

    def test_what_a_check_speaks_of_no_more_is_well(self, history: History) -> None:
        history.take([bad("queues", "work"), bad("queues", "other")], now=1)
        after = history.take([good("queues"), bad("queues", "other")], now=2)
        assert [(one.subject, one.at) for one in after.cleared] == [("work", 2)]

    def test_nothing_is_known_of_what_was_not_looked_at(self, history: History) -> None:
        history.take([bad("queues", "work")], now=1)
        for now, result in enumerate(
            [bad("queues"), CheckResult("queues", Finding("skipped", "no figures"), 0), good("broker")], 2
        ):
            assert not [one for one in history.take([result], now=now).cleared if one.subject == "work"]
        assert history.take([bad("queues", "work")], now=9).results[0].since == 1

    def test_a_dry_run_writes_nothing(self, history: History, tmp_path: Path) -> None:
        history.take([bad("broker")], now=1, write=False)
        assert not (tmp_path / "state").exists()
        history.take([bad("broker")], now=2)
        before = (tmp_path / "state" / "health.sqlite").read_bytes()
        dry = history.take([bad("broker"), bad("queues")], now=3, write=False)
        assert [one.since for one in dry.results] == [2, 3]
        assert history.take([good("broker")], now=4, write=False).cleared[0].at == 4
        assert (tmp_path / "state" / "health.sqlite").read_bytes() == before

    def test_sites_are_kept_apart_and_old_ones_forgotten(self, history: History, tmp_path: Path) -> None:
        other = History(tmp_path / "state" / "health.sqlite", "another site")
        history.take([bad("broker")], now=1)
        assert other.take([good("broker")], now=2).cleared == []
        history.take([good("broker")], now=3)
        assert history.take([good("broker")], now=3 + 31 * 86_400).cleared == []

    def test_a_file_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "health.sqlite").write_bytes(b"nonsense" * 1000)
        with pytest.raises(HistoryError, match=r"health\.sqlite"):
            History(tmp_path / "health.sqlite", "a site").take([good("broker")])
