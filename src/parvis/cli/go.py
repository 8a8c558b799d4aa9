"""`parvis go`: start recipes for a data collection."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import queue
import socket
import sys
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from pprint import pformat
from typing import TYPE_CHECKING, Any, NoReturn

import click

from parvis.cli.completion import complete_recipes
from parvis.cli.dropfile import drop_file, store
from parvis.cli.options import json_option, with_config
from parvis.config import Config

if TYPE_CHECKING:
    from parvis.transport.base import Message, Transport

QUEUE = "processing_recipe"

# With the time that Python takes to start, a trigger is sent or stored within a second.
_PATIENCE = 0.6
_PATIENCE_OF_WHO_WAITS = 5.0  # for a job that takes longer, so a busy machine need not stop it
_WAIT_LIMIT = 3600.0

_AFTER_WAIT = "parvis.go.after_wait"  # the word, if any, that follows a `--wait` without a value


class _Refused(click.ClickException):
    """Ends with exit code 1 and nothing but the text, as scripts know it."""

    def show(self, file: Any = None) -> None:
        click.echo(self.format_message(), file=file, err=True)


class _GoCommand(click.Command):
    """A command whose `--wait` takes its value only after an equals sign, as the next word is the DCID."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        ctx.meta[_AFTER_WAIT] = args[args.index("--wait") + 1 : end][:1] if "--wait" in args[:end] else []
        bare = ["--wait=" if word == "--wait" else word for word in args[:end]]
        return super().parse_args(ctx, bare + args[end:])


def _seconds(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value or _WAIT_LIMIT)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e9:
        raise click.BadParameter(f"{value!r} is not a number of seconds")
    return seconds


@click.command(
    cls=_GoCommand,
    context_settings={"help_option_names": ["-h", "--help", "-?"]},
    epilog="""\b
Examples:
  parvis go -r per-image-analysis-gridscan 993677
  parvis go -r mimas -s event=end -s ispyb_wait_for_runstatus=1 993677
  parvis go -f my-recipe.json --no-dcid -s directory=/data --dry-run -v
  parvis go -r per-image-analysis-rotation 993677 --wait=600 && echo done
""",
)
@click.argument("ids", nargs=-1, metavar="DCID")
@click.option(
    "-r",
    "--recipe",
    "recipes",
    metavar="RCP",
    multiple=True,
    shell_complete=complete_recipes,
    help="Name of a recipe to run. May be repeated.",
)
@click.option(
    "-f", "--file", "recipe_file", metavar="FILE", type=click.Path(), help="Run the recipe in this file."
)
@click.option(
    "-s",
    "--set",
    "variables",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set a parameter of the recipes. May be repeated.",
)
@click.option("-n", "--no-dcid", is_flag=True, help="Start without a data collection.")
@click.option("-p", "--reprocessing", is_flag=True, help="The number is the ID of a processing job in ISPyB.")
@click.option("-a", "--autoprocscalingid", metavar="APSID", help="ID of an auto processing scaling in ISPyB.")
@click.option(
    "--priority",
    type=click.IntRange(0, 9),
    help="Priority of the messages of the job, from 0 to 9, where the recipe says none.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the message before it is sent.")
