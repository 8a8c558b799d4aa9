"""The group of all commands: loads a command when it is called, and turns what goes wrong into one line."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

INTERRUPTED = 130

# What the extras of the distribution bring.
_EXTRAS = {
    **dict.fromkeys(("numpy", "numba", "h5py", "hdf5plugin"), "xray"),
    **dict.fromkeys(("sqlalchemy", "ispyb", "pymysql"), "ispyb"),
    **dict.fromkeys(("cbor2", "zmq"), "daq"),
    "PIL": "demo",
    "minio": "s3",
    "pika": "rabbitmq",
    **dict.fromkeys(("argon2", "cryptography", "jinja2", "litestar", "uvicorn"), "web"),
    "textual": "monitor",
    **dict.fromkeys(("workflows", "zocalo"), "zocalo"),
}


class CommandTable(click.Group):
    """A group whose commands are imported when they are needed.

    Its own commands stand in a table: name, `module:attribute`, one line of help. Others are found in the
    entry point group `contributed`.
    """

    def __init__(
        self, *args: Any, table: Mapping[str, tuple[str, str]], contributed: str, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._table = table
        self._contributed = contributed

    def list_commands(self, ctx: click.Context) -> list[str]:
        own = [*self._table, *super().list_commands(ctx)]
        return own + sorted(entry.name for entry in self._entry_points() if entry.name not in own)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._table:
            module, _, attribute = self._table[cmd_name][0].partition(":")
            return getattr(import_module(module), attribute)
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        return next((entry.load() for entry in self._entry_points(cmd_name)), None)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            close = get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"There is no command {args[0][:40]!r}.{hint}")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._one_line(ctx, name)) for name in self.list_commands(ctx)])

    def _one_line(self, ctx: click.Context, name: str) -> str:
        if name in self._table:
            return self._table[name][1]
        try:
            command = self.get_command(ctx, name)
        except Exception as error:  # noqa: BLE001 - somebody else's command must not cost the help of ours
            return f"(cannot be loaded: {type(error).__name__}: {error})"
        return command.get_short_help_str(limit=90) if command else ""

    def _entry_points(self, name: str | None = None) -> Sequence[EntryPoint]:
        from importlib.metadata import entry_points

        found = entry_points(group=self._contributed)
        return [entry for entry in found if name in (None, entry.name)]

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and end the process: 0 done, 1 failed, 2 called wrongly, 130 interrupted."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        _have_streams()
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            click.echo("Interrupted.", err=True)
            sys.exit(INTERRUPTED)
        except Exception as error:
            if os.environ.get("PARVIS_DEBUG"):
                raise
            click.echo(f"{click.style('Error:', fg='red')} {_in_one_line(error)}", err=True)
            sys.exit(getattr(error, "exit_code", 1))
        sys.exit(code if isinstance(code, int) else 0)


def _have_streams() -> None:
    """Let who was started without a standard output or error write to nowhere, and any text be printed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - it lasts as long as we
    if isinstance(sys.stdout, io.TextIOWrapper):
        # For what the terminal's encoding has no sign.
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportUnknownMemberType]


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if type(error).__module__.partition(".")[0] in {"parvis", "parvis_services", "parvis_wrappers"} and text:
        return text
    if isinstance(error, ModuleNotFoundError) and (extra := _EXTRAS.get(str(error.name).partition(".")[0])):
        return f"{error.name} is not installed: pip install 'parvis[{extra}]'"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {text} (PARVIS_DEBUG=1 shows where)"
