"""`parvis service`: run a service, or list those there are."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from parvis.cli.completion import complete_services
from parvis.cli.moments import FiniteRange
from parvis.cli.options import json_option, liveness_options, metrics_option, with_config
from parvis.cli.printing import print_json
from parvis.config import Config

if TYPE_CHECKING:
    from parvis.service.host import Host

_WAIT: Final = 10.0  # seconds for which a single message is waited for, if not told otherwise


@click.command(
    epilog="""\b
Examples:
  parvis service                         list the services
  parvis service -s PerImageAnalysis     run one
  parvis service -s perim --workers 4    run four instances of it, supervised
  parvis service -s perim -q pia.test    the same service on another queue
  parvis service -s perim --single-message --wait 60
                                         handle one message and end
  parvis service -s perim --liveness     with probes for Kubernetes
  parvis service -s zocalo:Mailer        a service written for workflows
"""
)
@click.option(
    "-s",
    "--service",
    "name",
    metavar="NAME",
    shell_complete=complete_services,
    help="Service to run; the first letters are enough, capitals do not matter.",
)
@click.option("--workers", metavar="N", type=click.IntRange(min=1), help="Run N supervised instances.")
@click.option("-q", "--queue", metavar="QUEUE", help="Listen to this queue instead of the service's own.")
@click.option("--tag", metavar="TAG", help="A word to show in monitors.")
@click.option("-r", "--restart", is_flag=True, help="Start the service again when it ends by an error.")
@click.option(
    "--single-message", is_flag=True, help="Take one message, handle it, and end: for jobs of a cluster."
)
@click.option(
    "--wait",
    metavar="SECONDS",
    type=FiniteRange(min=0),
    help=f"How long to wait for that message, {_WAIT:g} s if not told.",
)
@click.option("-d", "--debug", is_flag=True, help="Log as with -vv.")
@liveness_options
@metrics_option
@json_option
@with_config(logs=True)
def service(
    name: str | None,
    workers: int | None,
    queue: str | None,
    tag: str | None,
    restart: bool,
    single_message: bool,
    wait: float | None,
    debug: bool,
    as_json: bool,
    config: Config,
) -> None:
    """Run a service until SIGTERM, Ctrl-C or a shutdown command; without a name, list the services."""
    if single_message and (workers or restart):
        raise click.UsageError("--single-message runs one instance once: without --workers and --restart")
    if wait is not None and not single_message:
        raise click.UsageError("--wait is how long to wait for the message of --single-message")
    if name is None:
        _list_services(as_json)
        return
    _log_to_terminal(config, debug)
    if workers or restart:
        _supervise(name, workers or 1, queue, tag, config)
    elif single_message:
        click.get_current_context().exit(_run_once(name, queue, tag, config, _WAIT if wait is None else wait))
    else:
        _run(name, queue, tag, config)


def _list_services(as_json: bool) -> None:
    from parvis.service.contract import Contract
    from parvis.service.registry import BrokenService, find_services, load_service

    rows: list[dict[str, Any]] = []
    for name in find_services():
        try:
            loaded = load_service(name)
            queue, about = Contract.of(loaded).queue, _first_line(loaded.__doc__)
        except BrokenService as error:
            queue, about = "-", str(error)
        rows.append({"service": name, "queue": queue, "about": about, "foreign": False})
    rows += _foreign_services()
    if as_json:
        print_json(rows)
        return
    width = max((len(row["service"]) for row in rows), default=0)
    queues = max((len(row["queue"]) for row in rows), default=0)
    for row in rows:
        mark = "(workflows) " if row["foreign"] else ""
        click.echo(f"{row['service']:<{width}}  {row['queue']:<{queues}}  {mark}{row['about']}".rstrip())
    click.echo("\nparvis service -s NAME runs one.", err=True)


def _foreign_services() -> list[dict[str, Any]]:
    from parvis.compat.foreign import find_foreign, load_foreign
    from parvis.service.registry import BrokenService

    rows: list[dict[str, Any]] = []
    for name in find_foreign():
        try:
            about = _first_line(load_foreign(name).__doc__)
        except BrokenService as error:
            about = str(error)
        rows.append({"service": name, "queue": "-", "about": about, "foreign": True})
    return rows


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _log_to_terminal(config: Config, debug: bool) -> None:
    from dataclasses import replace

    from parvis.observe.logs import set_up_logging

    set_up_logging(replace(config, verbosity=max(config.verbosity, 2)) if debug else config)


def _run(name: str, queue: str | None, tag: str | None, config: Config) -> None:
    host = _host(name, queue, tag, config)
    with _connecting(host, config):
        host.run()


def _run_once(name: str, queue: str | None, tag: str | None, config: Config, wait: float) -> int:
    """Handle a single message; return the exit code."""
    from parvis.service.registry import is_foreign

    if is_foreign(name):
        raise click.UsageError("--single-message: a service written for workflows takes messages itself")
    host = _host(name, queue, tag, config)
    with _connecting(host, config):
        outcome = host.run_one(wait)
    if outcome is None:
        until = "before it was told to stop" if host.is_stopping else f"within {wait:g} s"
        click.echo(f"No message was handled {until}.", err=True)
    elif outcome.result != "done":
        click.echo(f"The message was not done ({outcome.result}): {outcome.reason}", err=True)
    return 0 if outcome is not None and outcome.result in ("done", "duplicate") else 1


@contextmanager
def _connecting(host: Host, config: Config) -> Generator[None]:
    """While a host runs: signals end it, and an error says what might be missing."""
    import logging

    from parvis.service.host import stop_on_signals
    from parvis.transport.base import NoConnection

    stop_on_signals(host)
    logging.getLogger("parvis.host").info("connecting to the broker at %s", config.broker_hosts)
    try:
        yield
    except NoConnection as error:
        if config.path is None and not config.overrides:
            raise NoConnection(
                f"{error} (no configuration: set ZOCALO_CONFIG or PARVIS_STOMP_HOST)"
            ) from None
        raise


def _host(name: str, queue: str | None, tag: str | None, config: Config) -> Host:
    from parvis.service.host import Host
    from parvis.service.registry import is_foreign, load_service

    if not is_foreign(name):
        return Host(config.transport(), [load_service(name)(config)], queue=queue, tag=tag)
    from parvis.compat.foreign import load_foreign
    from parvis.compat.hosting import ForeignHost

    if queue:
        raise click.UsageError("-q: a service written for workflows names its queues itself")
    return ForeignHost(config.transport(), load_foreign(name), config, tag=tag)


def _supervise(name: str, workers: int, queue: str | None, tag: str | None, config: Config) -> None:
    from parvis.cli.up import service_command
    from parvis.service.registry import resolve_name
    from parvis.service.supervisor import Supervisor, stop_supervisor_on_signals

    full_name = resolve_name(name)
    command = service_command(full_name)
    command += ["-q", queue] if queue else []
    command += ["--tag", tag] if tag else []
    supervisor = Supervisor([(full_name, command)] * workers, config.to_environment())
    stop_supervisor_on_signals(supervisor)
    supervisor.run()
