"""Run the broker alone: `python -m parvis.transport.embedded --port 61613 --journal messages.db`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from parvis.transport.embedded import BrokerError, JournalError, Settings
from parvis.transport.embedded.serve import serve


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM. Returns the exit code: 0, or 1 where it could not go on."""
    parser = argparse.ArgumentParser(
        prog="python -m parvis.transport.embedded", description="A STOMP broker for one machine."
    )
    parser.add_argument("--port", type=int, default=61613, help="0 for any free port (default: %(default)s)")
    parser.add_argument("--journal", type=Path, help="SQLite file that keeps persistent messages")
    parser.add_argument(
        "--no-sync", action="store_true", help="do not wait for the disk: a power failure may cost messages"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        serve(Settings(port=options.port, journal=options.journal, sync=not options.no_sync), _announce)
    except (BrokerError, JournalError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _announce(port: int) -> None:
    print(f"Listening at 127.0.0.1:{port}, for this machine only", flush=True)


if __name__ == "__main__":
    sys.exit(main())
