"""What is to be on a RabbitMQ: virtual hosts, users, permissions, policies, exchanges, queues, bindings.

It comes from a file in the format of `zocalo.configure_rabbitmq`, or from the contracts of services.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, cast

from parvis.transport.amqp_messages import (
    DEAD,
    DISPOSABLE_ARGUMENTS,
    delay_arguments,
    delay_milliseconds,
    delay_name,
    queue_arguments,
)

Kind = Literal["vhost", "user", "permission", "exchange", "queue", "binding", "policy"]

BROADCASTS: Final = ("command", "transient.log", "transient.parvis.flow", "transient.status")
STANDARD_DELAYS: Final = (1, 2, 4, 8, 10, 16, 30, 32, 60, 64, 128, 256, 300)
"""Seconds: what a host waits between attempts, and what people ask for."""

_HASHING: Final = "rabbit_password_hashing_sha256"
_SECTIONS: Final = ("vhosts", "permissions", "policies", "exchanges", "bindings", "groups")


class LayoutError(Exception):
    """A file that says what is to be on a broker is malformed; the text says where."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Resource:
    """Something on the broker.

    Attributes:
        kind: What it is.
        vhost: Its virtual host; empty for what belongs to none.
        name: Its name; of a permission the user.
        content: What the management interface is told about it.
        place: Of a binding its source, destination and type of destination (`q` or `e`).
    """

    kind: Kind
    vhost: str
    name: str
    content: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    place: tuple[str, str, str] = ("", "", "")


def queue(vhost: str, name: str, arguments: Mapping[str, Any]) -> Resource:
    """A durable queue."""
    return Resource("queue", vhost, name, {"durable": True, "auto_delete": False, "arguments": arguments})


def exchange(vhost: str, name: str, kind: str) -> Resource:
    """A durable exchange of a type."""
    content: dict[str, Any] = {
        "type": kind,
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {},
    }
    return Resource("exchange", vhost, name, content)


def binding(
    vhost: str,
    source: str,
    destination: str,
    routing_key: str,
    kind: str = "q",
    arguments: Mapping[str, Any] | None = None,
) -> Resource:
    """What leads from an exchange to a queue (`q`) or another exchange (`e`)."""
    name = f"{source} -> {destination}" + (f" [{routing_key}]" if routing_key != destination else "")
    content = {"routing_key": routing_key, "arguments": dict(arguments or {})}
    return Resource("binding", vhost, name, content, (source, destination, kind))


def for_services(
    vhost: str,
    queues: Mapping[str, bool],
    priority_queues: Iterable[str] = (),
    disposable_queues: Iterable[str] = (),
) -> list[Resource]:
    """What services need.

    Args:
        vhost: Where.
        queues: Name of each queue, and whether only one consumer at a time gets its messages.
        priority_queues: Those that are to deliver by priority: classic queues, as quorum queues cannot.
        disposable_queues: Those whose messages are dropped when they are too late.
    """
    wanted = [exchange(vhost, name, "fanout") for name in BROADCASTS]
    wanted += [queue(vhost, name, DISPOSABLE_ARGUMENTS) for name in disposable_queues]
    by_priority = set(priority_queues)
    for name, exclusive in {**dict.fromkeys(by_priority, False), **queues}.items():
        arguments = queue_arguments(name, exclusive=exclusive)
        if name in by_priority:
            for argument in ("x-delivery-limit", "x-dead-letter-strategy", "x-overflow"):
                del arguments[argument]
            arguments |= {"x-queue-type": "classic", "x-max-priority": 9}
        wanted += [queue(vhost, name, arguments), queue(vhost, f"{DEAD}{name}", queue_arguments(DEAD))]
    for seconds in STANDARD_DELAYS:
        milliseconds = delay_milliseconds(seconds)
        name = delay_name(milliseconds)
        wanted += [
            exchange(vhost, name, "fanout"),
            queue(vhost, name, delay_arguments(milliseconds)),
            binding(vhost, name, name, ""),
        ]
    return wanted


