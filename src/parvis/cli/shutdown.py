"""`parvis shutdown`: stop instances of services, ours and others that listen to the same command."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from parvis.cli.completion import complete_services
from parvis.cli.moments import FiniteRange
from parvis.cli.options import BROKER_PATIENCE, json_option, with_config
from parvis.cli.printing import print_json
from parvis.config import Config

if TYPE_CHECKING:
    from parvis.service.leaving import Target

_EXPLANATION: Final = """Need to specify one or more services to shut down.
Either specify service groups with -s or specify specific instances
as: hostname.pid"""


@click.command(
    epilog="""\b
Examples:
  parvis shutdown cs05r-sc-serv-01.4711      one, as `parvis monitor` shows it
  parvis shutdown -s PerImageAnalysis        all instances of a service
  parvis shutdown -s none                    front ends without a service
  parvis shutdown -s Dispatcher --wait 60    see them go; 1 if one stays
"""
)
@click.argument("hosts", nargs=-1, metavar="[HOST.PID]...")
@click.option(
    "-s",
    "--service",
    "services",
    metavar="SERVICE",
    multiple=True,
    shell_complete=complete_services,
    help="Stop all instances of a service, named by its class; 'none' for front ends without one. "
    "May be repeated.",
)
@click.option(
    "--wait",
    "seconds",
    metavar="SECONDS",
    type=FiniteRange(7, 86_400),
    help="Wait for them to go, this long at most; exit code 1 if one stays. "
    "From 7, as everybody who is there says so every six seconds.",
)
@json_option
@with_config()
def shutdown(
    hosts: tuple[str, ...], services: tuple[str, ...], seconds: float | None, as_json: bool, config: Config
) -> None:
    """Stop services: they finish the message in hand, and what waits stays in its queue."""
    from parvis.service.leaving import Target, watch_leave

    if not hosts and not services:
        click.echo(_EXPLANATION, err=True)
        sys.exit(2)
    _check_names((*hosts, *services))
    targets = [Target(host=whole_host(host)) for host in hosts]
    targets += [Target(service_class=class_name(service)) for service in services]
    transport = config.transport()
    transport.connect(BROKER_PATIENCE)
    try:
        leaving = watch_leave(transport, targets) if seconds is not None else None
        for target in targets:
            transport.send(target.command)
            if not as_json:
                click.echo(_line(target))
        if leaving is not None and seconds is not None:
            leaving.wait(time.monotonic() + seconds)
    finally:
        transport.disconnect()
    staying = leaving.staying() if leaving is not None else []
    if as_json:
        _print_json(targets, leaving.gone() if leaving is not None else None, staying)
    elif leaving is not None:
        for host in leaving.gone():
            click.echo(f"{host} is gone")
        for host in staying:
            click.echo(f"{host} is still there", err=True)
        for host in leaving.unheard():
            click.echo(f"{host} was not there")
        if services and not (leaving.gone() or staying):
            click.echo("No instance of such a service was there")
    if staying:
        sys.exit(1)


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if not name.strip() or not name.isprintable():
            raise click.UsageError(f"{name[:80]!r} names neither an instance nor a service.")


def whole_host(name: str) -> str:
    """Return the name by which a process listens: `hostname.pid` means one in the domain of this machine."""
    if name.count(".") != 1:
        return name
    domain = socket.gethostname().split(".")[1:]
    return ".".join([*reversed(domain), name])


def class_name(service: str) -> str | None:
    """Return the class of a service by its name in any case; None for front ends without a service.

    What is not known here may be a service elsewhere, and stays as it is.
    """
    from parvis.service.registry import find_services

    if service.casefold() == "none":
        return None
    known = {name.casefold(): point.value.rpartition(":")[2] for name, point in find_services().items()}
    return known.get(service.casefold(), service)


def _line(target: Target) -> str:
    if target.host is not None:
        return f"Shutting down {target.host}"
    return f"Stopping all instances of {target.service_class}"


def _print_json(targets: Sequence[Target], gone: Sequence[str] | None, staying: Sequence[str]) -> None:

    content: dict[str, object] = {
        "hosts": [target.host for target in targets if target.host is not None],
        "services": [target.service_class for target in targets if target.host is None],
    }
    if gone is not None:
        content |= {"gone": list(gone), "staying": list(staying)}
    print_json(content)