@click.option("--dry-run", is_flag=True, help="Do everything except sending the message.")
@click.option("--drop", is_flag=True, hidden=True, help="Write the drop file straight away.")
@click.option("-d", "--default", "use_default", is_flag=True, hidden=True)
@click.option("--not", "unwanted", metavar="RCP", multiple=True, hidden=True)
@click.option(
    "--wait",
    metavar="[=SECONDS]",
    callback=_seconds,
    help=f"Follow the job and print the results table; give up after SECONDS ({_WAIT_LIMIT:g}).",
)
@json_option
@with_config()
def go(
    ids: tuple[str, ...],
    recipes: tuple[str, ...],
    recipe_file: str | None,
    variables: tuple[str, ...],
    no_dcid: bool,
    reprocessing: bool,
    autoprocscalingid: str | None,
    priority: int | None,
    verbose: bool,
    dry_run: bool,
    drop: bool,
    use_default: bool,
    unwanted: tuple[str, ...],
    wait: float | None,
    as_json: bool,
    config: Config,
) -> None:
    """Start recipes for data collection DCID.

    The message goes to the dispatcher. If the broker is away, it is stored in a file, from which it is sent
    later: then the exit code is 0, too. 1: the request is no good, or with --wait, the job failed.
    """
    parameters: dict[str, Any] = dict(_variable(text) for text in variables)
    names = [name for name in recipes if name not in unwanted]
    if use_default:
        click.echo("Note: --default is no more; this runs '-r mimas -s event=end' instead.", err=True)
        names.append("mimas")
        parameters.setdefault("event", "end")
    if not (names or recipe_file or reprocessing):
        raise _Refused("No recipes specified.")
    message: dict[str, Any] = {"recipes": names, "parameters": parameters}
    if recipe_file:
        message["custom_recipe"] = _custom_recipe(recipe_file)
    identifier = None if no_dcid else _identifier(ids)
    if identifier is not None:
        parameters["ispyb_process" if reprocessing else "ispyb_dcid"] = identifier
    if autoprocscalingid is not None:
        parameters["ispyb_autoprocscalingid"] = _positive(
            autoprocscalingid, "Invalid auto processing scaling ID given."
        )
    if priority is not None:
        from parvis.recipe.policy import PRIORITY_PARAMETER

        parameters[PRIORITY_PARAMETER] = priority
    say = _Speaker(as_json)
    say.plan(names, recipe_file, identifier, reprocessing)
    job = _Submission(config, message, say, dry_run=dry_run, wait=wait)
    if verbose:
        say.line(pformat(message))
    job.drop() if drop else job.send()
    submitted = identifier is not None and reprocessing
    say.line(f"\nReprocessing task submitted for ID {identifier}." if submitted else "\nSubmitted.")
    if recipe_file:
        _warn_of_mistakes(recipe_file, config, parameters)
    job.follow()


def _warn_of_mistakes(recipe_file: str, config: Config, parameters: Iterable[str]) -> None:
    """Say what will not work in a recipe that nobody may have checked; it is on its way already."""
    from parvis.cli.recipe import problems_of

    for problem in problems_of(Path(recipe_file).read_bytes(), config, parameters):
        if problem.severity == "error":
            click.echo(f"Warning: {recipe_file}: {problem}", err=True)


def _variable(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise _Refused(f"Invalid variable specification '{text}'")
    return key, value


def _identifier(ids: Sequence[str]) -> int:
    if not ids:
        raise _Refused("You must either specify a data collection ID or option --no-dcid.")
    if len(ids) > 1:
        stray = click.get_current_context().meta[_AFTER_WAIT]
        hint = f"\n--wait takes its seconds after an equals sign: --wait={stray[0]}" if stray else ""
        raise _Refused(f"Only a single data collection ID can be specified.{hint}")
    return _positive(ids[0], "Invalid data collection ID given.")


def _positive(text: str, otherwise: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) > 0):
        raise _Refused(otherwise)
    return int(text)


def _custom_recipe(name: str) -> dict[str, Any]:
    from parvis.recipe.graph import Recipe
    from parvis.recipe.problem import RecipeError

    try:
        recipe = Recipe.from_json(Path(name).read_bytes())
        recipe.validate()
    except OSError as error:
        raise _Refused(f"Cannot read the recipe {name}: {error.strerror}") from None
    except RecipeError as error:
        raise _Refused(f"Invalid recipe {name}: {error}") from None
    return recipe.to_dict()


