"""Looks at a whole configuration file and says all that is wrong with it, where loading stops at once."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from parvis.config import Config, ConfigError, default_environments
from parvis.config.document import Document, PluginConfiguration, read_document, suggestion
from parvis.config.plugins import PLUGINS, read_settings, unknown_keys
from parvis.config.secret import holds_secret
from parvis.config.storage_keys import KEYS, misfit
from parvis.config.variables import ENVIRONMENT_VARIABLE, VARIABLES

Level = Literal["error", "warning", "note"]

_ORDER: Final[tuple[Level, ...]] = ("error", "warning", "note")
_RESOLVE_TIMEOUT: Final = 5.0
_OPEN: Final = {"storage": None, "logging": None}  # plugins whose keys are not ours to know
_OURS: Final = "PARVIS_"
_OTHER_VARIABLES: Final = (
    ENVIRONMENT_VARIABLE,
    "PARVIS_BROKER_PASSCODE",
    "PARVIS_DEBUG",
    "PARVIS_SUPERVISOR",
)
_CREDENTIALS: Final = "ISPYB_CREDENTIALS"
_FILE_KEYS: Final = ("tls_ca", "user_token")
_URL_KEYS: Final = ("url", "base_url")


@dataclass(frozen=True, slots=True)
class Remark:
    """Something to say about a configuration.

    Attributes:
        level: `error`: commands refuse it, or it cannot work. `warning`: somebody should look. `note`: there
            is nothing to do.
        where: File and plugin configuration.
        message: What, and what to do about it. Holds no secret.
    """

    level: Level
    where: str
    message: str


@dataclass(frozen=True, slots=True)
class PluginFacts:
    """A plugin configuration: its name, its plugin, its file, and whether an environment in force has it."""

    name: str
    plugin: str
    file: Path
    in_force: bool


@dataclass(slots=True)
class Examination:
    """What there is in a configuration, and what there is to say about it.

    Attributes:
        path: The file; None if there is none.
        environments: What each consists of: names of plugin configurations.
        in_force: The environments in force.
        plugins: All plugin configurations that can be read.
        storage: The keys of the storage that are in force.
        remarks: What there is to say, the worst first.
    """

    path: Path | None
    environments: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    in_force: tuple[str, ...] = ()
    plugins: list[PluginFacts] = field(default_factory=list[PluginFacts])
    storage: list[str] = field(default_factory=list[str])
    remarks: list[Remark] = field(default_factory=list[Remark])

    @property
    def has_errors(self) -> bool:
        """Whether anything is an error."""
        return any(remark.level == "error" for remark in self.remarks)


def examine(
    path: Path | None, environments: Sequence[str] = (), overrides: Mapping[str, str] | None = None
) -> Examination:
    """Look at a configuration.

    Args:
        path: The file, or None if there is none: then the defaults and `overrides` are looked at.
        environments, overrides: As of `Config.load`.
    """
    found = Examination(path)
    if path is not None:
        try:
            document = read_document(path)
        except ConfigError as error:
            _say(found, "error", "", str(error))
            return found
        _look_at_environments(found, document, environments)
        _look_at_plugins(found, document)
        _look_at_files(found, document)
    _look_at_variables(found)
    _look_at_whole(found, environments, overrides)
    found.remarks.sort(key=lambda remark: _ORDER.index(remark.level))
    return found


def _say(found: Examination, level: Level, where: str, message: str) -> None:
    found.remarks.append(Remark(level, where, message))


def _look_at_environments(found: Examination, document: Document, asked: Sequence[str]) -> None:
    chosen = tuple(asked) or default_environments(document.environments)
    for name in (*document.environments, *(one for one in chosen if one not in document.environments)):
        try:
            found.environments[name] = document.names_in(name)
        except ConfigError as error:
            _say(found, "error", "environments", _without(str(error), document.file))
    found.in_force = tuple(name for name in chosen if name in found.environments)
    if not chosen:
        known = ", ".join(document.environments) or "none"
        text = f"no environment is in force (there are: {known}): name one with -e, or add 'default'"
        _say(found, "warning", "environments", text)
    used = {name for names in found.environments.values() for name in names}
    for name in document.plugins:
        if name not in used:
            hint = suggestion(name, {"environments": None, "include": None})
            _say(found, "warning" if hint else "note", name, f"it is in no environment{hint}")


def _look_at_plugins(found: Examination, document: Document) -> None:
    in_force = {name for environment in found.in_force for name in found.environments[environment]}
    for name, configuration in document.plugins.items():
        try:
            content = configuration.read()
        except ConfigError as error:
            level: Level = "error" if name in in_force else "warning"
            _say(found, level, name, _without(str(error), document.file))
            continue
        plugin = str(content["plugin"])
        found.plugins.append(PluginFacts(name, plugin, configuration.file, name in in_force))
        if plugin == "storage":
            _look_at_storage(found, configuration)
        elif plugin in PLUGINS:
            _look_at_settings(found, configuration)
        elif plugin not in _OPEN:
            _look_at_foreign(found, configuration, plugin)


def _look_at_settings(found: Examination, configuration: PluginConfiguration) -> None:
    name = configuration.name
    try:
        read_settings(configuration)
    except ConfigError as error:
        plugin = configuration.read()["plugin"]
        text = str(error).removeprefix(f"{configuration.file}: {name} (plugin {plugin}): ")
        _say(found, "error", name, text)
    else:
        for text in unknown_keys(configuration):
            _say(found, "warning", name, text)


def _look_at_foreign(found: Examination, configuration: PluginConfiguration, plugin: str) -> None:
    from importlib.metadata import entry_points

    name = configuration.name
    installed = next(iter(entry_points(group="zocalo.configuration.plugins", name=plugin)), None)
    if installed is not None:
        package = f" of the package {installed.dist.name}" if installed.dist is not None else ""
        _say(found, "note", name, f"plugin {plugin!r}{package} is not ours; it is not looked into")
    elif hint := suggestion(plugin, {**PLUGINS, **_OPEN}):
        _say(found, "error", name, f"there is no plugin {plugin!r}{hint}")
    else:
        text = f"plugin {plugin!r} is not ours and not installed here: it counts for whoever has it"
        _say(found, "note", name, text)


def _look_at_storage(found: Examination, configuration: PluginConfiguration) -> None:
    name = configuration.name
    for key, value in configuration.read().items():
        if key in KEYS:
            if text := misfit(key, value):
                _say(found, "error", name, f"{key} {text}")
            elif KEYS[key] == "directory" and value and not Path(str(value)).expanduser().is_dir():
                _say(found, "warning", name, f"{key}: there is no directory {value}")
        elif key.startswith("parvis."):
            _say(found, "warning", name, f"Parvis knows no key {key!r}{suggestion(key, KEYS)}")
        elif key != "plugin" and (hint := suggestion(key, KEYS)):
            _say(found, "note", name, f"Parvis does not read {key!r}{hint}")


def _look_at_files(found: Examination, document: Document) -> None:
    secret: dict[Path, list[str]] = {}
    for name, configuration in document.plugins.items():
        content = configuration.content
        if content is None:
            continue
        if any(holds_secret(key, value) for key, value in content.items()):
            secret.setdefault(configuration.file, []).append(name)
        for key in _FILE_KEYS:
            _look_at_named_file(found, name, key, content.get(key))
    for file, names in secret.items():
        if _is_open(file):
            text = f"everybody may read {file}, which holds secrets ({', '.join(names)}): chmod o-rwx {file}"
            _say(found, "warning", "", text)


def _look_at_variables(found: Examination) -> None:
    known = {name.removeprefix(_OURS): None for name in (*VARIABLES, *_OTHER_VARIABLES)}
    for name in sorted(os.environ):
        rest = name.removeprefix(_OURS)
        if rest != name and rest not in known and (close := get_close_matches(rest, known, n=1, cutoff=0.75)):
            text = f"Parvis knows no variable {name}; did you mean {_OURS}{close[0]}?"
            _say(found, "warning", "variables", text)
    _look_at_file(found, "variables", _CREDENTIALS, os.environ.get(_CREDENTIALS), is_secret=True)


def _look_at_named_file(found: Examination, name: str, key: str, value: Any) -> None:
    if isinstance(value, str) and value.startswith(("/", "~")):
        _look_at_file(found, name, key, value, is_secret=key == "user_token")


def _look_at_file(found: Examination, where: str, key: str, name: str | None, *, is_secret: bool) -> None:
    if not name:
        return
    file = Path(name).expanduser()
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        _say(found, "error", where, f"{key}: {file} cannot be read: {error.strerror}")
    else:
        if is_secret and _is_open(file):
            _say(found, "warning", where, f"{key}: everybody may read {file}: chmod o-rwx {file}")


def _is_open(file: Path) -> bool:
    try:
        return bool(file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH))
    except OSError:
        return False


def _look_at_whole(
    found: Examination, environments: Sequence[str], overrides: Mapping[str, str] | None
) -> None:
    """What only shows when all is put together: whether it loads, and whether the hosts exist."""
    try:
        with _quietly():  # what is logged here was said above
            config = Config.load(found.path, environments, overrides)
        hosts = list(_hosts(config))
    except ConfigError as error:
        if not found.has_errors:
            _say(found, "error", "", str(error))
        return
    found.storage = sorted(config.storage)
    for (where, host), problem in zip(hosts, unresolved([host for _, host in hosts]), strict=True):
        if problem:
            _say(found, "error", where, f"the host {host!r} {problem}")


@contextlib.contextmanager
def _quietly() -> Generator[None]:
    log = logging.getLogger("parvis.config")

    def nothing(_record: logging.LogRecord) -> bool:
        return False

    log.addFilter(nothing)
    try:
        yield
    finally:
        log.removeFilter(nothing)


def _hosts(config: Config) -> Iterator[tuple[str, str]]:
    """Each host that the configuration names, and where."""
    for host, _ in config.broker.hosts:
        yield "broker", host
    for name in ("graylog", "smtp", "jmx", "opentelemetry"):
        settings = getattr(config, name)
        if settings is not None:
            yield name, settings.host
    for name in ("slurm", "iris", "rabbitmqapi"):
        settings = getattr(config, name)
        for key in _URL_KEYS if settings is not None else ():
            for url in str(getattr(settings, key, "")).split(","):
                yield from _host_of(name, url)
    yield from _host_of("ispyb", config.ispyb_url or "")
    yield from _host_of("parvis.graylog.url", str(config.storage.get("parvis.graylog.url") or ""))


def _host_of(where: str, url: str) -> Iterator[tuple[str, str]]:
    try:
        host = urlsplit(url.strip()).hostname
    except ValueError:
        host = None
    if host:
        yield where, host


def unresolved(hosts: Sequence[str]) -> list[str]:
    """Say of each host what is wrong with its name; nothing if it has an address."""
    answers: SimpleQueue[tuple[str, str]] = SimpleQueue()

    def resolve(host: str) -> None:
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError):
            answers.put((host, "does not resolve: there is no such name"))
        else:
            answers.put((host, ""))

    waiting = set(hosts)
    for host in waiting:
        threading.Thread(target=resolve, args=(host,), daemon=True).start()
    known: dict[str, str] = {}
    deadline = time.monotonic() + _RESOLVE_TIMEOUT
    while len(known) < len(waiting):
        try:
            host, problem = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            break
        known[host] = problem
    return [known.get(host, f"was not resolved within {_RESOLVE_TIMEOUT:g} s") for host in hosts]


def _without(text: str, file: Path) -> str:
    return text.removeprefix(f"{file}: ")
