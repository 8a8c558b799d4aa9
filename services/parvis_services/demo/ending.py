"""What the demonstration leaves: its results, where they are, and what to try with them."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from parvis_services.demo.flow import Flow
from parvis_services.demo.show import Findings, centre_text, failure_lines, milliseconds, print_results
from parvis_services.demo.stage import CONFIGURATION, RECIPE, RECORDS, STORE, STREAM_RECIPE


def print_json(place: Path, findings: Findings, summary: dict[str, Any]) -> None:
    """Print everything as one JSON object."""
    content = {
        "success": findings.failure is None and findings.found_centre is not None,
        "reason": findings.failure,
        "recipe_id": findings.recipe_id,
        "centre": findings.centre,
        "true_centre_box": findings.plan.centre,
        "images": [findings.images[number] for number in sorted(findings.images)],
        "not_analysed": findings.missing,
        "dead_letters": [{"service": service, "reason": why} for service, why in findings.dead_letters],
        "files": _result_files(place),
        **_streamed(findings),
        **summary,
    }
    sys.stdout.buffer.write(orjson.dumps(content) + b"\n")


def print_end(place: Path, findings: Findings, summary: dict[str, Any]) -> None:
    """Print everything for people."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    print_results(console, findings)
    for line in failure_lines(findings):
        console.print(line, style="red")
    console.print(f"\n{centre_text(findings)}", style="bold")
    console.print(
        f"{len(findings.images)} images analysed, {summary['rows']} rows in ISPyB, {summary['datagrams']} "
        f"datagrams to GDA, {summary['seconds']} s in all."
    )
    if findings.flow is not None:
        console.print(_latency_text(findings.flow))
    console.print()
    files = _result_files(place)
    for name, path in files.items():
        console.print(f"  {name:<9} {path}")
    console.print("\nTry next:")
    for command in _commands(place, findings, files):
        console.print(f"  {command}")
    size = sum(file.lstat().st_size for file in place.rglob("*") if file.is_file()) / 1e6
    console.print(f"\nAll of it takes {size:.0f} MB. To remove it: {_removal(place, findings)}")


def _commands(place: Path, findings: Findings, files: dict[str, str]) -> list[str]:
    """What to type to see more."""
    program, records = _program(), shlex.quote(str(place / RECORDS))
    commands = [
        f"{program} find 1 --ispyb {shlex.quote('sqlite:///' + files['database'])}",
        f"{program} recipe draw {RECIPE if findings.flow is None else STREAM_RECIPE}",
        f"{program} logs --records {records} --time 1h",
    ]
    if findings.recipe_id:
        commands.append(f"{program} trace --records {records} {findings.recipe_id}")
    if findings.series is not None:
        configured = _configured_program(place)
        first = [f"{configured} store manifest {findings.series}"]
        if (best := _best_file(findings)) is not None:
            first.append(f"{configured} analyse {best}")
        return [*first, *commands]
    if (best := _best_file(findings)) is not None:
        commands.insert(0, f"{program} analyse {shlex.quote(best)}")
    return commands


def _removal(place: Path, findings: Findings) -> str:
    """What to type to remove all of it, from a store that is not in the directory, too."""
    command = f"rm -r {shlex.quote(str(place))}"
    if findings.series is not None and not (place / STORE).exists():
        command = f"{_configured_program(place)} store cleanup {findings.series}; {command}"
    return command


def _configured_program(place: Path) -> str:
    return f"ZOCALO_CONFIG={shlex.quote(str(place / CONFIGURATION))} {_program()}"


def _latency_text(flow: Flow) -> str:
    """Say how long images took."""
    whole, stored = flow.latency("frame_to_result"), flow.latency("frame_to_stored")
    if whole is None or stored is None:
        return "Nothing is known of how long images took."
    return (
        f"From the detector to the result: {milliseconds(whole['p50'])} for half of the images, "
        f"{milliseconds(whole['p99'])} for 99 of 100. Until they were stored: {milliseconds(stored['p50'])} "
        f"and {milliseconds(stored['p99'])}."
    )


def _streamed(findings: Findings) -> dict[str, Any]:
    if findings.flow is None:
        return {}
    flow = findings.flow
    return {"stream": {"series": findings.series, "counts": flow.counts, "latency_seconds": flow.latencies}}


def _result_files(place: Path) -> dict[str, str]:
    found = {
        "centre": next(place.rglob("Dials5AResults.json"), None),
        "images": next(place.rglob("results.jsonl"), None),
        "picture": place / "heatmap.png",
        "database": place / "ispyb.sqlite",
        "logs": place / "logs",
    }
    return {name: str(path) for name, path in found.items() if path is not None}


def _best_file(findings: Findings) -> str | None:
    """The image with the most spots."""
    images = sorted(findings.images.values(), key=lambda image: -image["n_spots_total"])
    return images[0]["file"] if images else None


def _program() -> str:
    """What to type to get this Parvis from here, which need not be on the PATH."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{_from_here(Path(sys.executable))} -m parvis"
    called = called.absolute()
    on_path = shutil.which(called.name)
    return called.name if on_path and Path(on_path).absolute() == called else _from_here(called)


def _from_here(path: Path) -> str:
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
