"""Reads a configuration file: what it includes, its plugin configurations, its environments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from parvis.config.settings import ConfigError

_RESERVED = {"version", "environments", "include"}


@dataclass(slots=True)
class PluginConfiguration:
    """One plugin configuration: what it is called, where it stands, and what it says.

    `content` is None while it stands in a file of its own (`file`) that has not been read.
    """

    name: str
    file: Path
    content: dict[str, Any] | None

    def read(self) -> dict[str, Any]:
        """Return what it says, reading its file if it has one.

        Raises:
            ConfigError: The file cannot be read, or is no plugin configuration.
        """
        if self.content is None:
            content = _read_yaml(self.file, f"plugin configuration {self.name!r}")
            self.content = check_plugin(self.name, self.file, content)
        return self.content


@dataclass(slots=True)
class Document:
    """A configuration file with everything it includes."""

    file: Path
    plugins: dict[str, PluginConfiguration] = field(default_factory=dict[str, PluginConfiguration])
    environments: dict[str, Any] = field(default_factory=dict[str, Any])

    def names_in(self, environment: str) -> list[str]:
        """Return the names of the plugin configurations of an environment, in order of activation.

        Raises:
            ConfigError: There is no such environment, or it is malformed.
        """
        followed: list[str] = []
        name = environment
        while True:
            if name in followed:
                raise self.error(
                    f"environment {environment!r} is an alias of itself: {' -> '.join(followed)}"
                )
            followed.append(name)
            if name not in self.environments:
                raise self.error(self._no_such_environment(name, followed))
            definition = self.environments[name]
            if not isinstance(definition, str):
                break
            name = definition
        names = _flatten(definition)
        if names is None:
            raise self.error(
                f"environment {name!r} must be the name of another one, a list of plugin configurations, "
                "or groups of them"
            )
        for entry in names:
            if entry not in self.plugins:
                raise self.error(
                    f"environment {name!r} names the plugin configuration {entry!r}, "
                    f"which is not there{suggestion(entry, self.plugins)}"
                )
        return names

    def error(self, text: str) -> ConfigError:
        """Return an error about this file."""
        return ConfigError(f"{self.file}: {text}")

    def _no_such_environment(self, name: str, followed: list[str]) -> str:
        alias = f" (alias {followed[-2]!r})" if len(followed) > 1 else ""
        known = ", ".join(sorted(self.environments)) or "none"
        hint = suggestion(name, self.environments)
        return f"environment {name!r} is not defined{alias}{hint}; there are: {known}"


def read_document(file: Path) -> Document:
    """Read a configuration file and what it includes.

    What a file says itself counts more than what it includes, and a later include more than an earlier.

    Raises:
        ConfigError: A file cannot be read or is malformed.
    """
    return _read(file, ())


def _read(file: Path, above: tuple[Path, ...]) -> Document:
    resolved = file.expanduser().resolve()
    if resolved in above:
        raise ConfigError(f"{file}: include: the file includes itself, through {above[-1]}")
    content = _read_yaml(file, "configuration")
    document = Document(file)
    if not isinstance(content, dict):
        raise document.error("a configuration is a mapping that starts with 'version: 1'")
    content = cast("dict[Any, Any]", content)
    version = content.get("version")
    if version is True or version != 1:
        raise document.error(
            "'version: 1' is missing" if version is None else f"version {version!r} is not known, only 1 is"
        )
    for entry in _includes(document, content.get("include")):
        included = _read(_beside(file, entry), (*above, resolved))
        document.plugins |= included.plugins
        document.environments |= included.environments
    document.environments |= _environments(document, content.get("environments"))
    for name, value in content.items():
        if name not in _RESERVED:
            document.plugins[str(name)] = _plugin(document, str(name), value)
    return document


def _includes(document: Document, value: Any) -> list[str]:
    if value is None:
        return []
    names = _names(value)
    if names is None:
        raise document.error("include must be a file name or a list of file names")
    return names


def _environments(document: Document, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise document.error("environments must map the name of each environment to what is in it")
    return {str(name): definition for name, definition in cast("dict[Any, Any]", value).items()}


def _plugin(document: Document, name: str, value: Any) -> PluginConfiguration:
    if isinstance(value, str):
        return PluginConfiguration(name, _beside(document.file, value), None)
    return PluginConfiguration(name, document.file, check_plugin(name, document.file, value))


def check_plugin(name: str, file: Path, value: Any) -> dict[str, Any]:
    """Return a plugin configuration as a mapping.

    Raises:
        ConfigError: It is none, or does not say which plugin it is for.
    """
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: {name}: must be a plugin configuration or the name of a file with one")
    content = {str(key): entry for key, entry in cast("dict[Any, Any]", value).items()}
    if not isinstance(content.get("plugin"), str):
        hint = suggestion(name, dict.fromkeys(_RESERVED))
        raise ConfigError(f"{file}: {name}: says not which plugin it is for: add 'plugin: NAME'{hint}")
    return content


def _flatten(definition: Any) -> list[str] | None:
    """Return what an environment consists of, each once: groups by name, the group `plugins` last."""
    if isinstance(definition, dict):
        groups = cast("dict[Any, Any]", definition)
        ordered = [groups[name] for name in sorted(groups, key=lambda name: (name == "plugins", str(name)))]
    else:
        ordered = [definition]
    names: dict[str, None] = {}
    for group in ordered:
        entries = _names(group)
        if entries is None:
            return None
        names |= dict.fromkeys(entries)
    return list(names)


def _names(value: Any) -> list[str] | None:
    """Return a name or a list of names as a list, or None if the value is neither."""
    entries: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
    return entries if all(isinstance(entry, str) for entry in entries) else None


def _beside(file: Path, name: str) -> Path:
    return file.parent / Path(name).expanduser()


def _read_yaml(file: Path, what: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{what}: there is no file {file}") from None
    except OSError as error:
        raise ConfigError(f"{what}: cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{what}: {file} is not text in UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "malformed"
        raise ConfigError(f"{file}: {line}not YAML: {problem}") from None


def suggestion(name: str, known: Mapping[str, Any]) -> str:
    """Return `; did you mean ...?` if `known` has a name like `name`, else nothing."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
