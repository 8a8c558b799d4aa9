"""What other packages add to the dispatcher: filters, and hooks that say whether it is time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from parvis.service.base import Reject

FILTERS = "zocalo.services.dispatcher.filters"
READINESS = "zocalo.services.dispatcher.ready_for_processing"

Message = dict[str, Any]
Parameters = dict[str, Any]
Filter = Callable[[Message, Parameters], tuple[Message, Parameters]]
ReadinessHook = Callable[[Message, Parameters], bool]


@cache
def filters() -> Mapping[str, Filter]:
    """Return the installed filters by name, in the order of their names."""
    return {point.name: point.load() for point in sorted(entry_points(group=FILTERS))}


@cache
def readiness_hooks() -> Mapping[str, ReadinessHook]:
    """Return the installed readiness hooks by name."""
    return {point.name: point.load() for point in sorted(entry_points(group=READINESS))}


def is_ready(message: Message, parameters: Parameters) -> bool:
    """Whether all installed readiness hooks agree. They get copies, so none can spoil the message."""
    return all(hook(copy.deepcopy(message), copy.deepcopy(parameters)) for hook in readiness_hooks().values())


def apply_filters(message: Message, parameters: Parameters) -> tuple[Message, Parameters]:
    """Return message and parameters as the installed filters leave them.

    Raises:
        Reject: A filter returned something else than message and parameters.
    """
    for name, each in filters().items():
        returned: Any = each(copy.deepcopy(message), copy.deepcopy(parameters))
        match returned:
            case (dict() as message, dict() as parameters):
                pass
            case _:
                raise Reject(f"dispatcher filter {name!r} did not return a message and its parameters")
    return message, parameters
