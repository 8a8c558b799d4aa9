"""What a recipe node says of how its messages are handled: tries, time-out, priority, what follows a failure.

All of it is read from the node as it travels, because the message is all that a host knows of a recipe.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from parvis.recipe.problem import shown
from parvis.transport.base import LONGEST_DELAY

RETRIES = "retries"
RETRY_DELAY = "retry-delay"
TIMEOUT = "timeout"
PRIORITY = "priority"
PRIORITY_PARAMETER = "parvis_priority"  # of a request: becomes `priority` of the recipe environment
POLICY_KEYS = (RETRIES, RETRY_DELAY, TIMEOUT, PRIORITY)

MOST_RETRIES = 1000
HIGHEST_PRIORITY = 9


class PolicyError(ValueError):
    """A node says something of the handling of its messages that makes no sense; the text says what."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a node says; None where it says nothing.

    Attributes:
        retries: How often a message that failed is tried again, whatever it failed of.
        retry_delay: Seconds before it is tried for the second time; doubled for each further try.
        timeout: Seconds that one handling may take.
        priority: Priority, from 0 to 9, of messages sent to the node.
    """

    retries: int | None = None
    retry_delay: float | None = None
    timeout: float | None = None
    priority: int | None = None


_KEYS: Final = frozenset(POLICY_KEYS)
_SILENT: Final = Policy()


def policy_of(node: Mapping[str, Any]) -> Policy:
    """Read what a node of a filled recipe says.

    Raises:
        PolicyError: A value is none of those that its key may have.
    """
    if _KEYS.isdisjoint(node):
        return _SILENT
    return Policy(retries_of(node), retry_delay_of(node), timeout_of(node), priority_of(node))


def retries_of(node: Mapping[str, Any]) -> int | None:
    """Read `retries`. Raises as `policy_of`."""
    return _whole(node, RETRIES, MOST_RETRIES)


def retry_delay_of(node: Mapping[str, Any]) -> float | None:
    """Read `retry-delay`, in seconds. Raises as `policy_of`."""
    return _seconds(node, RETRY_DELAY, zero=True)


def timeout_of(node: Mapping[str, Any]) -> float | None:
    """Read `timeout`, in seconds. Raises as `policy_of`."""
    return _seconds(node, TIMEOUT, zero=False)


def priority_of(node: Mapping[str, Any]) -> int | None:
    """Read `priority`. Raises as `policy_of`."""
    return _whole(node, PRIORITY, HIGHEST_PRIORITY)


def policy_faults(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each of these keys whose value makes no sense, and why; a placeholder is taken to make sense."""
    readers = (retries_of, retry_delay_of, timeout_of, priority_of)
    for key, read in zip(POLICY_KEYS, readers, strict=True):
        value = node.get(key)
        if isinstance(value, str) and "{" in value:
            continue
        try:
            read(node)
        except PolicyError as error:
            yield key, str(error).removeprefix(f"{key} ")


def error_targets(recipe: Mapping[str, Any], pointer: int) -> list[int]:
    """Numbers of the error nodes of a node: its own, or else those of the whole recipe; perhaps none.

    A node that itself is an error node has none, whatever it says. What is no number is left out.
    """
    node = recipe.get(str(pointer))
    own = _numbers(cast("dict[str, Any]", node).get("error")) if isinstance(node, dict) else []
    targets = own or _numbers(recipe.get("error"))
    return [] if not targets or pointer in _error_nodes(recipe) else list(dict.fromkeys(targets))


def _error_nodes(recipe: Mapping[str, Any]) -> set[int]:
    found = set(_numbers(recipe.get("error")))
    for node in recipe.values():
        if isinstance(node, dict):
            found.update(_numbers(cast("dict[str, Any]", node).get("error")))
    return found


def _numbers(value: Any) -> list[int]:
    entries = cast("list[Any]", value) if isinstance(value, list) else [value]
    whole = [int(entry) if isinstance(entry, str) and _is_short_number(entry) else entry for entry in entries]
    return [entry for entry in whole if isinstance(entry, int) and not isinstance(entry, bool)]


def _whole(node: Mapping[str, Any], key: str, most: int) -> int | None:
    value = node.get(key)
    if value is None:
        return None
    number = int(value) if isinstance(value, str) and _is_short_number(value) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= most:
        raise PolicyError(f"{key} must be a whole number from 0 to {most}, it is {shown(value)}")
    return number


def _is_short_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _seconds(node: Mapping[str, Any], key: str, *, zero: bool) -> float | None:
    value = node.get(key)
    if value is None:
        return None
    number = _float(value)
    if 0 < number <= LONGEST_DELAY or (zero and number == 0):
        return number
    least = "zero or more" if zero else "above zero"
    text = f"must be a number of seconds, {least}, at most {LONGEST_DELAY:g}; it is {shown(value)}"
    raise PolicyError(f"{key} {text}")


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan
