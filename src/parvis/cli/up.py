"""`parvis up`: run all services of a list or a file, supervised, in one terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click

from parvis.cli.completion import complete_services
from parvis.cli.options import metrics_option, with_config
from parvis.config import Config, ConfigError

_MOST_INSTANCES = 1000


@click.command(
    epilog="""\b
Examples:
  parvis up                                  one of each known service
  parvis up Dispatcher FileWatcher perim=4   these, four of PerImageAnalysis
  parvis up --file beamline.yml              those that the file lists:
\b
      services:
        Dispatcher: 1
        PerImageAnalysis: 4
"""
)
@click.argument("services", nargs=-1, metavar="[NAME[=COUNT]]...", shell_complete=complete_services)
@click.option(
    "-f",
    "--file",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file with a mapping `services` of names to numbers of instances.",
)
@click.option(
    "--collect/--no-collect",
    default=None,
    help="Keep log records and hops for `parvis logs` and `parvis trace`: by default if the broker is on this"
    " machine.",
)
@metrics_option
@with_config(logs=True)
def up(services: tuple[str, ...], file: Path | None, collect: bool | None, config: Config) -> None:
    """Run services side by side; start again what ends; stop all with Ctrl-C."""
    from parvis.cli.own_collector import is_on_this_machine, own_collector, storage_of
    from parvis.observe.logs import set_up_logging
    from parvis.service.registry import find_services
    from parvis.service.supervisor import Supervisor, stop_supervisor_on_signals

    set_up_logging(config)
    wanted = instances(_from_file(file) if file else {}, services) or dict.fromkeys(find_services(), 1)
    commands = [(name, service_command(name)) for name, count in wanted.items() for _ in range(count)]
    click.echo(f"Starting {', '.join(f'{name} x{count}' for name, count in wanted.items())}", err=True)
    collects = is_on_this_machine(config) if collect is None else collect
    with own_collector(config) if collects else nullcontext(dict[str, str]()) as variables:
        set_up_logging(replace(config, storage=config.storage | storage_of(variables)))
        supervisor = Supervisor(commands, config.to_environment() | dict(variables))
        stop_supervisor_on_signals(supervisor)
        supervisor.run()


def service_command(name: str) -> list[str]:
    """Return the command that runs one instance of a service."""
    return [sys.executable, "-m", "parvis", "service", "-s", name]


def instances(listed: Mapping[str, Any], named: Iterable[str]) -> dict[str, int]:
    """Return how many instances of which service are asked for, by full name.

    Args:
        listed: Names and numbers from a file.
        named: Names from the command line, each perhaps with `=` and a number; they count more.

    Raises:
        ConfigError: A number is no number, or not from 1 to 1000.
        UnknownService: There is no such service.
    """
    from parvis.service.registry import resolve_name

    counts = {resolve_name(str(name)): _count(name, count) for name, count in listed.items()}
    for entry in named:
        name, _, count = entry.partition("=")
        counts[resolve_name(name)] = _count(name, count or 1)
    return counts


def _count(name: str, value: Any) -> int:
    text = str(value)
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_INSTANCES:
        raise ConfigError(
            f"{name}: the number of instances must be from 1 to {_MOST_INSTANCES}, not {text[:40]!r}"
        )
    return int(text)


def _from_file(file: Path) -> dict[str, Any]:
    import yaml

    try:
        content: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not YAML: {error}") from None
    services = cast("dict[str, Any]", content).get("services") if isinstance(content, dict) else None
    if not isinstance(services, dict) or not services:
        raise ConfigError(f"{file} must hold a mapping `services` of names to numbers of instances")
    return cast("dict[str, Any]", services)
