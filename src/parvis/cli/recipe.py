"""`parvis recipe`: check recipes before they run, draw them, show them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from parvis.cli.completion import complete_recipes
from parvis.cli.options import json_option

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from parvis.config import Config
    from parvis.recipe.graph import Recipe
    from parvis.recipe.problem import Problem

EXTERNAL_QUEUES = "parvis.external_queues"
_LARGEST_FILE = 64 * 2**20


class _Unusable(click.ClickException):
    """There is nothing to work on."""

    exit_code = 2


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return complete_recipes(ctx, parameter, incomplete) or [CompletionItem(incomplete, type="file")]


@click.group()
def recipe() -> None:
    """Check, draw and show recipes.

    A recipe is named by its file, or by its name: those of the site (zocalo.recipe_directory of the
    configuration) come before those that Parvis ships.

    \b
    Examples:
      parvis recipe check per-image-analysis-gridscan
      parvis recipe check recipes/*.json
      parvis recipe draw per-image-analysis-gridscan --svg gridscan.svg
      parvis recipe show --list
    """


@recipe.command()
@click.argument("names", metavar="NAME|FILE...", nargs=-1, required=True, shell_complete=_complete)
@click.option(
    "--given",
    metavar="NAME",
    multiple=True,
    help="A placeholder that is given by hand (go -s NAME=...). May be repeated.",
)
@json_option
def check(names: tuple[str, ...], given: tuple[str, ...], as_json: bool) -> None:
    """Check recipes against the services they name, before they run.

    Prints one line a problem. Exit code: 0 no errors (there may be warnings), 1 errors, 2 a recipe could not
    be read.

    \b
    Examples:
      parvis recipe check per-image-analysis-gridscan
      parvis recipe check my.json --given resolution --json
    """
    import orjson

    config = _config()
    _note_broken_services()
    found: list[dict[str, Any]] = []
    code = 0
    for name in names:
        try:
            problems = problems_of(_read(name, config), config, given)
        except _Unusable as error:
            click.echo(f"{name}: {error.message}", err=True)
            code = 2
            continue
        if any(problem.severity == "error" for problem in problems):
            code = max(code, 1)
        found.append({"recipe": name, "problems": [_plain(problem) for problem in problems]})
        if not as_json:
            _print(name, problems)
    if as_json:
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    sys.exit(code)


@recipe.command()
@click.argument("name", metavar="NAME|FILE", shell_complete=_complete)
@click.option(
    "--svg",
    metavar="OUT",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write an SVG picture to OUT.",
)
@click.option("--mermaid", is_flag=True, help="Print a Mermaid flow chart.")
def draw(name: str, svg: Path | None, mermaid: bool) -> None:
    """Draw a recipe: as a tree in the terminal, as SVG or as Mermaid.

    \b
    Examples:
      parvis recipe draw per-image-analysis-rotation
      parvis recipe draw my.json --svg my.svg
    """
    from parvis.recipe.draw import to_mermaid, to_svg, to_text
    from parvis.recipe.problem import RecipeError

    if svg and mermaid:
        raise click.UsageError("--svg and --mermaid exclude each other")
    try:
        drawn = _loaded(name)
        if svg:
            svg.write_text(to_svg(drawn), encoding="utf-8")
            click.echo(f"wrote {svg}")
        else:
            click.echo(to_mermaid(drawn) if mermaid else _with_red_errors(to_text(drawn)), nl=False)
    except RecipeError as error:
        _print(name, error.problems, err=True)
        sys.exit(1)
    except OSError as error:
        raise _Unusable(f"cannot write {svg}: {error.strerror}") from None


def _with_red_errors(tree: str) -> str:
    """Colour the error edges of a drawing; on what is no terminal click leaves colours out."""
    return re.sub("(╌ error|✕ any failure) ⇢", lambda found: click.style(found[0], fg="red"), tree)


@recipe.command()
@click.argument("name", metavar="NAME|FILE", required=False, shell_complete=_complete)
@click.option("--list", "as_list", is_flag=True, help="List all recipes that are known by name.")
@json_option
def show(name: str | None, as_list: bool, as_json: bool) -> None:
    """Show a recipe as JSON, the way it travels; or list all known recipes.

    \b
    Examples:
      parvis recipe show per-image-analysis-gridscan
      parvis recipe show --list
    """
    import orjson

    from parvis.recipe.library import recipe_directories, recipes
    from parvis.recipe.problem import RecipeError

    if as_list == (name is not None):
        raise click.UsageError("give the name of a recipe, or --list")
    if name is None:
        known = recipes(recipe_directories(_config()))
        if as_json:
            click.echo(
                orjson.dumps({each: str(path) for each, path in known.items()}, option=orjson.OPT_INDENT_2)
            )
            return
        width = max(map(len, known), default=0)
        for each, path in known.items():
            click.echo(f"{each:{width}}  {path}")
        return
    try:
        content = _loaded(name).to_dict()
    except RecipeError as error:
        _print(name, error.problems, err=True)
        sys.exit(1)
    click.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2))


def _config() -> Config:
    from parvis.config import Config, ConfigError

    environments: tuple[str, ...] = click.get_current_context().meta.get("parvis.environments", ())
    try:
        return Config.load(environments=environments)
    except ConfigError as error:
        raise _Unusable(str(error)) from None


def _read(name: str, config: Config) -> bytes:
    from parvis.recipe.library import UnknownRecipe, find_recipe, recipe_directories

    try:
        is_file = "/" in name or name.endswith(".json")
        path = Path(name) if is_file else find_recipe(name, recipe_directories(config))
        with path.open("rb") as file:
            return file.read(_LARGEST_FILE)
    except UnknownRecipe as error:
        raise _Unusable(str(error)) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _Unusable(f"cannot be read: {reason}") from None


def _loaded(name: str) -> Recipe:
    from parvis.recipe.graph import Recipe

    return Recipe.from_json(_read(name, _config()))


def problems_of(text: bytes, config: Config, given: Iterable[str]) -> list[Problem]:
    """Return what is wrong with a recipe, `given` being names that it is filled in with besides."""
    from parvis.recipe.check import check
    from parvis.recipe.graph import Recipe
    from parvis.recipe.library import known_placeholders
    from parvis.recipe.problem import RecipeError
    from parvis.service.registry import contracts

    try:
        loaded = Recipe.from_json(text)
    except RecipeError as error:
        return error.problems
    known = known_placeholders()
    names = None if known is None else known | set(given)
    return check(loaded, contracts(), names, _external_queues(config))


def _note_broken_services() -> None:
    """Say which services are not known here, as nodes that name their queues are then called wrong."""
    from parvis.recipe.problem import printable
    from parvis.service.registry import broken_services

    for name, reason in broken_services().items():
        text = printable(" ".join(reason.split()), 200)
        click.echo(f"Note: {name} cannot be loaded, so its queue is not known: {text}", err=True)


def _external_queues(config: Config) -> list[str]:
    configured: Any = config.storage.get(EXTERNAL_QUEUES) or []
    if not isinstance(configured, list):
        raise _Unusable(f"{EXTERNAL_QUEUES} of the configuration must be a list of queues")
    return [str(queue) for queue in configured]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _print(name: str, problems: Sequence[Problem], *, err: bool = False) -> None:
    for problem in problems:
        mark = "warning: " if problem.severity == "warning" else ""
        click.echo(f"{name}: {mark}{problem}", err=err)
    if not problems:
        click.echo(f"{name}: no problem found", err=err)


def _plain(problem: Problem) -> dict[str, str]:
    return {"where": problem.where, "text": problem.text, "severity": problem.severity}
