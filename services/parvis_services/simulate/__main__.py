"""Simulate a data collection from the command line: ``python -m parvis_services.simulate --help``."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

from parvis_services.simulate.detectors import DETECTORS

EXAMPLES = """
\b
Examples:
  python -m parvis_services.simulate grid /tmp/scan --columns 14 --rate 20
  python -m parvis_services.simulate grid /tmp/scan --format nexus
  python -m parvis_services.simulate copy real/*.cbf.bz2 /tmp/scan --jitter 1
"""


@click.group(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Write the files a detector would, one after another.

    `grid -h` and `copy -h` say more.
    """


@main.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--columns", type=click.IntRange(1, 1000), default=14, show_default=True, help="Boxes in a row."
)
@click.option(
    "--rows", type=click.IntRange(1, 1000), default=10, show_default=True, help="Boxes in a column."
)
@click.option("--snaked/--plain", default=True, show_default=True, help="Every second line runs backwards.")
@click.option("--vertical", is_flag=True, help="Column by column instead of row by row.")
@click.option(
    "--detector",
    "detector_name",
    type=click.Choice(list(DETECTORS)),
    metavar="NAME",
    default="pilatus-1m",
    show_default=True,
    help=f"The detector: {', '.join(DETECTORS)}.",
)
@click.option("--prefix", default="grid_1", show_default=True, help="What the file names begin with.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["cbf", "cbf.gz", "cbf.bz2", "nexus"]),
    default="cbf",
    show_default=True,
    help="CBF, one file an image, plain or compressed; or NeXus, a master file with data files.",
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Images a second; none: at once.")
@click.option("--jitter", type=click.FloatRange(0, 1), default=0.0, help="Fraction by which intervals vary.")
@click.option("--slowly", is_flag=True, help="Let CBF files grow in place.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Another number makes another crystal.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written, and the true centre, as JSON.")
def grid(
    directory: Path,
    columns: int,
    rows: int,
    snaked: bool,
    vertical: bool,
    detector_name: str,
    prefix: str,
    kind: str,
    rate: float | None,
    jitter: float,
    slowly: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Simulate a grid scan of a crystal into DIRECTORY."""
    from parvis_services.simulate.collect import GridScan, Pace, collect
    from parvis_services.simulate.placing import Slowly
    from parvis_services.xray.grid import Grid

    try:
        scan = GridScan(
            Grid(columns, rows, snaked, "vertical" if vertical else "horizontal"),
            DETECTORS[detector_name],
            seed=seed,
        )
        collected = collect(
            scan,
            directory,
            prefix,
            kind=kind,  # pyright: ignore[reportArgumentType] - click has checked it
            pace=Pace(rate, jitter, seed),
            slowly=Slowly() if slowly else None,
        )
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        written = {
            "files": [str(path) for path in collected.files],
            "master": str(collected.master) if collected.master else None,
            "pattern": collected.pattern,
            "images": collected.images,
            "centre_box": collected.centre,
        }
        click.echo(orjson.dumps(written))
        return
    x, y = collected.centre
    click.echo(f"{collected.images} images in {collected.master or directory}")
    click.echo(f"The crystal's centre is at box ({x:.2f}, {y:.2f}).")


@main.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--interval", type=click.FloatRange(min=0), default=0.05, show_default=True, help="Seconds.")
@click.option("--jitter", type=click.FloatRange(0, 1), default=0.0, help="Fraction by which intervals vary.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Another number makes other intervals.",
)
def copy(files: tuple[Path, ...], directory: Path, interval: float, jitter: float, seed: int) -> None:
    """Copy FILES into DIRECTORY one by one, as a detector would write them."""
    import numpy as np

    from parvis_services.simulate.collect import copy_frames

    random = np.random.default_rng(seed)
    intervals = (interval * (1 + jitter * random.uniform(-1, 1)) for _ in files)
    try:
        copies = copy_frames(files, directory, intervals)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{len(copies)} files in {directory}")


if __name__ == "__main__":
    main(prog_name="python -m parvis_services.simulate")