def read_layout(file: Path) -> list[Resource]:
    """Read a file in the format of `zocalo.configure_rabbitmq`.

    Raises:
        LayoutError: It cannot be read or is malformed.
    """
    import yaml

    try:
        content: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise LayoutError(f"cannot read {file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LayoutError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not set(_SECTIONS) & set(cast("dict[Any, Any]", content)):
        raise LayoutError(f"{file} must be a mapping with some of {', '.join(_SECTIONS)}")
    sections = {
        name: [_Entry(file, f"{name}[{index}]", entry) for index, entry in enumerate(entries)]
        for name, entries in _lists(file, cast("dict[str, Any]", content))
    }
    wanted = [_vhost(entry) for entry in sections["vhosts"]]
    wanted += [_permission(entry) for entry in sections["permissions"]]
    wanted += [_policy(entry) for entry in sections["policies"]]
    wanted += [_exchange(entry) for entry in sections["exchanges"]]
    wanted += [_binding(entry) for entry in sections["bindings"]]
    for entry in sections["groups"]:
        wanted += _group(entry)
    _check_unique(file, wanted)
    return wanted


def read_users(directory: Path) -> list[Resource]:
    """Read users from the files `*.ini` in a directory: section `rabbitmq`, `username`, `password`, `tags`.

    Raises:
        LayoutError: A file is malformed, or two name the same user. No password is shown.
    """
    users: dict[str, Resource] = {}
    for file in sorted(directory.glob("**/*.ini")):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(file.read_text(encoding="utf-8"))
            section = parser["rabbitmq"]
            name, password = section["username"], section["password"]
        except (OSError, configparser.Error, UnicodeDecodeError, KeyError):
            raise LayoutError(f"{file} must have a section [rabbitmq] with username and password") from None
        if not name or not password:
            raise LayoutError(f"{file}: username and password must not be empty")
        if name in users:
            raise LayoutError(f"{file}: user {name} is named by another file, too")
        tags = [tag.strip() for tag in section.get("tags", "").split(",") if tag.strip()]
        users[name] = Resource("user", "", name, {"password": password, "tags": tags})
    return list(users.values())


def password_hash(password: str, like: str = "") -> str:
    """Return the hash by which RabbitMQ knows a password; with the salt of another hash, `like`."""
    salt = base64.b64decode(like)[:4] if like else secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def user_content(user: Resource, present: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the management interface is told about a user: the hash that is there, if it is the password's."""
    password, known = str(user.content["password"]), str((present or {}).get("password_hash") or "")
    made = password_hash(password, known)
    kept = known if known and hmac.compare_digest(made, known) else password_hash(password)
    return {"password_hash": kept, "hashing_algorithm": _HASHING, "tags": user.content["tags"]}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A mapping in the file, and where it stands."""

    file: Path
    where: str
    content: Any

    def __post_init__(self) -> None:
        if not isinstance(self.content, dict):
            raise LayoutError(f"{self.file}: {self.where} must be a mapping")

    def get(self, key: str, kind: type[Any], default: Any = None) -> Any:
        """Return a value of a kind; without a default, it must be there."""
        value = self.content.get(key, default)
        if value is None:
            raise LayoutError(f"{self.file}: {self.where}: {key} is missing")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise LayoutError(f"{self.file}: {self.where}: {key} must be of type {kind.__name__}")
        return value

    def inner(self, key: str) -> _Entry:
        """Return the mapping that stands under a key, empty if there is none."""
        return _Entry(self.file, f"{self.where}.{key}", self.content.get(key) or {})

    def names(self, key: str, default: list[str] | None = None) -> list[str]:
        values = self.get(key, list, default)
        if not all(isinstance(value, str) for value in values):
            raise LayoutError(f"{self.file}: {self.where}: {key} must be a list of names")
        return values


def _lists(file: Path, content: Mapping[str, Any]) -> Iterable[tuple[str, list[Any]]]:
    for name in _SECTIONS:
        entries: Any = content.get(name) or []
        if not isinstance(entries, list):
            raise LayoutError(f"{file}: {name} must be a list")
        yield name, cast("list[Any]", entries)


def _vhost(entry: _Entry) -> Resource:
    content = {
        "description": entry.get("description", str, ""),
        "tags": entry.names("tags", []),
        "tracing": entry.get("tracing", bool, False),
    }
    return Resource("vhost", "", entry.get("name", str), content)


def _permission(entry: _Entry) -> Resource:
    rights = {right: entry.get(right, str) for right in ("configure", "write", "read")}
    return Resource("permission", entry.get("vhost", str), entry.get("user", str), rights)


def _policy(entry: _Entry) -> Resource:
    content = {
        "pattern": entry.get("pattern", str, "^amq."),
        "definition": entry.get("definition", dict, {}),
        "priority": entry.get("priority", int, 0),
        "apply-to": entry.get("apply-to", str, "queues"),
    }
    return Resource("policy", entry.get("vhost", str, "/"), entry.get("name", str), content)


def _exchange(entry: _Entry) -> Resource:
    content = {
        "type": entry.get("type", str),
        "durable": entry.get("durable", bool, False),
        "auto_delete": entry.get("auto_delete", bool, False),
        "internal": entry.get("internal", bool, False),
        "arguments": entry.get("arguments", dict, {}),
    }
    return Resource("exchange", entry.get("vhost", str), entry.get("name", str), content)


def _binding(entry: _Entry) -> Resource:
    destination = entry.get("destination", str)
    kind = entry.get("destination_type", str, "q")
    if kind not in {"q", "e", "queue", "exchange"}:
        raise LayoutError(f"{entry.file}: {entry.where}: destination_type must be q or e")
    return binding(
        entry.get("vhost", str),
        entry.get("source", str),
        destination,
        entry.get("routing_key", str, destination),
        kind[0],
        entry.get("arguments", dict, {}),
    )


def _group(entry: _Entry) -> list[Resource]:
    """Queues that are alike, with their dead-letter queues and bindings; or the exchanges of broadcasts."""
    vhost, names, settings = entry.get("vhost", str, "/"), entry.names("names"), entry.inner("settings")
    if settings.get("broadcast", bool, False):
        return [exchange(vhost, name, "fanout") for name in names]
    of_queues = settings.inner("queues")
    kind = of_queues.get("type", str, "classic")
    pattern = of_queues.get("dead-letter-routing-key-pattern", str, "")
    arguments: dict[str, Any] = {"x-queue-type": kind}
    if kind != "stream":
        arguments["x-single-active-consumer"] = settings.get("single_active_consumer", bool, False)
    wanted: list[Resource] = []
    for name in names:
        own = dict(arguments)
        if pattern:
            dead = pattern.replace("{name}", name)
            own["x-dead-letter-exchange"] = of_queues.get("dead-letter-exchange", str, "")
            own["x-dead-letter-routing-key"] = dead
            if of_queues.get("dead-letter-queue-create", bool, True):
                wanted.append(queue(vhost, dead, {"x-queue-type": kind}))
        wanted.append(queue(vhost, name, own))
        wanted += [
            binding(vhost, source, name, name) for source in entry.names("bindings", [""]) if source
        ]  # the default exchange leads to every queue by itself
    return wanted


def _check_unique(file: Path, wanted: Iterable[Resource]) -> None:
    seen: set[tuple[str, str, str]] = set()
    for one in wanted:
        key = (one.kind, one.vhost, one.name)
        if key in seen:
            raise LayoutError(f"{file}: {one.kind} {one.name} is named twice")
        seen.add(key)
