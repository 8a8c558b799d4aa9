"""What is in force, without its secrets, and where each value comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from parvis.config import FALLBACK_LOCATION, RECIPE_DIRECTORY, STATE_DIRECTORY, Config, PikaSettings
from parvis.config.document import read_document
from parvis.config.secret import masked
from parvis.config.variables import MEANINGS

_DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class Setting:
    """A value that is in force.

    Attributes:
        name: The plugin and its key, such as `stomp.host`; of a storage, the key alone.
        value: The value; `***` for what is secret.
        source: Where it comes from: a file and its plugin configuration, a variable, an option, or `default`.
    """

    name: str
    value: Any
    source: str


def settings_in_force(config: Config, flags: Mapping[str, str]) -> list[Setting]:
    """Return all settings, by name.

    Args:
        config: The configuration.
        flags: By the variable that an option stands for, the option.

    Raises:
        ConfigError: The file cannot be read any more, or the settings of the broker are no good.
    """
    found = {setting.name: setting for setting in _defaults(config)} | _of_file(config)
    for variable, value in config.overrides.items():
        name = MEANINGS.get(variable, variable)
        source = f"option {flags[variable]}" if variable in flags else f"variable {variable}"
        found[name] = Setting(name, value, source)
    return [
        Setting(one.name, masked(one.name, one.value), one.source)
        for one in sorted(found.values(), key=lambda setting: setting.name)
    ]


def _defaults(config: Config) -> list[Setting]:
    broker = config.broker
    plugin = "pika" if isinstance(broker, PikaSettings) else "stomp"
    standard = type(broker)()
    settings = [
        Setting(f"{plugin}.{field.name}", getattr(standard, field.name), _DEFAULT)
        for field in fields(standard)
    ]
    places = {
        RECIPE_DIRECTORY: config.recipe_directory,
        FALLBACK_LOCATION: config.fallback_location,
        STATE_DIRECTORY: config.state_directory,
    }
    return settings + [Setting(name, str(place), _DEFAULT) for name, place in places.items()]


def _of_file(config: Config) -> dict[str, Setting]:
    if config.path is None:
        return {}
    document = read_document(config.path)
    found: dict[str, Setting] = {}
    for environment in config.environments:
        for name in document.names_in(environment):
            configuration = document.plugins[name]
            content = configuration.read()
            plugin = str(content["plugin"])
            source = f"{configuration.file} ({name})"
            if plugin == "storage":
                prefix = ""
            else:  # the last of a kind counts, as a whole
                prefix = f"{plugin}."
                found = {key: one for key, one in found.items() if not key.startswith(prefix)}
            for key, value in content.items():
                if key != "plugin":
                    found[f"{prefix}{key}"] = Setting(f"{prefix}{key}", value, source)
    return found
