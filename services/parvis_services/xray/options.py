"""Options of commands that analyse images."""

from __future__ import annotations

import click

algorithm_option = click.option(
    "--algorithm",
    type=click.Choice(["dispersion", "dispersion_extended"]),
    default="dispersion",
    show_default=True,
    help="How strong pixels are told from background.",
)
d_min_option = click.option(
    "--d-min", type=float, metavar="Å", help="Leave out spots of higher resolution than this."
)
