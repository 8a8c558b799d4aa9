"""`parvis analyse`: per-image analysis in the terminal, without a broker."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parvis.cli.environments import environments_option
from parvis.cli.group import INTERRUPTED
from parvis_services.xray.options import algorithm_option, d_min_option

if TYPE_CHECKING:
    from parvis_services.xray.parameters import AnalysisParameters
    from parvis_services.xray.statistics import ImageAnalysis
    from parvis_services.xray.stored_frames import StoredFrames


class _FrameRange(click.ParamType):
    """`A:B`, `A:`, `:B` or one number."""

    name = "frames"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> slice:
        if isinstance(value, slice):
            return value
        first, colon, end = str(value).partition(":")
        try:
            start = int(first) if first else 0
            stop = (int(end) if end else None) if colon else start + 1
        except ValueError:
            start, stop = -1, None
        if start < 0 or (stop is not None and stop <= start) or value == "":
            self.fail(f"{value!r} is not a range of frames such as 0:100, 100: or 7", param, ctx)
        return slice(start, stop)


@click.command(no_args_is_help=True)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@algorithm_option
@d_min_option
@click.option(
    "--d-max",
    type=float,
    metavar="Å",
    default=40.0,
    show_default=True,
    help="Leave out spots of lower resolution than this.",
)
@click.option(
    "--frames",
    type=_FrameRange(),
    metavar="A:B",
    help="Of HDF5 files and series: frames A to B-1, counted from 0; or one.  [default: all]",
)
@click.option(
    "--engine",
    type=click.Choice(["parvis", "dials"]),
    default="parvis",
    show_default=True,
    help="Who does it: Parvis, or DIALS where that is installed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, for programs.")
@environments_option
def analyse(
    files: tuple[str, ...],
    algorithm: Any,
    d_min: float | None,
    d_max: float,
    frames: slice | None,
    engine: Any,
    as_json: bool,
    environments: tuple[str, ...],
) -> None:
    """Find spots on images, and say how far they diffract.

    Takes CBF files, also ones compressed with gzip or bzip2, HDF5 master files (NXmx, EIGER), and addresses
    of images and series in a store of the configuration. What cannot be read is named on stderr, and the
    others are still done. Exit code: 0 all done, 1 not all, 2 wrong usage.

    \b
    Examples:
      parvis analyse thau_3_2_0003.cbf.bz2
      parvis analyse grid/*.cbf --algorithm dispersion_extended --d-min 2
      parvis analyse insulin_master.h5 --frames 0:100 --json
      parvis analyse s3://ceph/i04/993677/1/000012
      parvis analyse dir://ram/i04/993677/1 --frames :100
    """
    from parvis_services.xray.parameters import AnalysisParameters

    try:
        parameters = AnalysisParameters(algorithm=algorithm, d_min=d_min, d_max=d_max, engine=engine)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    failures: list[str] = []
    results = _results(_Sources(files, frames, environments), parameters, failures)
    if as_json:
        import orjson

        for file, frame, result in results:
            where = {"file": file} if frame is None else {"file": file, "frame": frame}
            click.echo(orjson.dumps({**where, **result.as_dict()}))
    else:
        done, interrupted = _collect(results)
        _print_table(done)
        if interrupted:
            click.echo("Interrupted: not all was done.", err=True)
            sys.exit(INTERRUPTED)
    if failures:
        sys.exit(1)


class _Sources:
    """Where the images are: files, and stores of the configuration, which is read when one is asked for."""

    def __init__(self, names: tuple[str, ...], frames: slice | None, environments: tuple[str, ...]) -> None:
        self.names = names
        self._frames = frames
        self._environments = environments

    def images(self, name: str) -> Iterator[tuple[str, int | None]]:
        """The images behind a name: what to call each, and which of a file it is.

        Raises: as `images.expected_frames` and `StoredFrames.frames`.
        """
        from parvis_services.stores.url import is_object_url

        if is_object_url(name):
            found = self.stored.frames(name)
            yield from ((url, None) for url in (found[self._frames] if self._frames else found))
        else:
            yield from ((name, number) for number in _frame_numbers(name, self._frames))

    @cached_property
    def stored(self) -> StoredFrames:
        """What is in stores."""
        from parvis.config import Config
        from parvis_services.xray.stored_frames import StoredFrames

        context = click.get_current_context()
        environments = (*context.meta.get("parvis.environments", ()), *self._environments)
        frames = StoredFrames(Config.load(environments=environments).storage)
        context.call_on_close(frames.close)
        return frames

    def analyse(self, name: str, frame: int | None, parameters: AnalysisParameters) -> ImageAnalysis:
        """Analyse an image. Raises as `analysis.analyse` and `StoredFrames.fetch`."""
        from parvis_services.stores.url import is_object_url
        from parvis_services.xray.analysis import analyse, analyse_frame

        if is_object_url(name):
            return analyse_frame(self.stored.fetch(name), parameters)
        return analyse(name, parameters, frame=frame)


def _results(
    sources: _Sources, parameters: AnalysisParameters, failures: list[str]
) -> Iterator[tuple[str, int | None, ImageAnalysis]]:
    """What each image gives; errors go to stderr and into `failures`."""
    from parvis_services.stores.profiles import StoreNotConfigured
    from parvis_services.stores.store import StoreError
    from parvis_services.stores.url import BadUrl
    from parvis_services.xray.errors import ImageError, UnfinishedImageError

    for name in sources.names:
        try:
            images = list(sources.images(name))
        except (ImageError, StoreError) as error:
            _report(str(error), failures)
            continue
        except (BadUrl, StoreNotConfigured) as error:
            raise click.UsageError(str(error)) from None
        for image, frame in images:
            try:
                yield image, frame, sources.analyse(image, frame, parameters)
            except (ImageError, StoreError) as error:
                _report(str(error), failures)
                if isinstance(error, UnfinishedImageError):
                    break
            except (RuntimeError, ValueError) as error:
                raise click.UsageError(str(error)) from None


def _frame_numbers(file: str, frames: slice | None) -> range | list[None]:
    from parvis_services.xray.images import expected_frames

    count = expected_frames(file)
    if count is None:
        return [None]
    # A frame that is not there is tried all the same: what comes of it says why.
    wanted = frames or slice(0, None)
    return range(count)[wanted] or range(wanted.start, wanted.start + 1)


def _report(message: str, failures: list[str]) -> None:
    failures.append(message)
    # Given as a file, as it is while the progress is shown, which the line would otherwise run into.
    click.echo(f"Error: {message}", file=sys.stderr)


def _collect(
    results: Iterator[tuple[str, int | None, ImageAnalysis]],
) -> tuple[list[tuple[str, int | None, ImageAnalysis]], bool]:
    """All results, or those until Ctrl-C and True; on a terminal, stderr shows how many there are."""
    from rich.console import Console

    done: list[tuple[str, int | None, ImageAnalysis]] = []
    with Console(stderr=True).status("Analysing ...") as status:
        try:
            for result in results:
                done.append(result)
                status.update(f"Analysing ... {len(done)} done")
        except KeyboardInterrupt:
            return done, True
    return done, False


def _print_table(results: list[tuple[str, int | None, ImageAnalysis]]) -> None:
    if not results:
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    files = {file for file, _, _ in results}
    short = len({Path(file).name for file in files}) == len(files)
    with_frames = any(frame is not None for _, frame, _ in results)
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="bold",
        caption="Resolution limits in Å by three methods; - where there are too few spots.",
        caption_justify="left",
    )
    table.add_column("image", overflow="fold")
    for name in (
        *(["frame"] if with_frames else []),
        *("spots", "no ice", ">4 Å", "intensity", "d_min", "distl 1", "distl 2"),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for file, frame, result in results:
        table.add_row(
            Text(click.format_filename(file, shorten=short)),
            *(["" if frame is None else str(frame)] if with_frames else []),
            str(result.n_spots_total),
            str(result.n_spots_no_ice),
            str(result.n_spots_4A),
            f"{result.total_intensity:.0f}",
            *(
                f"{d_min:.2f}" if d_min > 0 else "-"
                for d_min in (
                    result.estimated_d_min,
                    result.d_min_distl_method_1,
                    result.d_min_distl_method_2,
                )
            ),
        )
    Console().print(table)
