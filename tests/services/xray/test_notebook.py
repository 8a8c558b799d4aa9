"""What the how-to shows is what happens."""

from __future__ import annotations

import ast
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from real_data import real_data

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to" / "analyse-images-in-a-notebook.md"
BLOCK = re.compile(r"```python\n(?P<code>.*?)```(?:\n\n```\n(?P<output>.*?)```)?", re.DOTALL)


def run(code: str, names: dict[str, Any]) -> str:
    """Run code as a notebook does; gives what it prints and the value of a last expression."""
    tree = ast.parse(code)
    last = tree.body[-1]
    shown = ast.Expression(last.value) if isinstance(last, ast.Expr) else None
    if shown:
        del tree.body[-1]
    printed = StringIO()
    with redirect_stdout(printed):
        exec(compile(tree, "notebook", "exec"), names)  # noqa: S102 -- the project's own documentation
        value = eval(compile(shown, "notebook", "eval"), names) if shown else None  # noqa: S307
    return printed.getvalue() + ("" if value is None else f"{value!r}\n")


def test_the_how_to_shows_what_happens(tmp_path, monkeypatch):
    for number in (3, 15, 17):
        real = real_data(f"thaumatin_grid/thau_3_2_{number:04d}.cbf.bz2")
        (tmp_path / real.name).symlink_to(real.resolve())
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    compared = 0
    for block in BLOCK.finditer(HOW_TO.read_text(encoding="utf-8")):
        if "matplotlib" in block["code"]:
            continue
        output = run(block["code"], names)
        if block["output"]:
            assert output == block["output"]
            compared += 1
    assert compared >= 5
