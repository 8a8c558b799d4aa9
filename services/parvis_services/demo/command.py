"""`parvis demo`: a whole grid scan on one machine, from the detector to the centre of the crystal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parvis.cli.options import json_option

if TYPE_CHECKING:
    from parvis_services.demo.file_detector import Detector
    from parvis_services.demo.plan import Plan
    from parvis_services.demo.show import Findings
    from parvis_services.demo.stage import Cast


@click.command(
    epilog="""\b
Examples:
  parvis demo
  parvis demo --images 'frames/*.cbf.bz2'
  parvis demo --stream
  parvis demo --json | python3 -m json.tool
"""
)
@click.option("--images", metavar="'DIR/*.cbf*'", help="Collect these frames instead of simulated ones.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to put everything; must not exist. A new scratch directory by default.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Which crystal to simulate; any by default.")
@click.option(
    "--stream", is_flag=True, help="Let the detector stream, through an image store, without files."
)
@click.option(
    "--store", metavar="NAME", help="With --stream: a store of your configuration; else in the directory."
)
@click.argument("more", nargs=-1, metavar="")
@json_option
def demo(
    images: str | None,
    more: tuple[str, ...],
    directory: Path | None,
    seed: int | None,
    stream: bool,
    store: str | None,
    as_json: bool,
) -> None:
    """Watch a grid scan being analysed, from the detector to the centre of the crystal.

    Everything runs here: a message broker, an ISPyB database in a file, the services, a detector that writes
    frames one after another. No server is needed, nothing is downloaded, and all of it stops at the end.

    With --stream no frame goes through a file: the detector streams them, they are stored in an image store,
    and each is analysed as soon as it is there.
    """
    # A shell puts the names of the frames where a pattern without quotes was: the first goes to the option.
    if more and images is None:
        raise click.UsageError(f"Got an unexpected argument ({more[0]}): frames come after --images.")
    if store is not None and not stream:
        raise click.UsageError("--store is for --stream: otherwise images are in files.")
    try:
        from parvis_services.demo import ending
        from parvis_services.demo.performance import CannotPerform, perform
        from parvis_services.demo.plan import NoScan, existing_plan, simulated_plan
    except ImportError as error:
        raise click.ClickException(
            f"The demonstration needs more: pip install 'parvis[demo]' ({error})"
        ) from None
    seed = time.time_ns() % 100_000 if seed is None else seed
    try:
        plan = existing_plan([images, *more]) if images else simulated_plan(seed)
    except NoScan as error:
        raise click.ClickException(str(error)) from None
    _end_on_signals()
    place = _new_directory(directory)
    findings, detector, cast = _streaming(place, plan, store) if stream else _filing(plan)
    try:
        summary = perform(place, findings, detector, cast, quiet=as_json)
    except CannotPerform as error:
        raise click.ClickException(str(error)) from None
    finally:
        detector.stop()
    if as_json:
        ending.print_json(place, findings, summary)
    else:
        ending.print_end(place, findings, summary)
    if findings.failure or findings.found_centre is None:
        raise click.exceptions.Exit(1)


def _filing(plan: Plan) -> tuple[Findings, Detector, Cast]:
    """What is needed for a detector that writes files."""
    from parvis_services.demo.file_detector import FileDetector
    from parvis_services.demo.show import Findings
    from parvis_services.demo.stage import Cast

    return Findings(plan), FileDetector(plan), Cast()


def _streaming(place: Path, plan: Plan, store: str | None) -> tuple[Findings, Detector, Cast]:
    """What is needed for a detector that streams."""
    from parvis_services.demo.flow import Flow
    from parvis_services.demo.plan import streamed
    from parvis_services.demo.show import Findings
    from parvis_services.demo.stage import streaming_cast
    from parvis_services.demo.streaming import NoStore, StreamDetector, prepare_store

    detector = StreamDetector(plan)
    try:
        environment = prepare_store(place, detector.address, store)
    except NoStore as error:
        detector.stop()
        raise click.ClickException(str(error)) from None
    return Findings(streamed(plan), flow=Flow()), detector, streaming_cast(environment)


def _end_on_signals() -> None:
    """Have SIGTERM and SIGHUP stop everything, as Ctrl-C does, with the exit code that a shell would give."""
    import signal
    from types import FrameType

    def end(number: int, _frame: FrameType | None) -> None:
        for again in (signal.SIGTERM, signal.SIGHUP):  # once is enough: all is being stopped
            signal.signal(again, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        # A program that ignores it was told to, by nohup for one.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)


def _new_directory(directory: Path | None) -> Path:
    import tempfile

    if directory is None:
        return Path(tempfile.mkdtemp(prefix="parvis-demo-"))
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        raise click.ClickException(f"{directory} cannot be made: {error.strerror}") from None
    return directory.resolve()
