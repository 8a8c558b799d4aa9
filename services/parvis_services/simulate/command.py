"""`parvis simulate`: what a beamline has, for who has none at hand."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parvis.cli.moments import FiniteRange
from parvis.cli.options import json_option
from parvis_services.simulate.detectors import DETECTORS

if TYPE_CHECKING:
    from parvis_services.simulate.detector_stream import Exposure, Sent
    from parvis_services.simulate.stream_images import StreamImages

_NUMBER = click.IntRange(min=1)


@click.group()
def simulate() -> None:
    """Stand for what a beamline has: a detector that streams."""


@simulate.command(
    short_help="Stream images as a detector does.",
    epilog="""\b
Examples:
  parvis simulate detector --rate 20 --dcid 1
  parvis simulate detector frames/*.cbf.bz2 --rate 133 --repeat 10
  parvis simulate detector x_master.h5 --format v1 --header basic
  parvis simulate detector --twice 5 --skip 8 --no-end --garbage
""",
)
@click.argument(
    "files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option(
    "--bind",
    metavar="ADDRESS",
    default="tcp://127.0.0.1:9999",
    show_default=True,
    help="Where the receiver connects to; `tcp://*:9999` for all networks.",
)
@click.option(
    "--format",
    "version",
    type=click.Choice(["v1", "v2"]),
    default="v2",
    show_default=True,
    help="Stream V1, which SIMPLON calls legacy, or V2, which it calls cbor.",
)
@click.option(
    "--rate", type=FiniteRange(min=0, min_open=True), metavar="N", help="Images a second.  [default: 10]"
)
@click.option("--fast", is_flag=True, help="As fast as the receiver takes them.")
@click.option(
    "--jitter", type=FiniteRange(0, 1), default=0.0, metavar="F", help="Fraction by which intervals vary."
)
@click.option(
    "--repeat", type=_NUMBER, default=1, metavar="N", help="Send all images N times, as one series."
)
@click.option(
    "--header",
    "detail",
    type=click.Choice(["all", "basic", "none"]),
    default="all",
    show_default=True,
    help="How much the start says; all has the pixel mask.",
)
@click.option("--series", type=_NUMBER, default=1, metavar="N", help="Number of the series.  [default: 1]")
@click.option("--dcid", type=_NUMBER, metavar="N", help="Send along the number of the data collection.")
@click.option("--appendix", metavar="TEXT", help="Send along this text instead.")
@click.option(
    "--columns", type=click.IntRange(1, 1000), default=14, help="Of a synthetic scan.  [default: 14]"
)
@click.option("--rows", type=click.IntRange(1, 1000), default=10, help="Of a synthetic scan.  [default: 10]")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Another number makes another crystal.")
@click.option(
    "--detector",
    "detector_name",
    type=click.Choice(list(DETECTORS)),
    metavar="NAME",
    default="eiger-1m",
    show_default=True,
    help="Of a synthetic scan.",
)
@click.option(
    "--twice", type=_NUMBER, multiple=True, metavar="N", help="Send image N twice. May be repeated."
)
@click.option("--skip", type=_NUMBER, multiple=True, metavar="N", help="Leave image N out. May be repeated.")
@click.option("--no-end", is_flag=True, help="Do not say that the series is over.")
@click.option("--garbage", is_flag=True, help="Put messages that are none between the images.")
@click.option(
    "--wait",
    "patience",
    type=FiniteRange(min=0, min_open=True),
    default=60.0,
    metavar="SECONDS",
    help="How long to wait for a receiver.  [default: 60]",
)
@json_option
def detector(
    files: tuple[Path, ...],
    bind: str,
    rate: float | None,
    fast: bool,
    patience: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Stream the images of FILE, or those of a synthetic grid scan, as a detector.

    FILE: CBF images, also compressed, or one HDF5 master file (NXmx, EIGER), whose images are sent as they
    are packed there. All are read, and what is not packed is, before the first is sent. One receiver is
    waited for. Images are numbered from 1 here. Ctrl-C ends the series as the abort of a detector does.

    Exit code: 0 all was sent, 1 not all, 2 wrong usage.
    """
    if fast and rate is not None:
        raise click.UsageError("--fast and --rate contradict each other.")
    if options["dcid"] is not None and options["appendix"] is not None:
        raise click.UsageError("--dcid and --appendix are two ways to say what is sent along: give one.")
    from parvis_services.simulate.detector_stream import CannotSend, DetectorStream
    from parvis_services.stream.image_files import NoSeries
    from parvis_services.xray.errors import ImageError

    exposure = _exposure(None if fast else rate or 10.0, options)
    say = _quiet if as_json else _say
    try:
        images = _prepare(files, options, say)
        stream = DetectorStream(bind, patience)
        sent = _send(stream, images, exposure, say)
    except (CannotSend, ImageError, NoSeries, OSError) as error:
        raise click.ClickException(str(error)) from None
    _report(sent, images, as_json)


def _exposure(rate: float | None, options: dict[str, Any]) -> Exposure:
    from parvis_services.simulate.collect import Pace
    from parvis_services.simulate.detector_stream import Exposure, Faults

    dcid, appendix = options["dcid"], options["appendix"]
    return Exposure(
        options["version"],
        options["detail"],
        Pace(rate, options["jitter"], options["seed"]),
        options["repeat"],
        options["series"],
        appendix if dcid is None else {"dcid": dcid},
        Faults(
            frozenset(options["twice"]), frozenset(options["skip"]), options["no_end"], options["garbage"]
        ),
    )


def _prepare(files: tuple[Path, ...], options: dict[str, Any], say: Callable[[str], None]) -> StreamImages:
    from parvis_services.simulate.stream_images import images_of_files, images_of_scan

    if files:
        say(f"Reading {files[0].name}{f' to {files[-1].name}' if len(files) > 1 else ''} ...")
        with _progress("images ready", None if len(files) == 1 else len(files), say) as prepared:
            return images_of_files(files, prepared)
    from parvis_services.simulate.collect import GridScan
    from parvis_services.xray.grid import Grid

    grid = Grid(options["columns"], options["rows"], snaked=True)
    say(f"Simulating a grid of {grid.steps_x} x {grid.steps_y} images ...")
    with _progress("images ready", grid.size, say) as prepared:
        return images_of_scan(
            GridScan(grid, DETECTORS[options["detector_name"]], seed=options["seed"]), prepared
        )


def _send(stream: Any, images: StreamImages, exposure: Exposure, say: Callable[[str], None]) -> Sent:
    number, complete = len(images.frames) * exposure.repeat, False
    try:
        say(f"{number} images are ready. Waiting for a receiver to connect to {stream.address} ...")
        stream.wait_for_receiver()
        with _progress("images sent", number, say) as seen:
            sent = stream.send(images, exposure, seen)
        complete = True
        return sent
    finally:
        stream.close(at_once=not complete)


def _report(sent: Sent, images: StreamImages, as_json: bool) -> None:
    if as_json:
        import orjson

        click.echo(orjson.dumps(sent.as_dict() | {"centre_box": images.centre}))
        return
    counts = {"sent twice": sent.twice, "left out": sent.skipped, "pieces of garbage": sent.garbage}
    faults = [f"{count} {what}" for what, count in counts.items() if count]
    megabytes = sent.bytes / 1e6 / max(sent.seconds, 1e-3)
    click.echo(
        f"Sent {sent.sent} images in {sent.seconds:.1f} s: {sent.rate:.1f} a second, {megabytes:.0f} MB/s."
        + (f" Faults: {', '.join(faults)}." if faults else "")
    )
    if not sent.ended:
        click.echo("The end of the series was not told.")
    if not sent.kept:
        click.echo(
            f"Slower than {sent.rate_wanted:g} a second: images were up to {sent.late_seconds:.2f} s late; "
            f"for {sent.blocked_seconds:.2f} s the receiver took none.",
            err=True,
        )
    if images.centre is not None:
        x, y = images.centre
        click.echo(f"The crystal's centre is at box ({x:.2f}, {y:.2f}).")


def _say(text: str) -> None:
    click.echo(text, err=True)


def _quiet(_text: str) -> None:
    """Say nothing: a program listens."""


@contextlib.contextmanager
def _progress(what: str, total: int | None, say: Callable[[str], None]) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal, and what moves it."""
    if say is _quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda number: bar.update(task, completed=number)
