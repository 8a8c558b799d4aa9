"""The conversation of `parvis dlq edit`: the editor is opened until what comes of it is good."""

from __future__ import annotations

import click

from parvis.config import Config
from parvis.observe.dead_letters import DeadLetter
from parvis.observe.queue_figures import local_name
from parvis.recipe.problem import printable
from parvis.steer.dead_letters import renewed, target_of
from parvis.steer.editing import EditError, as_text, editable, from_text, in_editor, with_changes
from parvis.steer.preview import problems, with_content


def change(letter: DeadLetter, config: Config, namespace: str, *, ask: bool) -> bytes | None:
    """Return the new body of a dead letter, or None if nothing was changed.

    Args:
        letter: Which.
        config: The configuration: the service that is to handle it is asked what it thinks of it.
        namespace: Of queues and topics.
        ask: Whether there is somebody who can be asked to try again.

    Raises:
        ClickException: It cannot be edited, or is no good and nobody can be asked.
    """
    try:
        before = as_text(editable(letter))
    except EditError as error:
        raise click.ClickException(str(error)) from None
    text = before
    while True:
        try:
            text = in_editor(text)
            if text == before:
                return None
            body = with_changes(letter, from_text(text))
            _check(letter, body, config, namespace)
        except EditError as error:
            if not ask:
                raise click.ClickException(printable(str(error), 1000)) from None
            click.echo(printable(str(error), 1000), err=True)
            if not click.confirm("Edit it once more?", default=True, err=True):
                return None
        else:
            return body


def _check(letter: DeadLetter, body: bytes, config: Config, namespace: str) -> None:
    changed = with_content(letter, body)
    queue = local_name(target_of(letter), namespace)
    found = problems(renewed(changed), config, queue)
    if found:
        raise EditError(found[0])
