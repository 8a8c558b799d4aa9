"""Where recipes are found by name, and the names that are filled in when they are dispatched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from parvis.recipe.problem import quoted, suggestion

if TYPE_CHECKING:
    from parvis.config import Config

PLACEHOLDERS = "parvis.placeholders"

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")


class UnknownRecipe(LookupError):
    """There is no recipe of that name, or it is no name of a recipe."""


def find_recipe(name: str, directories: Sequence[Path]) -> Path:
    """Return the file of the recipe called `name`, from the first directory that has it.

    Raises:
        UnknownRecipe: No directory has it, or the name could lead elsewhere.
    """
    if not _NAME.fullmatch(name):
        raise UnknownRecipe(
            f"{quoted(name)} cannot be the name of a recipe: use letters, digits, '.', '_' and '-', "
            "not beginning with '.'"
        )
    for directory in directories:
        path = directory / f"{name}.json"
        if path.is_file():
            return path
    where = " or ".join(str(directory) for directory in directories)
    raise UnknownRecipe(
        f"there is no recipe {quoted(name)} in {where}{suggestion(name, recipes(directories))}"
    )


def recipes(directories: Iterable[Path]) -> dict[str, Path]:
    """Return the files of all recipes by name; the first directory that has a name counts."""
    found: dict[str, Path] = {}
    for directory in directories:
        for path in sorted(directory.glob("*.json")) if directory.is_dir() else []:
            if _NAME.fullmatch(path.stem):
                found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def recipe_directories(config: Config) -> list[Path]:
    """Return where recipes are looked for: the directory of the site, then those that come with Parvis."""
    from parvis.config import shipped_recipes

    return list(dict.fromkeys([config.recipe_directory, shipped_recipes()]))


def known_placeholders() -> set[str] | None:
    """Return the names that installed packages say they fill in, or None if no package says so.

    A package announces a function without arguments that returns names, as entry point `parvis.placeholders`.
    """
    providers: list[Callable[[], Iterable[str]]] = [
        point.load() for point in entry_points(group=PLACEHOLDERS)
    ]
    return {name for provider in providers for name in provider()} if providers else None
