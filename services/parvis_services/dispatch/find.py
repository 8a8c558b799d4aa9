"""`parvis find`: what the dispatcher would fill a recipe with, without a broker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from parvis.cli.completion import complete_recipes
from parvis.cli.options import json_option

if TYPE_CHECKING:
    from parvis.config import Config
    from parvis.recipe.graph import Recipe
    from parvis_services.ispyb.database import Database

_LARGEST_RECIPE = 64 * 2**20


@click.command(
    epilog="""\b
Examples:
  parvis find 993677
  parvis find 993677 --json | jq .ispyb_dc_info.wavelength
  parvis find 993677 -r per-image-analysis-rotation
  parvis find 993677 -f my-recipe.json -o filled.json
  parvis find 993677 --ispyb sqlite:///test.db
  parvis find -p 5
""",
)
@click.argument("number", metavar="DCID")
@click.option("-p", "--process", is_flag=True, help="The number is the ID of a processing job in ISPyB.")
@click.option(
    "-r",
    "--recipe",
    "names",
    metavar="NAME",
    multiple=True,
    shell_complete=complete_recipes,
    help="Show this recipe, filled in. May be repeated: several run as one.",
)
@click.option(
    "-f",
    "--file",
    "file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Show the recipe in this file, filled in.",
)
@click.option(
    "--ispyb",
    "url",
    metavar="URL",
    help="The database, such as sqlite:///FILE; by default the one that is configured.",
)
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write JSON into this file.",
)
@json_option
@click.pass_context
def find(
    ctx: click.Context,
    *,
    number: str,
    process: bool,
    names: tuple[str, ...],
    file: Path | None,
    url: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Print what the dispatcher knows of a data collection, or a recipe filled in with it.

    No broker is needed and nothing is started. The recipe is the one that the dispatcher would start, except
    for the directories: their last part is new for each run.
    """
    from parvis.config import Config
    from parvis_services.dispatch.defaults import site_parameters

    if url and urlsplit(url).password:
        click.echo(
            "Warning: everybody on this machine can see the password in --ispyb; use PARVIS_ISPYB_URL.",
            err=True,
        )
    overrides = {"PARVIS_ISPYB_URL": url} if url else {}
    config = Config.load(environments=ctx.meta.get("parvis.environments", ()), overrides=overrides)
    message: dict[str, Any] = {"recipes": list(names)}
    key = "ispyb_process" if process else "ispyb_dcid"
    message, parameters = _filtered(message, {key: number}, config)
    found: Mapping[str, Any] = parameters
    if names or file is not None:
        given = site_parameters(config.storage) | parameters
        found = _filled(_asked_for(message["recipes"], file, config), given)
    if out is not None:
        _write(out, found)
    elif as_json or found is not parameters:
        click.echo(_json(found))
    else:
        click.echo("\n".join(_lines(parameters)))


def _filtered(
    message: dict[str, Any], parameters: dict[str, Any], config: Config
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Message and parameters as the dispatcher has them when it fills a recipe."""
    from parvis_services.dispatch.plugins import apply_filters
    from parvis_services.ispyb.configured import configured_site
    from parvis_services.ispyb.fields import message_fields

    database = _database(config)
    try:
        fields = message_fields(database, parameters, site=configured_site(config))
    finally:
        database.close()
    return apply_filters(message, parameters | fields)


def _database(config: Config) -> Database:
    from parvis_services.ispyb.configured import configured_database

    database = configured_database(config)
    if database is None:
        raise click.UsageError(
            "no metadata database is configured: give --ispyb URL, set PARVIS_ISPYB_URL, "
            "or configure plugin ispyb"
        )
    return database


def _asked_for(names: Sequence[str], file: Path | None, config: Config) -> Recipe:
    """All recipes that are asked for, as one."""
    from parvis.recipe.graph import Recipe
    from parvis.recipe.library import find_recipe, recipe_directories
    from parvis.recipe.problem import RecipeError

    paths = [file] if file is not None else []
    try:
        paths += [find_recipe(name, recipe_directories(config)) for name in names]
    except LookupError as error:
        raise click.ClickException(str(error)) from None
    merged: Recipe | None = None
    for path in paths:
        try:
            recipe = Recipe.from_json(_read(path))
        except RecipeError as error:
            raise click.ClickException(f"{path}: {error}") from None
        merged = recipe if merged is None else merged.merge(recipe)
    if merged is None:
        raise click.UsageError("no recipe is asked for")
    return merged


def _filled(recipe: Recipe, parameters: Mapping[str, Any]) -> dict[str, Any]:
    from parvis.recipe.problem import RecipeError
    from parvis.recipe.template import fill_recipe, placeholders, unread

    try:
        recipe.validate()
        content = fill_recipe(recipe, parameters).to_dict()
    except RecipeError as error:
        raise click.ClickException(str(error)) from None
    # From the empty recipe: what is filled in may hold braces of its own.
    if missing := sorted(placeholders(recipe.to_dict()) - set(parameters)):
        click.echo(f"Not filled in, as nobody gives them: {', '.join(missing)}", err=True)
    for fault in dict.fromkeys(fault for _, fault in unread(recipe.to_dict())):
        click.echo(f"Not filled in: {fault}", err=True)
    return content


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_RECIPE + 1)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    if len(text) > _LARGEST_RECIPE:
        raise click.ClickException(f"{path}: larger than {_LARGEST_RECIPE // 2**20} MiB")
    return text


def _write(path: Path, found: Mapping[str, Any]) -> None:
    try:
        path.write_text(f"{_json(found)}\n", encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None


def _json(found: Mapping[str, Any]) -> str:
    import orjson

    return orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()


def _lines(fields: Mapping[str, Any]) -> Iterator[str]:
    """The fields for people: one a line, rows of the database indented, and of those only what is known."""
    import orjson

    width = max(map(len, fields), default=0)
    for name, value in sorted(fields.items()):
        label = click.style(f"{name:{width}}", bold=True)
        if not isinstance(value, dict) or not value:
            yield f"{label}  {orjson.dumps(value).decode()}"
            continue
        yield label
        known = {key: each for key, each in value.items() if each is not None}
        inner = max(map(len, known), default=0)
        for key, each in known.items():
            yield f"  {key:{inner}}  {orjson.dumps(each).decode()}"
        if unknown := len(value) - len(known):
            yield click.style(f"  and {unknown} without a value", dim=True)
