"""Running the checks of a site that is made for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from parvis.config import (
    Config,
    StompSettings,
)
from parvis.observe.health import Finding, find_checks, run_checks
from parvis.transport.embedded import BrokerThread


def config(broker: BrokerThread | None = None, **storage: Any) -> Config:
    """The configuration of a site, with keys of `parvis.health`."""
    port = broker.port if broker is not None else 1
    keys = {f"parvis.health.{name}": value for name, value in storage.items()}
    return Config(stomp=StompSettings("127.0.0.1", port, "", "", "test"), storage=keys)


def check(name: str, site: Config, timeout: float = 20) -> list[Finding]:
    """What a check finds."""
    return [result.finding for result in run_checks(find_checks([name]), site, timeout)]


def levels(findings: Iterable[Finding]) -> dict[str, str]:
    return {finding.subject: finding.level for finding in findings}
