"""`parvis health`: is everything well that services need?"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from parvis.cli.moments import FiniteRange
from parvis.cli.options import json_option, with_config
from parvis.cli.printing import print_json
from parvis.config import Config
from parvis.observe.wording import moment_text

if TYPE_CHECKING:
    from parvis.observe.health import Check, CheckResult
    from parvis.observe.health_history import Cleared, Remembered

_COLOURS: Final = {"error": "red", "warning": "yellow", "skipped": None, "ok": "green"}
_RECENT: Final = 86_400.0  # seconds for which it is said that something became well
_HISTORY_PATIENCE: Final = 10.0


@click.command(
    epilog="""\b
Examples:
  parvis health                      all checks, the worst first
  parvis health --check broker -v    one, with details
  parvis health -q || mail ...       say only what is not well
  parvis health -o health.xml        for what reads JUnit
  parvis health --list               which checks there are
"""
)
@click.option("--check", "names", metavar="NAME", multiple=True, help="Only this check. May be repeated.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write the results into this file as well, in the form of JUnit.",
)
@click.option(
    "--timeout",
    type=FiniteRange(0.1, 3600),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Count a check that takes longer as an error.",
)
@click.option("--dry-run", is_flag=True, help="Do not remember what was found.")
@click.option("--list", "list_only", is_flag=True, help="List the checks, and end.")
@click.option("-v", "--verbose", is_flag=True, help="Show details.")
@click.option("-q", "--quiet", is_flag=True, help="Show only what is not well.")
@json_option
@with_config()
def health(
    names: tuple[str, ...],
    output: Path | None,
    timeout: float,
    dry_run: bool,
    list_only: bool,
    verbose: bool,
    quiet: bool,
    as_json: bool,
    config: Config,
) -> None:
    """Check the broker, queues, services, the database, the scheduler, stores and file systems.

    Exit code 1 if there is an error; a warning is none. What a site expects stands in its configuration, in
    keys that begin with parvis.health.
    """
    from parvis.observe.health import UnknownCheck, find_checks, run_checks, worst

    if verbose and quiet:
        raise click.UsageError("-v and -q cannot go together")
    if output is not None and not output.absolute().parent.is_dir():
        raise click.UsageError(f"-o: there is no directory {output.absolute().parent}")
    try:
        checks = find_checks(names)
    except UnknownCheck as error:
        raise click.UsageError(str(error)) from None
    if list_only:
        _list(checks, as_json)
        return
    begun = time.time()
    remembered = _remember(config, run_checks(checks, config, timeout), write=not dry_run)
    if output is not None:
        _write_junit(output, remembered.results, begun)
    if as_json:
        _print_json(remembered)
    else:
        _print(remembered, verbose=verbose, quiet=quiet)
    if worst(remembered.results) == "error":
        sys.exit(1)


def _list(checks: Sequence[Check], as_json: bool) -> None:
    if as_json:
        rows = [{"check": one.name, "about": one.about, "package": one.package} for one in checks]
        print_json(rows)
        return
    width = max(len(check.name) for check in checks)
    for check in checks:
        click.echo(f"{check.name:<{width}}  {check.about}")


def _remember(config: Config, results: list[CheckResult], *, write: bool) -> Remembered:
    from parvis.observe.health import within
    from parvis.observe.health_history import History, HistoryError, Remembered

    try:
        history = History.of(config)
        # The file may be on a mount that hangs.
        return within(_HISTORY_PATIENCE, lambda: history.take(results, write=write))
    except (HistoryError, TimeoutError) as error:
        click.echo(f"Since when something is not well is not known: {error}", err=True)
        return Remembered(results, [])


def _print(remembered: Remembered, *, verbose: bool, quiet: bool) -> None:
    results = [one for one in remembered.results if one.is_bad or not quiet]
    width = max((len(one.source) for one in results), default=0)
    for result in results:
        _print_result(result, min(width, 40), verbose=verbose)
    if quiet:
        return
    for cleared in remembered.cleared:
        if time.time() - cleared.at < _RECENT:
            _print_cleared(cleared)
    counts = {level: sum(one.finding.level == level for one in results) for level in _COLOURS}
    click.echo(", ".join(f"{number} {level}" for level, number in counts.items() if number))


def _print_result(result: CheckResult, width: int, *, verbose: bool) -> None:
    finding = result.finding
    level = click.style(f"{finding.level:<8}", fg=_COLOURS[finding.level], bold=finding.level == "error")
    took = f"  ({result.seconds:.2f} s)" if verbose else ""
    click.echo(f"{level} {result.source:<{width}}  {finding.message}{took}")
    indent = " " * 11
    if result.since is not None:
        click.echo(f"{indent}First seen at {moment_text(result.since)}")
    if finding.advice:
        click.echo(f"{indent}→ {finding.advice}")
    for line in finding.details if verbose else ():
        click.echo(f"{indent}{line}")


def _print_cleared(cleared: Cleared) -> None:
    from parvis.observe.harmless import harmless

    what = harmless(f"{cleared.check} {cleared.subject}".strip())
    message = harmless(cleared.message)
    click.echo(f"{'cleared':<8} {what}: {cleared.level} cleared at {moment_text(cleared.at)}: {message}")


def _print_json(remembered: Remembered) -> None:

    from parvis.observe.health import worst

    content = {
        "level": worst(remembered.results),
        "results": [one.to_json() for one in remembered.results],
        "cleared": [one.to_json() for one in remembered.cleared],
    }
    print_json(content)


def _write_junit(file: Path, results: Sequence[CheckResult], begun: float) -> None:
    from xml.etree import ElementTree

    levels = [one.finding.level for one in results]
    suite = ElementTree.Element(
        "testsuite",
        name="parvis health",
        tests=str(len(results)),
        failures=str(levels.count("error")),
        errors="0",
        skipped=str(levels.count("skipped")),
        timestamp=time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(begun)),
    )
    for one in results:
        finding = one.finding
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"parvis.health.{one.check}",
            name=one.source,
            time=f"{one.seconds:.3f}",
        )
        since = f"First seen at {moment_text(one.since)}" if one.since is not None else ""
        text = "\n".join(filter(None, [finding.message, since, finding.advice, *finding.details]))
        if finding.level == "error":
            ElementTree.SubElement(case, "failure", message=finding.message).text = text
        elif finding.level == "skipped":
            ElementTree.SubElement(case, "skipped", message=finding.message)
        else:
            ElementTree.SubElement(case, "system-out").text = f"{finding.level}: {text}"
    tree = ElementTree.ElementTree(suite)
    ElementTree.indent(tree)
    new = file.with_name(f".{file.name}.part")
    tree.write(new, encoding="utf-8", xml_declaration=True)
    new.replace(file)
