"""`parvis store digest`: analyses a stored series here: what `submit` must give, from one machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import click

from parvis.cli.options import json_option
from parvis.cli.printing import print_json
from parvis_services.stores.arguments import SeriesType, plural, with_storage
from parvis_services.stores.progress import progress_bar
from parvis_services.xray.options import algorithm_option, d_min_option

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from parvis_services.stores.url import ObjectUrl
    from parvis_services.xray.parameters import AnalysisParameters
    from parvis_services.xray.stored_frames import FetchedFrame, StoredFrames

_AHEAD: Final = 4  # images that are fetched while one is analysed
_PROTOTYPE_SIZES: Final = (2, 100)  # pixels of a spot


@click.command(
    no_args_is_help=True,
    epilog="""\b
Examples:
  parvis store digest s3://ceph/i04/993677/1
  parvis store digest s3://ceph/i04/993677/1 --d-min 2 --json
  parvis store digest s3://ceph/3474639 --prototype
""",
)
@click.argument("series", metavar="URL", type=SeriesType())
@algorithm_option
@d_min_option
@click.option(
    "--prototype",
    is_flag=True,
    help="Count spots as the first tools for Zocalo did: of 2 to 100 pixels, whatever their resolution.",
)
@json_option
@with_storage
def digest(
    series: ObjectUrl,
    algorithm: Any,
    d_min: float | None,
    prototype: bool,
    as_json: bool,
    storage: Mapping[str, Any],
) -> None:
    """Analyse all images of a stored series on this machine, without a broker.

    The reference for what the services give: the same numbers, image by image. With --prototype, geometry and
    mask of the series do not matter.

    Exit code: 0 all images were analysed, 1 not all, 2 wrong usage.
    """
    from contextlib import closing

    from parvis_services.xray.parameters import AnalysisParameters
    from parvis_services.xray.stored_frames import StoredFrames

    try:
        parameters = AnalysisParameters(algorithm=algorithm, d_min=d_min)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    failures = done = spots = 0
    with closing(StoredFrames(storage)) as frames, progress_bar("images analysed") as moved:
        addresses = frames.frames(str(series))
        for address, frame in _fetched(frames, addresses):
            try:
                result = _counted(frame.result()) if prototype else _analysed(frame.result(), parameters)
            except Exception as error:  # noqa: BLE001 - raised again unless it is of this image alone
                _tell_or_raise(error)
                failures += 1
                continue
            done, spots = done + 1, spots + result["n_spots_total"]
            _print(address, result, as_json)
            moved(done, len(addresses))
    if not as_json:
        click.echo(f"{plural(done, 'image')}, {plural(spots, 'spot')}", err=True)
    if failures:
        sys.exit(1)


def _fetched(frames: StoredFrames, addresses: list[str]) -> Iterator[tuple[str, Future[FetchedFrame]]]:
    """Fetch frames ahead of those who want them."""
    with ThreadPoolExecutor(_AHEAD) as pool:
        ahead: list[tuple[str, Future[FetchedFrame]]] = []
        for address in addresses:
            ahead.append((address, pool.submit(frames.fetch, address)))
            if len(ahead) > _AHEAD:
                yield ahead.pop(0)
        yield from ahead


def _analysed(frame: FetchedFrame, parameters: AnalysisParameters) -> dict[str, Any]:
    from parvis_services.xray.analysis import analyse_frame

    return analyse_frame(frame, parameters).as_dict()


def _counted(frame: FetchedFrame) -> dict[str, Any]:
    """Count spots without knowing where they are: counts are signed, and a negative one is a gap."""
    import numpy as np

    from parvis_services.xray import tiers
    from parvis_services.xray.parameters import DispersionParameters

    counts = _counts(frame)
    highest = np.iinfo(counts.dtype).max // 2
    strong = tiers.threshold("dispersion")(counts, None, (0.0, float(highest)), DispersionParameters())
    found = tiers.spots(strong, counts.reshape(-1)[strong], counts.shape)
    least, most = _PROTOTYPE_SIZES
    return {"n_spots_total": int(((found.n_pixels >= least) & (found.n_pixels <= most)).sum())}


def _counts(frame: FetchedFrame) -> NDArray[Any]:
    from parvis_services.xray.errors import BrokenImageError
    from parvis_services.xray.images import Buffers
    from parvis_services.xray.stored_image import decode

    how, header = frame.metadata, frame.decoder.header
    shape, dtype = (how.shape, how.dtype) if how else (header.shape, header.dtype)
    if shape is None or dtype is None:
        raise BrokenImageError(frame.url, "neither it nor the header of its series says its size and type")
    try:
        return decode(frame.data, how.encoding if how else "bslz4", shape, dtype, Buffers())
    except ValueError as error:
        raise BrokenImageError(frame.url, str(error)) from None


def _tell_or_raise(error: Exception) -> None:
    """Say what is wrong with one image; raise what is wrong with more."""
    from parvis_services.stores.store import DamagedObject, NoSuchObject
    from parvis_services.xray.errors import ImageError

    if not isinstance(error, ImageError | NoSuchObject | DamagedObject):
        raise error
    click.echo(f"Error: {error}", file=sys.stderr)


def _print(address: str, result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({"file": address, "file-number": _number(address), **result})
        return
    limit = result.get("estimated_d_min", -1)
    resolution = f"  {limit:5.2f} Å" if isinstance(limit, int | float) and limit > 0 else ""
    click.echo(f"image {_number(address):6}  {result['n_spots_total']:6} spots{resolution}")


def _number(address: str) -> int:
    return int(address.rpartition("/")[2])
