"""Commands in the documents exist, with the options and recipes that they are given."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from documents import DOCUMENTS, ROOT, blocks, inline_code, name
from parvis.cli import main as parvis
from parvis.config import shipped_recipes
from parvis_services.ispyb.__main__ import main as ispyb
from parvis_services.simulate.__main__ import main as simulate

# How a command is written, and what then stands for its first words.
_PROGRAMS: list[tuple[re.Pattern[str], click.Command, list[str]]] = [
    (re.compile(r"bootstrap\.py demo\b(.*)"), parvis, ["demo"]),
    (re.compile(r"parvis_services\.simulate (.+)"), simulate, []),
    (re.compile(r"parvis_services\.ispyb\b[ ,]*(.*)"), ispyb, []),
    (re.compile(r"(?:^|\s|/)parvis (.+)"), parvis, []),
]
_SHELL = {"", "sh", "bash", "console"}
_END = re.compile(r"\s(?:&&|\|\||[|&<>#;])|\s#|\)\s*&?$|…|\.\.\.|\\$")
_RECIPE = re.compile(r"\bper-image-analysis-[a-z-]+\b")


def _lines(document: Path) -> Iterator[str]:
    """Everything in a document that a person may type."""
    for block in blocks(document):
        if block.language in _SHELL:
            yield from block.text.replace("\\\n", " ").splitlines()
    yield from inline_code(document)


def _commands(document: Path) -> Iterator[tuple[str, click.Command, list[str]]]:
    for line in _lines(document):
        for pattern, program, first in _PROGRAMS:
            found = pattern.search(line)
            if found is not None and not _is_output(line):
                yield line, program, first + _words(found[1])
                break


def _is_output(line: str) -> bool:
    """Whether a line is what a program printed, or an address, rather than what was typed."""
    return bool(re.match(r"[A-Z●\d]|\S+=parvis\b.*[:@]", line)) and not re.match(r"[A-Z_]+=\S* parvis ", line)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(_END.split(f"{text} ")[0].replace("[", " ").replace("]", " "))
    except ValueError:
        return []


def _check(program: click.Command, words: list[str]) -> None:
    context = click.Context(program, info_name="parvis")
    command: click.Command = program
    options = _options(command, context)
    for word in words:
        if word.startswith("-") and word != "-" and not re.fullmatch(r"-\d.*", word):
            option = word.partition("=")[0]
            short = (
                {f"-{letter}" for letter in option[1:]} if re.fullmatch(r"-[a-z]{2,}", option) else {option}
            )
            assert short <= options, f"{command.name} has no option {option}"
        elif isinstance(command, click.Group) and not word.isupper() and re.fullmatch(r"[a-z][a-z|-]*", word):
            found = [command.get_command(context, each) for each in word.split("|")]
            assert None not in found, f"{command.name} has no command {word}"
            command = found[0] or command
            options |= _options(command, context)


def _options(command: click.Command, context: click.Context) -> set[str]:
    own = {text for option in command.params for text in (*option.opts, *option.secondary_opts)}
    return own | set(command.get_help_option_names(context)) | {"-h", "--help"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_exist(document: Path) -> None:
    for line, program, words in _commands(document):
        try:
            _check(program, words)
        except AssertionError as error:
            raise AssertionError(f"`{line}`: {error}") from None


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_recipes_exist(document: Path) -> None:
    known = {path.stem for path in shipped_recipes().glob("*.json")}
    assert set(_RECIPE.findall(document.read_text(encoding="utf-8"))) <= known


def _leaves(command: click.Command, path: str = "parvis") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from _leaves(found, f"{path} {each}")


def test_every_command_and_option_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    for path, command in _leaves(parvis):
        assert path in reference
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert max(option.opts, key=len) in reference, f"{path} {option.opts}"


def test_commands_are_found_and_checked() -> None:
    found = [words for document in DOCUMENTS for _, _, words in _commands(document)]
    assert len(found) > 80
    assert ["recipe", "check", "hits.json"] in found
    assert ["demo", "--seed", "5"] in found
    for wrong in (["recipe", "chekc", "hits.json"], ["go", "--recipes", "x"], ["nonsense"], ["go", "-vx"]):
        with pytest.raises(AssertionError):
            _check(parvis, wrong)