class _Speaker:
    """Says what happens: in lines for people, or as JSON objects."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def line(self, text: str) -> None:
        if not self.as_json:
            _say(text)

    def event(self, event: str, **content: Any) -> None:
        if self.as_json:
            _say(json.dumps({"event": event, **content}, default=str))

    def plan(
        self, recipes: list[str], recipe_file: str | None, identifier: int | None, reprocessing: bool
    ) -> None:
        if recipes:
            self.line(f"Running recipes {recipes}")
        if identifier is not None and reprocessing:
            return
        if recipe_file:
            self.line(f"Running recipe from file {recipe_file}")
        if identifier is None:
            self.line("without specified data collection.")
        else:
            self.line(f"for data collection {identifier}")


def _say(text: str) -> None:
    """Print a line. That nobody reads it any more, or the disk is full, is no reason to lose a trigger."""
    try:
        click.echo(text)
    except OSError:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - it is no file of ours
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


class _Submission:
    """One message on its way: to the broker, or into a drop file."""

    def __init__(
        self, config: Config, message: dict[str, Any], say: _Speaker, *, dry_run: bool, wait: float | None
    ) -> None:
        from parvis.service.identity import IDENTITY

        self._config = config
        self._message = message
        self._say = say
        self._dry_run = dry_run
        self._wait = None if dry_run else wait
        # The same in the message and in a drop file: whoever gets both knows that they are one request.
        self._headers = {
            "zocalo.go.user": _user(),
            "zocalo.go.host": socket.gethostname(),
            IDENTITY: str(uuid.uuid4()),
        }
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._transport: Transport | None = None

    def send(self) -> None:
        from parvis.observe.tracing_settings import request_headers

        if self._dry_run:
            self._say.line("Not sending message (running with --dry-run)")
            self._say.event("dry-run", message=self._message)
            return
        with request_headers(self._config, "parvis go", QUEUE) as headers:
            self._headers |= headers
            self._send_or_drop()

    def _send_or_drop(self) -> None:
        try:
            self._transport = self._submit()
        except Exception as error:  # noqa: BLE001 - whatever the reason, the trigger must not be lost
            reason = " ".join(str(error).split()) or type(error).__name__
            click.echo(f"The broker did not take the message: {reason}", err=True)
            self._say.line("\n\nAttempting to store message in fallback location")
            self.drop()
            return
        self._say.event("submitted", message=self._message, headers=self._headers)

    def _submit(self) -> Transport:
        from parvis.cli.submit import leave, submit
        from parvis.recipe.envelope import dump_json
        from parvis.recipe.watch import WATCH_HINT, WATCH_PARAMETER
        from parvis.service.identity import FIRST_SEEN
        from parvis.transport.base import Send

        watch, patience = None, _PATIENCE
        content = self._message
        if self._wait is not None:
            patience = _PATIENCE_OF_WHO_WAITS
            topic = f"transient.{WATCH_HINT}.{uuid.uuid4()}"
            watch = (topic, self._inbox.put)
            content = content | {"parameters": content["parameters"] | {WATCH_PARAMETER: topic}}
        headers = {**self._headers, FIRST_SEEN: str(time.time_ns() // 1_000_000)}
        transport = submit(self._config, Send(QUEUE, dump_json(content), headers), patience, watch)
        if watch is None:
            leave(transport)
        return transport

    def drop(self) -> None:
        file = drop_file(self._config.fallback_location)
        if self._dry_run:
            self._say.line(f"Not storing message in {file} (running with --dry-run)")
            return
        try:
            store(file, self._headers, self._message)
        except OSError as error:
            self._lost(file, error)
        self._say.line(f"Message successfully stored in {file}")
        self._say.event("stored", file=str(file), message=self._message, headers=self._headers)

    def _lost(self, file: Path, error: OSError) -> NoReturn:
        content = json.dumps({"headers": self._headers, "message": self._message})
        raise _Refused(
            f"NOTHING WAS SUBMITTED: the message could not be stored either, in {file.parent}: "
            f"{error.strerror}\n"
            "Put this into a file there, or submit it again when the broker is back:\n"
            f"{content}"
        )

    def follow(self) -> None:
        """Wait for the end of the job, if that was asked for."""
        if self._wait is None:
            return
        if self._transport is None:
            raise _Refused("There is nothing to wait for: the message was stored, and not sent.")
        from parvis.cli.follow import follow
        from parvis.cli.story_watch import StoryWatch

        report = self._say.event if self._say.as_json else None
        with contextlib.closing(StoryWatch(self._config)) as watch:
            succeeded = follow(self._transport, self._inbox, self._wait, report, watch)
        if not succeeded:
            raise click.exceptions.Exit(1)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run us as a number without a name
        return str(os.getuid())
