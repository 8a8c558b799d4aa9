"""Turns plugin configurations into settings."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from parvis.config import settings
from parvis.config.document import PluginConfiguration, suggestion
from parvis.config.settings import ConfigError

log = logging.getLogger("parvis.config")


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin we know: its settings, keys that must be there although they have a default, keys renamed."""

    settings: type[Any]
    mandatory: tuple[str, ...] = ()
    renamed: Mapping[str, str] | None = None


#: Plugins with a fixed set of keys. `storage` and `logging` take anything and stand apart.
PLUGINS: dict[str, Plugin] = {
    "stomp": Plugin(settings.StompSettings, ("host", "port", "username", "password", "prefix")),
    "pika": Plugin(settings.PikaSettings, ("host", "port", "username", "password", "vhost")),
    "transport": Plugin(settings.TransportSettings),
    "opentelemetry": Plugin(settings.OpenTelemetrySettings),
    "graylog": Plugin(settings.GraylogSettings),
    "jmx": Plugin(settings.JmxSettings),
    "rabbitmqapi": Plugin(settings.RabbitMQAPISettings),
    "slurm": Plugin(settings.SlurmSettings),
    "iris": Plugin(settings.SlurmSettings),
    "smtp": Plugin(settings.SmtpSettings, renamed={"from": "sender"}),
    "ispyb": Plugin(settings.IspybSettings),
}


def parse_settings(configuration: PluginConfiguration) -> Any:
    """Return the settings of a plugin configuration. Keys that the plugin does not know give a warning.

    Raises:
        ConfigError: A key is missing, or has a value of the wrong kind. No value is shown: it may be secret.
    """
    settings = read_settings(configuration)
    for text in unknown_keys(configuration):
        log.warning("%s: %s", _where(configuration), text)
    return settings


def unknown_keys(configuration: PluginConfiguration) -> list[str]:
    """Return what to say of each key that the plugin of a configuration, one of `PLUGINS`, does not know."""
    content = configuration.read()
    own = _own_keys(PLUGINS[content["plugin"]])
    return [
        f"{key!r} is not a key of this plugin{suggestion(key, dict.fromkeys(own))}"
        for key in sorted(content.keys() - own - {"plugin"})
    ]


def read_settings(configuration: PluginConfiguration) -> Any:
    """As `parse_settings`, without a warning."""
    from pydantic import TypeAdapter, ValidationError

    content = configuration.read()
    plugin = PLUGINS[content["plugin"]]
    renamed = plugin.renamed or {}
    where = _where(configuration)
    missing = [key for key in plugin.mandatory if key not in content]
    if missing:
        texts = [f"{where}: {', '.join(missing)} missing", *unknown_keys(configuration)]
        raise ConfigError("; ".join(texts))
    own = _own_keys(plugin)
    values = {renamed.get(key, key): value for key, value in content.items() if key in own}
    try:
        return TypeAdapter(plugin.settings).validate_python(values)
    except ValidationError as error:
        back = {ours: theirs for theirs, ours in renamed.items()}
        problems = [
            f"{back.get(_key(e['loc']), _key(e['loc']))}: {_say(e['type'], e['msg'])}" for e in error.errors()
        ]
        raise ConfigError(f"{where}: {'; '.join(problems)}".replace(": : ", ": ")) from None


def _own_keys(plugin: Plugin) -> set[str]:
    renamed = plugin.renamed or {}
    return {field.name for field in fields(plugin.settings)} - set(renamed.values()) | set(renamed)


def _where(configuration: PluginConfiguration) -> str:
    return f"{configuration.file}: {configuration.name} (plugin {configuration.read()['plugin']})"


def _key(location: tuple[int | str, ...]) -> str:
    return str(location[0]) if location else ""


def _say(kind: str, message: str) -> str:
    match kind:
        case "missing":
            return "missing"
        case "string_type":
            return "must be text; put quotes around it"
        case "int_parsing" | "int_type" | "int_from_float":
            return "must be a whole number"
        case _:
            return message.removeprefix("Value error, ")


def activate_foreign(configuration: PluginConfiguration, config: Any) -> Any:
    """Activate a plugin of somebody else's, found in the entry point group `zocalo.configuration.plugins`.

    Such a plugin is a class with a static method `activate`, which is given those of the arguments
    `configuration` and `config_object` that it names. Its attribute `Schema`, if any, checks and converts
    the configuration first.

    Raises:
        ConfigError: The plugin failed.
    """
    import inspect
    from importlib.metadata import entry_points

    content = configuration.read()
    name = str(content["plugin"])
    where = f"{configuration.file}: {configuration.name} (plugin {name})"
    try:
        plugin: Any = next(iter(entry_points(group="zocalo.configuration.plugins", name=name))).load()
        schema = getattr(plugin, "Schema", None)
        loaded = schema().load(content) if schema else content
        arguments = {"configuration": loaded, "config_object": config}
        names = inspect.signature(plugin.activate).parameters
        return plugin.activate(**{key: value for key, value in arguments.items() if key in names})
    except Exception as error:
        raise ConfigError(f"{where}: the plugin failed: {type(error).__name__}") from error
