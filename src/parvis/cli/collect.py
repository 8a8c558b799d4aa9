"""`parvis collect`: take log records and hops, and keep them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from parvis.cli.options import records_option, with_config
from parvis.config import Config

if TYPE_CHECKING:
    from parvis.observe.gelf_inputs import GelfInputs

_TICK = 0.1
_PORT = click.IntRange(-1, 65535)


@click.command(
    epilog="""\b
Examples:
  parvis collect                         take GELF here, hops from the broker
  parvis collect --host 0.0.0.0          let other machines send log records
  parvis collect --tcp -1 --http -1      by UDP only
  parvis collect --records /var/lib/parvis/records
"""
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--udp",
    type=_PORT,
    default=12201,
    show_default=True,
    help="Port for UDP; 0 for any free one, -1 for none.",
)
@click.option("--tcp", type=_PORT, default=12201, show_default=True, help="Port for TCP.")
@click.option("--http", type=_PORT, default=12202, show_default=True, help="Port for HTTP, at /gelf.")
@records_option
@click.option("--no-hops", is_flag=True, help="Take log records only, without a broker.")
@with_config(logs=True)
def collect(host: str, udp: int, tcp: int, http: int, no_hops: bool, config: Config) -> None:
    """Take log records in GELF, and hops from the broker, for `parvis logs` and `parvis trace`.

    Run one for each broker and namespace. Ends with Ctrl-C or SIGTERM, when all that has come is written.
    """
    from parvis.observe.collector import Collector
    from parvis.observe.gelf_inputs import GelfInputs
    from parvis.observe.logs import set_up_logging
    from parvis.observe.records_place import open_writer

    set_up_logging(config)
    ending = _Ending()
    transport = None if no_hops else config.transport()
    ports = {"udp": udp, "tcp": tcp, "http": http}
    with Collector(lambda: open_writer(config), transport) as collector:
        try:
            inputs = GelfInputs(
                collector.intake, host, **{kind: port if port >= 0 else None for kind, port in ports.items()}
            )
        except OSError as error:
            raise click.ClickException(f"{error.strerror} (0 is any free port)") from None
        if "udp" in inputs.ports:
            collector.announce(f"{host}:{inputs.ports['udp']}")
        with inputs:
            _announce(inputs, host, collector.directory)
            ending.wait()
        lost = sum(inputs.account.dropped.values())
    click.echo(f"{collector.written} records and reports written{f', {lost} dropped' if lost else ''}.")


def _announce(inputs: GelfInputs, host: str, directory: Path) -> None:
    shown = f"[{host}]" if ":" in host else host
    places = {
        "udp": "GELF by UDP at {}:{}",
        "tcp": "GELF by TCP at {}:{}",
        "http": "GELF by HTTP at http://{}:{}/gelf",
    }
    for kind, port in inputs.ports.items():
        click.echo(f"Taking {places[kind].format(shown, port)}")
    click.echo(f"Keeping records in {directory}")


class _Ending:
    """SIGTERM and SIGINT ask for the end; the second of them ends the process at once."""

    def __init__(self) -> None:
        import signal

        # Nothing with a lock in it: the handler runs wherever this thread happens to be.
        self._is_asked_for = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def wait(self) -> None:
        """Return when the end is asked for."""
        import time

        while not self._is_asked_for:
            time.sleep(_TICK)

    def _ask(self, number: int, _frame: object) -> None:
        from parvis.service.supervisor import end_by_signal

        if self._is_asked_for:
            end_by_signal(number)
        self._is_asked_for = True
