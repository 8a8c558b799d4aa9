"""Following a watch from look to look, without a broker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parvis.service.testing import Run


def to_the_end(look: Callable[[Any], Run], payload: Any = None) -> dict[str, list[Any]]:
    """Follow the checkpoints of a watch until there are no more.

    Args:
        look: Has the service look once, at what starts the watch or at a checkpoint.
        payload: What starts it.

    Returns:
        Everything that was sent, by output.
    """
    sent: dict[str, list[Any]] = {}
    for _ in range(1000):
        run = look(payload)
        assert run.outcome.result == "done", run.outcome
        for output in run.outputs:
            sent.setdefault(output, []).extend(run.sent(output))
        if not run.checkpoints:
            return sent
        payload = run.checkpoints[0].payload
    raise AssertionError("the watch does not end")


def numbers(images: Sequence[Mapping[str, Any]]) -> list[int]:
    """The numbers of images that were told of."""
    return [image["file-number"] for image in images]
