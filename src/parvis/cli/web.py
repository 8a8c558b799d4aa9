"""`parvis web`: the web page."""

from __future__ import annotations

from json import dumps
from pathlib import Path

import click

from parvis.cli.options import json_option, with_config
from parvis.config import Config

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(
    invoke_without_command=True,
    epilog="""\b
Examples:
  parvis web                              at http://127.0.0.1:8080/
  parvis web --host 0.0.0.0 --certificate page.crt --key page.key
  parvis web --proxy 127.0.0.1 --name status.example.org
  parvis web password                     makes the hash for parvis.web.users
""",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 for any free one."
)
@click.option(
    "--name",
    "names",
    metavar="NAME",
    multiple=True,
    help="What browsers call this server, if not by its own name. May be repeated.",
)
@click.option("--certificate", type=_FILE, help="PEM file with the certificate, for HTTPS.")
@click.option("--key", type=_FILE, help="PEM file with its key.")
@click.option(
    "--proxy",
    metavar="ADDRESS",
    help="Believe the proxy at this address who asks; browsers reach it by HTTPS.",
)
@json_option
@with_config(logs=True)
@click.pass_context
def web(
    ctx: click.Context,
    config: Config,
    host: str,
    port: int,
    names: tuple[str, ...],
    certificate: Path | None,
    key: Path | None,
    proxy: str | None,
    as_json: bool,
) -> None:
    """Show services, queues, recipes, grid scans, dead letters and logs to browsers.

    Everybody who reaches the page may look. Stopping services, and putting dead letters back or removing
    them, is for users that the configuration names (parvis.web.users).
    """
    if ctx.invoked_subcommand is not None:
        return
    if (certificate is None) != (key is None):
        raise click.UsageError("--certificate and --key go together.")
    from parvis.observe.logs import set_up_logging
    from parvis.web.server import CannotListen, ServerSettings, serve

    set_up_logging(config)
    try:
        serve(
            config,
            ServerSettings(host, port, names, certificate, key, proxy),
            lambda address: click.echo(
                dumps({"address": address}) if as_json else f"The page is at {address}"
            ),
        )
    except CannotListen as error:
        raise click.ClickException(str(error)) from None


@web.command(
    epilog="""\b
Example, in a storage plugin of the configuration file:
  parvis.web.users:
    ada: $argon2id$v=19$m=65536,t=3,p=4$...
"""
)
def password() -> None:
    """Ask for a password and print its hash, for parvis.web.users of the configuration."""
    from parvis.web.users import LONGEST_PASSWORD, hash_password

    given = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    if not 8 <= len(given) <= LONGEST_PASSWORD:
        raise click.UsageError(f"A password has 8 to {LONGEST_PASSWORD} characters.")
    click.echo(hash_password(given))
