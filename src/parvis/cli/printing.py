"""What commands print for programs."""

from __future__ import annotations

import click


def print_json(content: object) -> None:
    """Print JSON in one line: what has no form in JSON as text, keys that are none as text, too."""
    import orjson

    click.echo(orjson.dumps(content, default=str, option=orjson.OPT_NON_STR_KEYS).decode())
