"""Changing what a dead letter says, in the editor of whoever mends it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final, cast

import orjson

from parvis.observe.dead_letters import DeadLetter
from parvis.recipe.envelope import parse_json

_EDITORS: Final = ("VISUAL", "EDITOR")
_DEFAULT: Final = "vi"
_LARGEST: Final = 16 * 1024 * 1024


class EditError(Exception):
    """A dead letter cannot be edited, or what came of it is no good; the text says why."""


def editable(letter: DeadLetter) -> Any:
    """Return what can be changed: payload and parameters of a recipe message, the whole body of another.

    Raises:
        EditError: It is too long, or not JSON.
    """
    if not letter.is_whole:
        raise EditError(
            f"it is too long to be edited here ({letter.size} bytes): purge it, change the file, and send "
            "that in again"
        )
    if letter.node is None:
        if letter.payload is None:
            raise EditError("its body is not JSON: purge it, change the file, and send that in again")
        return letter.payload
    return {"payload": letter.payload, "parameters": {} if letter.parameters is None else letter.parameters}


def with_changes(letter: DeadLetter, content: Any) -> bytes:
    """Return the body of a dead letter with what `editable` gave in a changed form.

    Raises:
        EditError: It lacks something, or has something else.
    """
    if letter.node is None:
        return orjson.dumps(content)
    if not isinstance(content, dict) or set(cast("dict[str, Any]", content)) != {"payload", "parameters"}:
        raise EditError('it must be an object with "payload" and "parameters", and nothing else')
    changed = cast("dict[str, Any]", content)
    body: Any = parse_json(letter.body)
    body["payload"] = changed["payload"]
    node: dict[str, Any] = body["recipe"][str(letter.node)]
    if changed["parameters"] or "parameters" in node:
        node["parameters"] = changed["parameters"]
    return orjson.dumps(body)


def in_editor(text: str) -> str:
    """Let somebody change a text, and return it.

    The editor is what `$VISUAL` or `$EDITOR` names, with its arguments; no shell has a say in it.

    Raises:
        EditError: There is no such editor, or it failed.
    """
    named = next((os.environ[name] for name in _EDITORS if os.environ.get(name)), _DEFAULT)
    try:
        command = shlex.split(named)
    except ValueError as error:
        raise EditError(f"$EDITOR is {named[:80]!r}: {error}") from None
    with tempfile.TemporaryDirectory(prefix="parvis-edit-") as directory:
        file = Path(directory) / "dead-letter.json"
        file.write_text(text, encoding="utf-8")
        try:
            code = subprocess.run([*command, str(file)], check=False).returncode
        except OSError as error:
            raise EditError(f"the editor {named[:80]!r} cannot be started: {error.strerror}") from None
        if code:
            raise EditError(f"the editor ended with exit code {code}: nothing is changed")
        if file.stat().st_size > _LARGEST:
            raise EditError(f"what came of it is larger than {_LARGEST >> 20} MB")
        return file.read_text(encoding="utf-8", errors="replace")


def as_text(content: Any) -> str:
    """Return JSON for people."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def from_text(text: str) -> Any:
    """Read JSON that people wrote.

    Raises:
        EditError: It is none; says where.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise EditError(f"it is not JSON: {error}") from None
