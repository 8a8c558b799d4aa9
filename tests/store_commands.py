"""`parvis store` called in tests, and what of its output matters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from parvis.cli import main
from parvis_services.xray.analysis import analyse


def run(*arguments: object, **how: Any) -> Result:
    return CliRunner().invoke(main, ["store", *map(str, arguments)], **how)


def done(*arguments: object) -> str:
    """What a command prints that does well."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def objects(*arguments: object) -> list[dict[str, Any]]:
    """The JSON objects that a command prints which does well, one a line."""
    return [json.loads(line) for line in done(*arguments, "--json").splitlines()]


def counts_of(url: str) -> list[int]:
    """How many spots the first tools find on each image."""
    return [row["n_spots_total"] for row in objects("digest", url, "--prototype")]


def found_in(file: Path) -> list[dict[str, Any]]:
    return [analyse(file, frame=frame).as_dict() for frame in range(4)]


def without_file(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if not key.startswith("file")} for row in rows]
