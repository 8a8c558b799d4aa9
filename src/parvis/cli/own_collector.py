"""A collector for as long as a command runs, so that what its services log and report can be looked up."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from collections.abc import Generator, Mapping
from pathlib import Path

from parvis.config import RECORDS_COLLECTOR, Config

_log = logging.getLogger("parvis.collector")


@contextlib.contextmanager
def own_collector(config: Config, directory: Path | None = None) -> Generator[Mapping[str, str]]:
    """Take log records, and hops from the configured broker; give the variables that have services send them.

    If somebody takes them for this place already, services send them there. If they cannot be kept, that is
    logged, and nothing is sent.

    Args:
        config: The configuration.
        directory: Where to keep them; by default as configured.
    """
    from parvis.observe.collector import Collector
    from parvis.observe.gelf_inputs import GelfInputs
    from parvis.observe.records import RecordsError, collector_address
    from parvis.observe.records_place import open_writer, records_directory

    with contextlib.ExitStack() as stack:
        try:
            collector = stack.enter_context(
                Collector(lambda: open_writer(config, directory), config.transport())
            )
        except RecordsError as error:
            address = collector_address(directory or records_directory(config))
            if address is None:
                _log.warning("no records are kept for `parvis logs` and `parvis trace`: %s", error)
            yield _variables(address) if address else {}
            return
        inputs = stack.enter_context(GelfInputs(collector.intake, tcp=None, http=None))
        address = f"127.0.0.1:{inputs.ports['udp']}"
        collector.announce(address)
        yield _variables(address)


def _variables(address: str) -> dict[str, str]:
    return {"PARVIS_RECORDS_COLLECTOR": address, "PARVIS_RECORDS_HOPS": "true"}


def storage_of(variables: Mapping[str, str]) -> dict[str, str]:
    """Return what the variables stand for, as keys of the configuration's storage."""
    address = variables.get("PARVIS_RECORDS_COLLECTOR")
    return {RECORDS_COLLECTOR: address} if address else {}


def is_on_this_machine(config: Config) -> bool:
    """Whether the broker is certainly on this machine, and so hardly anybody else's."""
    return all(_is_loopback(host) for host, _ in config.broker.hosts)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
