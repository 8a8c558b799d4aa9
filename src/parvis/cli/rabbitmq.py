"""`parvis rabbitmq`: set a RabbitMQ up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from parvis.cli.options import json_option, with_config
from parvis.cli.printing import print_json
from parvis.config import Config, PikaSettings

if TYPE_CHECKING:
    from parvis.transport.amqp_layout import Resource
    from parvis.transport.amqp_management import Change, Management

_SIGNS = {"create": "+", "update": "~", "replace": "±", "delete": "-", "differs": "!"}


@click.group()
def rabbitmq() -> None:
    """Set a RabbitMQ up: queues, dead letters, exchanges, users."""


@rabbitmq.command(
    epilog="""\b
Examples:
  parvis rabbitmq configure --dry-run           what our services need
  parvis rabbitmq configure --queue results     that, and one more queue
  parvis rabbitmq configure site-rabbitmq.yml   what a file says
"""
)
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False), metavar="[FILE]")
@click.option(
    "--user-config",
    "user_directory",
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Directory of *.ini files with a section [rabbitmq]: username, password, tags.",
)
@click.option("--queue", "queues", metavar="NAME", multiple=True, help="One more queue. May be repeated.")
@click.option(
    "--priority-queue",
    "priority_queues",
    metavar="NAME",
    multiple=True,
    help="A queue that delivers by priority, kept on one node only. May be repeated.",
)
@click.option("--vhost", metavar="NAME", help="Virtual host of what the services need.")
@click.option("--api", "url", metavar="URL", help="Where the management interface is, if not configured.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
@click.option(
    "--delete",
    is_flag=True,
    help="Delete what is in the way and, with a FILE, what it does not name; only queues that are empty.",
)
@json_option
@with_config()
def configure(
    file: Path | None,
    user_directory: Path | None,
    queues: tuple[str, ...],
    priority_queues: tuple[str, ...],
    vhost: str | None,
    url: str | None,
    dry_run: bool,
    delete: bool,
    as_json: bool,
    config: Config,
) -> None:
    """Make what a FILE for `zocalo.configure_rabbitmq` says, or what the installed services need.

    That is for each service a quorum queue with a delivery limit and a queue dlq.NAME for its dead letters,
    queues for delays, and the exchanges of broadcasts. What is there already stays as it is.
    """
    from parvis.transport.amqp_layout import read_layout, read_users
    from parvis.transport.amqp_management import configured, plan

    if file and (queues or priority_queues or vhost):
        raise click.UsageError(
            "--queue, --priority-queue and --vhost are for what services need, not a FILE."
        )
    wanted = read_layout(file) if file else _for_services(config, queues, priority_queues, vhost)
    if user_directory:
        wanted += read_users(user_directory)
    broker = configured(config, url)
    broker.connect()
    changes = plan(broker, wanted, delete=delete, prune=delete and file is not None)
    failed = _carry_out(broker, changes, dry_run=dry_run, as_json=as_json)
    if not as_json:
        _sum_up(wanted, changes, dry_run)
    if failed:
        raise click.ClickException(f"{failed} of {len(wanted)} could not be made as wanted.")


def _for_services(
    config: Config, queues: tuple[str, ...], priority_queues: tuple[str, ...], vhost: str | None
) -> list[Resource]:
    from parvis.observe import hops
    from parvis.service.registry import BrokenService, find_services, load_service
    from parvis.transport.amqp_layout import for_services
    from parvis.transport.base import check_destination

    try:
        names = {check_destination(name): False for name in queues}
        by_priority = [check_destination(name) for name in priority_queues]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    for service in find_services():
        try:
            loaded = load_service(service)
        except BrokenService as error:
            click.echo(f"Warning: {error}", err=True)
        else:
            names[loaded.queue] = loaded.exclusive
    here = vhost or (config.pika or PikaSettings()).vhost
    return for_services(here, names, by_priority, [hops.QUEUE] if hops.reports_hops(config) else [])


def _carry_out(broker: Management, changes: list[Change], *, dry_run: bool, as_json: bool) -> int:
    """Do and print what is to be done; return how much of it could not be."""
    from parvis.transport.base import BrokerRefused

    rows: list[dict[str, str]] = []
    failed = 0
    for change in changes:
        problem = change.detail if change.action == "differs" else ""
        if not dry_run and not problem:
            try:
                broker.apply(change)
            except BrokerRefused as error:
                problem = str(error)
        failed += bool(problem)
        one = change.resource
        row = {"action": change.action, "kind": one.kind, "vhost": one.vhost, "name": one.name}
        rows.append(row | {"detail": change.detail, "problem": problem})
        if not as_json:
            text = f": {problem or change.detail}" if problem or change.detail else ""
            where = f" in {one.vhost}" if one.vhost else ""
            sign = "!" if problem else _SIGNS[change.action]
            click.echo(f"{sign} {one.kind} {one.name}{where}{text}")
    if as_json:
        print_json(rows)
    return failed


def _sum_up(wanted: list[Resource], changes: list[Change], dry_run: bool) -> None:
    if not changes:
        click.echo(f"Nothing to do: all {len(wanted)} are there.")
    elif dry_run:
        click.echo(f"{len(changes)} changes; nothing was done.")
