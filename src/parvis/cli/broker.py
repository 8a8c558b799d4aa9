"""`parvis broker`: run the embedded broker."""

from __future__ import annotations

from pathlib import Path

import click

_MEBIBYTE = 1024 * 1024


@click.command(
    epilog="""\b
Examples:
  parvis broker                                  at 127.0.0.1:61613, in memory
  parvis broker --journal /var/lib/parvis/q.db   messages survive a restart
  PARVIS_BROKER_PASSCODE=... parvis broker --login parvis
"""
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=61613, show_default=True, help="0 for any free one."
)
@click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    help="SQLite file that keeps persistent messages, so that a restart loses none.",
)
@click.option("--login", metavar="NAME", help="Let only clients in that give this name and the passcode.")
@click.option(
    "--passcode",
    envvar="PARVIS_BROKER_PASSCODE",
    default="",
    help="The passcode; better given as PARVIS_BROKER_PASSCODE, which other users cannot see.",
)
@click.option("--allow-remote", is_flag=True, help="Let other machines reach the broker. It is made for one.")
@click.option(
    "--memory",
    type=click.IntRange(min=16),
    default=512,
    show_default=True,
    metavar="MB",
    help="Memory for messages, beyond which senders have to wait.",
)
def broker(
    host: str,
    port: int,
    journal: Path | None,
    login: str | None,
    passcode: str,
    allow_remote: bool,
    memory: int,
) -> None:
    """Run a message broker for this one machine: for demonstrations, tests and a single workstation.

    It speaks STOMP 1.0 to 1.2, as ActiveMQ does. For more than one machine run ActiveMQ.
    """
    from parvis.config import Config
    from parvis.observe.logs import set_up_logging
    from parvis.transport.embedded import Settings
    from parvis.transport.embedded.serve import serve

    if login is None and passcode:
        raise click.UsageError("A passcode needs a --login to go with it.")
    if login is not None and not passcode:
        raise click.UsageError("--login needs a passcode to go with it: set PARVIS_BROKER_PASSCODE.")
    set_up_logging(Config())
    settings = Settings(
        host=host,
        port=port,
        journal=journal,
        login=login,
        passcode=passcode,
        allow_remote=allow_remote,
        memory_limit=memory * _MEBIBYTE,
    )
    serve(settings, lambda port: click.echo(f"Listening at {host}:{port}. This broker is for one machine."))
