"""The notebook of the how-to gives what it says, on the real frames that it was written with."""

from __future__ import annotations

import ast
import contextlib
import io
from typing import Any

import pytest

from documents import ROOT, blocks
from real_data import real_data

NOTEBOOK = ROOT / "docs" / "how-to" / "analyse-images-in-a-notebook.md"


def evaluate(code: str, variables: dict[str, Any]) -> str:
    """Run a cell as a notebook does; return what it shows: what it prints, and its last expression."""
    tree = ast.parse(code)
    last = tree.body[-1]
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        if isinstance(last, ast.Expr):
            exec(compile(ast.Module(tree.body[:-1], []), "cell", "exec"), variables)  # noqa: S102
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), variables)  # noqa: S307
            print("" if value is None else repr(value), end="")
        else:
            exec(compile(tree, "cell", "exec"), variables)  # noqa: S102
    return shown.getvalue().strip()


def test_cells_show_what_the_how_to_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(real_data("thaumatin_grid"))
    cells = blocks(NOTEBOOK)
    variables: dict[str, Any] = {}
    compared = 0
    for cell, after in zip(cells, [*cells[1:], cells[0]], strict=True):
        if cell.language != "python" or "matplotlib" in cell.text:
            continue
        shown = evaluate(cell.text, variables)
        if after.language == "":
            assert shown == after.text.strip(), cell.text
            compared += 1
    assert compared >= 5
