"""What is told of tests: little where many fail for one reason; at the end, what campaigns measured."""

from __future__ import annotations

from collections.abc import Generator

import pytest

REPORT = "fault report"  # the name that a line for the end has among the properties of a test


_failed_setups: dict[str, str] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell once why a fixture of many tests failed."""
    report = yield
    if report.when == "setup" and report.failed and call.excinfo is not None:
        first = _failed_setups.setdefault(call.excinfo.exconly(), item.nodeid)
        if first != item.nodeid:
            report.longrepr = f"for the same reason as {first}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the campaigns report, whichever process they ran in."""
    ended = [
        one
        for outcome in ("passed", "failed")
        for one in terminalreporter.stats.get(outcome, [])
        if one.when == "call"
    ]
    lines = [line for one in ended for name, line in one.user_properties if name == REPORT]
    if lines:
        terminalreporter.section("faults, and how they were recovered from")
        for line in lines:
            terminalreporter.write_line(line)
