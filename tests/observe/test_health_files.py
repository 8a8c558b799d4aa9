"""Checks of file systems, stores, requests that wait and records."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from health_checks import check, config, levels
from parvis.observe.collector import Collector
from parvis.observe.health_files import LookFailed, look
from parvis.observe.records_place import open_writer


def set_age(file: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(file, (moment, moment))


class TestFiles:
    def test_room(self, tmp_path: Path) -> None:
        wanted = {str(tmp_path): "1 kB", f"{tmp_path}/": "100%", "/nowhere": "5 %"}
        found = check("file-systems", config(file_systems=wanted))
        assert levels(found) == {str(tmp_path): "ok", f"{tmp_path}/": "error", "/nowhere": "error"}
        said = {finding.subject: finding.message for finding in found}
        assert said[f"{tmp_path}/"].endswith(", 100 % should be")
        assert said["/nowhere"] == "No such file or directory: '/nowhere'"

    @pytest.mark.parametrize("amount", ["50", "much", "-1 GB", "120%", "5 XB", True])
    def test_amounts_that_are_none(self, amount: Any) -> None:
        (finding,) = check("file-systems", config(file_systems={"/tmp": amount}))
        assert finding.level == "error"
        assert "must be like 50 GB or 5%" in finding.message

    def test_a_look_that_hangs_does_not_hold_up_the_others(self, tmp_path: Path) -> None:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        script = "import sys\nopen(sys.argv[1]).read()\nprint(1)"
        (tmp_path / "file").touch()
        begun = time.monotonic()
        found = look(script, [str(fifo), str(tmp_path / "file")], patience=2)
        assert time.monotonic() - begun < 10
        assert found == {str(fifo): "no answer within 2 s: it hangs", str(tmp_path / "file"): 1}
        assert isinstance(found[str(fifo)], LookFailed)

    def test_stores(self, tmp_path: Path) -> None:
        found = check("stores", config(stores=[str(tmp_path), "/proc"]))
        assert levels(found) == {"/proc": "error", str(tmp_path): "ok"}
        assert list(tmp_path.iterdir()) == []

    def test_requests_that_wait(self, tmp_path: Path) -> None:
        site = config()
        site = replace(site, storage={"zocalo.go.fallback_location": str(tmp_path / "drop")})
        assert levels(check("drop-files", site)) == {str(tmp_path / "drop"): "ok"}
        (tmp_path / "drop" / "broken").mkdir(parents=True)
        file = tmp_path / "drop" / "request"
        file.write_text("{}")
        (tmp_path / "drop" / ".being-written.part").touch()
        assert [finding.message for finding in check("drop-files", site)] == [
            "1 request waiting, the oldest for 0 s"
        ]
        set_age(file, 700)
        assert check("drop-files", site)[0].level == "warning"
        set_age(file, 7000)
        (tmp_path / "drop" / "broken" / "bad").touch()
        assert [finding.level for finding in check("drop-files", site)] == ["error", "warning"]

    def test_records(self, tmp_path: Path) -> None:
        site = replace(config(), storage={"parvis.state_directory": str(tmp_path)})
        assert levels(check("records", site)) == {"": "skipped"}
        with Collector(lambda: open_writer(site)) as collector:
            collector.announce("127.0.0.1:12201")
            (finding,) = check("records", site)
            assert (finding.level, finding.message) == (
                "ok",
                "a collector takes log records at 127.0.0.1:12201",
            )
            directory = collector.directory
        assert levels(check("records", site)) == {str(directory): "warning"}
        next(directory.glob("*.sqlite")).write_bytes(b"nonsense" * 1000)
        assert levels(check("records", site)) == {str(directory): "error"}
