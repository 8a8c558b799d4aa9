"""`parvis config`: is the configuration right, and what is in force."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from parvis.cli.options import Choice, json_option, with_choice
from parvis.cli.printing import print_json

if TYPE_CHECKING:
    from parvis.config.examine import Examination
    from parvis.observe.health import CheckResult

_COLOURS: Final = {"error": "red", "warning": "yellow", "note": None, "ok": "green", "skipped": None}
_CONNECTIONS: Final = ("broker", "database")
_LONGEST: Final = 1000


@click.group()
def config() -> None:
    """Look at the configuration: check it, or show what is in force."""


@config.command(
    epilog="""\b
Examples:
  parvis config check                the file that ZOCALO_CONFIG names
  parvis config check site.yml       this one
  parvis -e test config check --connect
                                     try broker and database of this one, too
"""
)
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--connect", is_flag=True, help="Connect to the broker and to the database as well.")
@json_option
@with_choice()
def check(file: Path | None, connect: bool, as_json: bool, choice: Choice) -> None:
    """Say all that is wrong with a configuration file; exit code 1 if something is."""
    from parvis.config import configured_path
    from parvis.config.examine import examine

    path = file or configured_path()
    path = path.expanduser().absolute() if path is not None else None
    found = examine(path, choice.environments, choice.overrides)
    connections = _connect(choice, path) if connect and not found.has_errors else []
    named_by = "" if path is None else "the command line" if file else "ZOCALO_CONFIG"
    if as_json:
        print_json(_as_json(found, named_by, connections))
    else:
        _print(found, named_by, connections)
        if connect and found.has_errors:
            click.echo("Nothing was connected to: mend the errors first.", err=True)
    if found.has_errors or any(one.finding.level == "error" for one in connections):
        sys.exit(1)


@config.command(
    epilog="""\b
Examples:
  parvis config show                 what is in force, and where it comes from
  parvis -e live config show --json
"""
)
@json_option
@with_choice()
def show(as_json: bool, choice: Choice) -> None:
    """Show what is in force, with *** for secrets, and which file, variable or option says so."""
    from parvis.config.shown import settings_in_force

    loaded = choice.load()
    settings = settings_in_force(loaded, choice.flags)
    if as_json:
        rows = [{"name": one.name, "value": one.value, "source": one.source} for one in settings]
        print_json(
            {
                "path": str(loaded.path) if loaded.path else None,
                "environments": list(loaded.environments),
                "settings": rows,
            }
        )
        return
    click.echo(f"File          {_shown(str(loaded.path)) if loaded.path else 'none: set ZOCALO_CONFIG'}")
    click.echo(f"Environments  {_shown(', '.join(loaded.environments)) or 'none'}\n")
    values = [_value(one.value) for one in settings]
    names = max(len(one.name) for one in settings)
    width = min(max(len(value) for value in values), 48)
    for one, value in zip(settings, values, strict=True):
        click.echo(f"{_shown(one.name):<{names}}  {value:<{width}}  {_shown(one.source)}")


def _connect(choice: Choice, path: Path | None) -> list[CheckResult]:
    from parvis.observe.health import find_checks, run_checks

    wanted = [check for check in find_checks() if check.name in _CONNECTIONS]
    return run_checks(wanted, choice.load(path))


def _print(found: Examination, named_by: str, connections: list[CheckResult]) -> None:
    if found.path is None:
        click.echo("There is no configuration file: ZOCALO_CONFIG names none. Defaults hold.")
    else:
        click.echo(f"File          {_shown(str(found.path))} (from {named_by})")
        for name, plugins in found.environments.items():
            mark = " (in force)" if name in found.in_force else ""
            click.echo(f"Environment   {_shown(name)}{mark}: {_shown(', '.join(plugins), _LONGEST)}")
    for one in found.plugins:
        beside = "" if one.file == found.path else f", in {one.file}"
        click.echo(f"Plugin        {_shown(f'{one.name}: {one.plugin}{beside}', _LONGEST)}")
    if found.storage:
        click.echo(f"Storage keys  {_shown(', '.join(found.storage), _LONGEST)}")
    for remark in found.remarks:
        where = f"{remark.where}: " if remark.where else ""
        click.echo(f"{_level(remark.level)} {_shown(where + remark.message, _LONGEST)}")
    if not found.remarks:
        click.echo(f"{_level('ok')} nothing is wrong")
    for one in connections:
        click.echo(f"{_level(one.finding.level)} {one.source}: {one.finding.message}")
        if one.finding.advice:
            click.echo(f"        → {one.finding.advice}")


def _level(level: str) -> str:
    return click.style(f"{level:<7}", fg=_COLOURS[level], bold=level == "error")


def _as_json(found: Examination, named_by: str, connections: list[CheckResult]) -> dict[str, Any]:
    return {
        "path": str(found.path) if found.path else None,
        "named_by": named_by or None,
        "environments": found.environments,
        "in_force": list(found.in_force),
        "plugins": [
            {"name": one.name, "plugin": one.plugin, "file": str(one.file), "in_force": one.in_force}
            for one in found.plugins
        ],
        "storage": found.storage,
        "remarks": [
            {"level": one.level, "where": one.where, "message": one.message} for one in found.remarks
        ],
        "connections": [one.to_json() for one in connections],
    }


def _value(value: Any) -> str:
    import orjson

    text = (
        value
        if isinstance(value, str)
        else orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    )
    return _shown(text, _LONGEST)


def _shown(text: str, limit: int = 300) -> str:
    from parvis.recipe.problem import printable

    return printable(text, limit)
