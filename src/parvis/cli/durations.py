"""Lengths of time on a command line."""

from __future__ import annotations

import re
from typing import Final

import click

_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def duration(text: str) -> float:
    """Read a length of time, as `600`, `90s`, `10m`, `2h`, `3d` or `1w`; in seconds.

    Raises:
        BadParameter: It is none.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw]?)", text.strip())
    if found is None:
        raise click.BadParameter(f"{text[:40]!r} is no length of time: 600, 90s, 10m, 2h, 3d or 1w")
    return float(found[1]) * _SECONDS[found[2]]


def read_duration(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    """As a callback of an option."""
    return None if text is None else duration(text)
