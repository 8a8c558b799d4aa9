"""Lets whoever started a recipe see what comes of it: `parvis go --wait`.

The contract between three parties:

* Whoever waits subscribes to a topic `transient.go.<uuid>` of its own, and puts the name into the parameters
  of the request as `parvis_watch`. (A topic, because what nobody listens to any more must not pile up.)
* The dispatcher adds nodes for that topic to the filled recipe with `add_watcher`. If it rejects the request,
  it sends `failure_message` instead.
* So whoever waits gets recipe messages whose node says under `parameters`: `event`, one of

  ============ ========================================== ==========================================
  event        sent by                                    payload
  ============ ========================================== ==========================================
  `started`    the dispatcher, with the start nodes       empty
  `image`      `per_image_analysis`, output `result`      what is known of one image
  `missing`    `per_image_analysis`, output `missing`     an image that is not in its store (any more)
  `finished`   watchers and writers, output `finally`     `files-expected`, `files-seen`, `success`; or the
                                                          same of `images`
  `timeout`    watchers and writers, output `timeout`     the image that did not come
  `centred`    `reduce.xray_centering`, output `success`  the result
  `abort`      `reduce.xray_centering`, output `abort`    empty
  ============ ========================================== ==========================================

  Watchers and writers are `filewatcher`, `objectwatcher` and `cephwriter`, or `cephwriter.<detector>`. The
  last number of `recipe-path` is the node that it came from; or a plain message
  `{"parvis-error": reason}` from the dispatcher; or a plain message `{"parvis-dead-letter": {"node": number,
  "service": name, "reason": text}}` from a host that has set a message of the recipe aside.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, TypeGuard, cast

from parvis.recipe.envelope import Envelope, dump_json
from parvis.transport.base import Send

WATCH_PARAMETER = "parvis_watch"
WATCH_HINT = "go"
ERROR_KEY = "parvis-error"
DEAD_LETTER_KEY = "parvis-dead-letter"
SERVICE_LABEL = "go --wait"
_LONGEST_REASON = 500

Event = Literal["started", "image", "missing", "finished", "timeout", "centred", "abort"]

_Watched: TypeAlias = tuple[dict[str, Event], str | None]
_WATCH: _Watched = ({"finally": "finished", "timeout": "timeout"}, None)
_WRITER = "cephwriter"

# Queue: its outputs that are watched, and the output of a node that names none.
_WATCHED: dict[str, _Watched] = {
    "per_image_analysis": ({"result": "image", "missing": "missing"}, "result"),
    "filewatcher": _WATCH,
    "objectwatcher": _WATCH,
    _WRITER: _WATCH,
    "reduce.xray_centering": ({"success": "centred", "abort": "abort"}, "success"),
}
_TOPIC = re.compile(rf"transient\.{WATCH_HINT}\.[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}")


def is_watch_topic(name: object) -> TypeGuard[str]:
    """Whether `name` is that of a topic that somebody waits at; anything else must not be sent to."""
    return isinstance(name, str) and _TOPIC.fullmatch(name) is not None


def add_watcher(recipe: Mapping[str, Any], topic: str) -> dict[str, Any]:
    """Return a filled recipe with nodes added that send what comes of it to `topic`.

    Args:
        recipe: The recipe as on the wire; it is not changed.
        topic: Where to.

    Raises:
        ValueError: `topic` is not that of somebody who waits.
    """
    if not is_watch_topic(topic):
        raise ValueError(f"{str(topic)[:80]!r} is not a topic that results may be sent to")
    watched = copy.deepcopy(dict(recipe))
    watchers = _Watchers(watched, topic)
    for key in [key for key in watched if key.isdecimal()]:
        node = cast("dict[str, Any]", watched[key])
        if (known := _watched_at(node.get("queue"))) is not None:
            _watch(node, *known, watchers)
    watched["start"] = [*watched["start"], [watchers.number("started"), {}]]
    return watched


def _watched_at(queue: Any) -> _Watched | None:
    if isinstance(queue, str) and queue.startswith(f"{_WRITER}."):  # each detector has a writer of its own
        return _WATCHED[_WRITER]
    return _WATCHED.get(queue)


def without_watchers(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a filled recipe without the nodes of those who wait for it: as it was written."""
    nodes = {
        key: cast("dict[str, Any]", node)
        for key, node in recipe.items()
        if key.isdecimal() and isinstance(node, dict)
    }
    watchers = {int(key) for key, node in nodes.items() if _is_watcher(node)}
    left = {key: value for key, value in recipe.items() if not key.isdecimal() or int(key) not in watchers}
    for key, node in nodes.items():
        named: Any = node.get("output")
        if key in left and isinstance(named, dict):
            outputs = {
                name: [target for target in _as_list(targets) if target not in watchers]
                for name, targets in cast("dict[str, Any]", named).items()
            }
            left[key] = node | {"output": {name: targets for name, targets in outputs.items() if targets}}
    if isinstance(left.get("start"), list):
        entries = cast("list[Any]", left["start"])
        left["start"] = [entry for entry in entries if _as_list(entry)[:1] not in [[n] for n in watchers]]
    return left


def _is_watcher(node: Mapping[str, Any]) -> bool:
    return node.get("service") == SERVICE_LABEL and is_watch_topic(node.get("topic"))


def failure_message(topic: str, reason: str) -> Send:
    """Return what tells the one who waits at `topic` that nothing was started, and why."""
    return Send(topic, dump_json({ERROR_KEY: reason}), kind="topic", persistent=False)


def dead_letter_notices(envelope: Envelope, service: str, reason: str) -> list[Send]:
    """Return what tells those who wait for a recipe that one of its messages was set aside, and why."""
    nodes = [cast("dict[str, Any]", node) for node in envelope.recipe.values() if isinstance(node, dict)]
    topics = {node["topic"] for node in nodes if _is_watcher(node)}
    notice = {"node": envelope.pointer, "service": service, "reason": reason[:_LONGEST_REASON]}
    body = dump_json({DEAD_LETTER_KEY: notice})
    return [Send(topic, body, kind="topic", persistent=False) for topic in topics]


class _Watchers:
    """The nodes that are added: one for each event, made when it is first asked for."""

    def __init__(self, recipe: dict[str, Any], topic: str) -> None:
        self._recipe = recipe
        self._topic = topic
        self._numbers: dict[Event, int] = {}

    def number(self, event: Event) -> int:
        if event not in self._numbers:
            number = max((int(key) for key in self._recipe if key.isdecimal()), default=0) + 1
            self._recipe[str(number)] = {
                "service": SERVICE_LABEL,
                "topic": self._topic,
                "parameters": {"event": event},
            }
            self._numbers[event] = number
        return self._numbers[event]


def _watch(
    node: dict[str, Any], outputs: Mapping[str, Event], unnamed: str | None, watchers: _Watchers
) -> None:
    """Connect outputs of a node; `unnamed` is what its output is called where it has one without a name."""
    existing: Any = node.get("output")
    if isinstance(existing, dict):
        named = cast("dict[str, Any]", existing)
    elif existing is None:
        named = {}
    elif unnamed is not None:
        named = {unnamed: existing}
    else:
        return  # an output without a name, where the service has none
    for output, event in outputs.items():
        named[output] = [*_as_list(named.get(output)), watchers.number(event)]
    node["output"] = named


def _as_list(targets: Any) -> list[Any]:
    if targets is None:
        return []
    return cast("list[Any]", targets) if isinstance(targets, list) else [targets]
