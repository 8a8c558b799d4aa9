"""RabbitMQ's management interface: see what is there, and make what is wanted."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast
from urllib.parse import quote, urlsplit

from parvis.transport.amqp_layout import Kind, Resource, binding, user_content
from parvis.transport.amqp_messages import DELAY
from parvis.transport.base import BrokerRefused, Disconnected, NoConnection, NotAdmitted

if TYPE_CHECKING:
    from parvis.config import Config

Action = Literal["create", "update", "replace", "delete", "differs"]

_TIMEOUT: Final = 10.0
_PORT: Final = 15672
_ORDER: Final[tuple[Kind, ...]] = ("vhost", "user", "permission", "exchange", "queue", "binding", "policy")
_COLLECTIONS: Final[dict[Kind, str]] = {
    "vhost": "vhosts",
    "user": "users",
    "permission": "permissions",
    "exchange": "exchanges",
    "queue": "queues",
    "binding": "bindings",
    "policy": "policies",
}
_FIXED: Final = frozenset({"exchange", "queue"})  # what cannot be changed once it is there


@dataclass(frozen=True, slots=True)
class Change:
    """A difference between what is there and what is wanted.

    Attributes:
        action: What is to be done. `differs`: nothing, as it would cost what is there; `replace`: made anew.
        resource: Of what.
        detail: In what it differs.
    """

    action: Action
    resource: Resource
    detail: str = ""


class Management:
    """The HTTP interface of a broker.

    Args:
        urls: Where it may be, such as `http://rabbit:15672`; the first that answers is used.
        username, password: The log-in, of an administrator for most changes.
    """

    def __init__(self, urls: Sequence[str], username: str, password: str) -> None:
        self.username = username
        self._urls = [_api(url) for url in urls]
        self._login = base64.b64encode(f"{username}:{password}".encode()).decode()

    def connect(self) -> None:
        """Find one that answers.

        Raises:
            NoConnection: None does.
            NotAdmitted: It does not let us in.
        """
        failures: list[str] = []
        for url in self._urls:
            try:
                self._urls = [url]
                self.ask("GET", "whoami")
            except Disconnected as error:
                failures.append(str(error))
            else:
                return
        raise NoConnection("; ".join(failures))

    def ask(self, method: str, path: str, content: Any = None) -> Any:
        """Ask something; return the answer, or None if there is none.

        Raises:
            Disconnected: Nobody answers.
            NotAdmitted: It does not let us in.
            BrokerRefused: It does not do that.
        """
        url = self._urls[0]
        request = urllib.request.Request(  # noqa: S310 - only http and https pass `_api`
            f"{url}/{path}",
            method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers={"Authorization": f"Basic {self._login}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310 - as above
                text = answer.read()
                return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            if error.code == 401:
                raise NotAdmitted(
                    f"{url} refused the log-in of {self.username!r}: wrong, or no administrator"
                ) from None
            raise BrokerRefused(f"{method} {path}: {error.code} {_reason(error)}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise Disconnected(f"{url} cannot be reached: {reason}") from None

    def present(self, kind: Kind) -> list[Resource]:
        """What is there of a kind. Raises as `ask`."""
        return [_resource(kind, entry) for entry in self.ask("GET", _COLLECTIONS[kind])]

    def apply(self, change: Change) -> None:
        """Do it. A queue is only deleted while it is empty and nobody listens to it. Raises as `ask`."""
        one = change.resource
        if change.action in {"delete", "replace"}:
            if one.kind == "queue":
                self._check_unused(one)
            self.ask("DELETE", _path(one))
        if change.action in {"create", "update", "replace"}:
            if one.kind == "binding":
                self.ask("POST", _binding_path(one), dict(one.content))
            else:
                self.ask("PUT", _path(one), dict(one.content))

    def _check_unused(self, one: Resource) -> None:
        """Raise BrokerRefused if a queue is in use. Quorum queues have no condition for their deletion."""
        path = _path(one)
        there = self.ask("GET", path)
        if there.get("consumers", 0):
            raise BrokerRefused("it is not deleted, as somebody listens to it")
        look = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto", "truncate": 1}
        # The figures lag behind by seconds, so they are believed only if they say that something is there.
        if there.get("messages", 0) or self.ask("POST", f"{path}/get", look):
            raise BrokerRefused("it is not deleted, as there are messages in it")


def configured(config: Config, url: str | None = None) -> Management:
    """Return the interface that `url` or plugin `rabbitmqapi` names, else the one at the broker's usual port.

    Raises:
        ConfigError: The settings of the broker are no good.
    """
    from parvis.config import PikaSettings

    api, broker = config.rabbitmqapi, config.pika or PikaSettings()
    login = api or broker
    if url:
        urls = [url]
    elif api:
        urls = [one.strip() for one in api.base_url.split(",") if one.strip()]
    else:
        urls = [f"http://{f'[{host}]' if ':' in host else host}:{_PORT}" for host, _ in broker.hosts]
    return Management(urls, login.username, login.password)


def plan(broker: Management, wanted: Sequence[Resource], *, delete: bool, prune: bool) -> list[Change]:
    """Return what makes the broker what is wanted, in an order in which it can be done.

    Args:
        broker: The broker.
        wanted: What is to be there.
        delete: Delete what is in the way: exchanges and queues that differ.
        prune: Delete what is not wanted, too, of the kinds that `wanted` has; but no virtual hosts, nothing
            that the broker made itself, no temporary queues, and no queues for delays.

    Raises: as `Management.ask`.
    """
    changes: list[Change] = []
    surplus: list[Change] = []
    wanted = list({(one.kind, one.vhost, one.name): one for one in wanted}.values())
    kinds: list[Kind] = [kind for kind in _ORDER if any(one.kind == kind for one in wanted)]
    temporary = _temporary(broker) if prune else set[tuple[str, str]]()
    for kind in kinds:
        present = {(one.vhost, one.name): one for one in broker.present(kind)}
        for one in (one for one in wanted if one.kind == kind):
            changes += _compare(one, present.pop((one.vhost, one.name), None), delete)
        if prune and kind != "vhost":
            surplus = [
                *(
                    Change("delete", one)
                    for one in present.values()
                    if not _is_spared(one, broker.username, temporary)
                ),
                *surplus,
            ]
    return changes + surplus


def _compare(wanted: Resource, present: Resource | None, delete: bool) -> Iterator[Change]:
    if wanted.kind == "user":
        content = user_content(wanted, present.content if present else None)
        wanted = Resource("user", "", wanted.name, content)
    if present is None:
        yield Change("create", wanted)
        return
    if wanted.kind == "binding":
        return  # its name says everything
    detail = "; ".join(_differences(wanted.content, present.content))
    if not detail:
        return
    if wanted.kind in _FIXED:
        yield Change("replace" if delete else "differs", wanted, detail)
    else:
        yield Change("update", wanted, "" if wanted.kind == "user" else detail)


def _differences(wanted: Mapping[str, Any], present: Mapping[str, Any]) -> Iterator[str]:
    for key, value in wanted.items():
        there = present.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            inner = cast("dict[str, Any]", value), cast("dict[str, Any]", there)
            for name in sorted({*inner[0], *inner[1]}):
                if inner[0].get(name) != inner[1].get(name):
                    yield f"{name} is {inner[1].get(name)!r}, wanted is {inner[0].get(name)!r}"
        elif _plain(value) != _plain(there):
            yield f"{key} is {there!r}, wanted is {value!r}"


def _plain(value: Any) -> Any:
    """Lists of words in any order; newer brokers give a list where older give words with commas."""
    if isinstance(value, list):
        return sorted(map(str, cast("list[Any]", value)))
    return value


def _resource(kind: Kind, entry: Mapping[str, Any]) -> Resource:
    vhost = str(entry.get("vhost", "")) if kind not in {"vhost", "user"} else ""
    if kind == "binding":
        made = binding(
            vhost,
            entry["source"],
            entry["destination"],
            entry["routing_key"],
            entry["destination_type"][0],
            entry["arguments"],
        )
        content = {**made.content, "properties_key": entry["properties_key"]}
        return Resource("binding", vhost, made.name, content, made.place)
    content = dict(entry)
    if kind in {"user", "vhost"} and isinstance(content.get("tags"), str):
        content["tags"] = [tag for tag in content["tags"].split(",") if tag]
    return Resource(kind, vhost, str(entry["user" if kind == "permission" else "name"]), content)


def _temporary(broker: Management) -> set[tuple[str, str]]:
    """Queues that end by themselves, as (virtual host, name)."""
    return {
        (one.vhost, one.name)
        for one in broker.present("queue")
        if one.content.get("auto_delete")
        or one.content.get("exclusive")
        or "x-expires" in one.content.get("arguments", {})
    }


def _is_spared(one: Resource, username: str, temporary: set[tuple[str, str]]) -> bool:
    if one.name.startswith(DELAY):
        return True  # nobody can tell whether it is needed
    if one.kind == "binding":
        source, destination, _ = one.place
        return not source or source.startswith("amq.") or (one.vhost, destination) in temporary
    if one.kind == "queue":
        return one.name.startswith("amq.") or (one.vhost, one.name) in temporary
    if one.kind == "exchange":
        return not one.name or one.name.startswith("amq.") or bool(one.content.get("auto_delete"))
    return one.kind in {"user", "permission"} and one.name == username


def _path(one: Resource) -> str:
    if one.kind == "binding":
        return f"{_binding_path(one)}/{_quoted(str(one.content.get('properties_key', '')))}"
    parts = [part for part in (one.vhost, one.name) if part]
    return "/".join([_COLLECTIONS[one.kind], *map(_quoted, parts)])


def _binding_path(one: Resource) -> str:
    source, destination, kind = one.place
    return f"bindings/{_quoted(one.vhost)}/e/{_quoted(source)}/{kind}/{_quoted(destination)}"


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _api(url: str) -> str:
    if urlsplit(url).scheme not in {"http", "https"}:
        raise BrokerRefused(f"the address of the management interface must begin with http, not {url[:60]!r}")
    stripped = url.rstrip("/")
    return stripped if stripped.endswith("/api") else f"{stripped}/api"


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        answer = json.loads(error.read())
        return str(answer.get("reason") or answer.get("error") or error.reason)
    except (ValueError, OSError, AttributeError):
        return str(error.reason)
