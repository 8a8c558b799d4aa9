"""The configuration: the file that `ZOCALO_CONFIG` names, `PARVIS_*` variables, command line options.

An option counts more than a variable, a variable more than the file, the file more than a default.
`docs/reference/configuration.md` lists everything.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from parvis.config.settings import (
    ConfigError,
    GraylogSettings,
    JmxSettings,
    OpenTelemetrySettings,
    PikaSettings,
    RabbitMQAPISettings,
    SlurmSettings,
    SmtpSettings,
    StompSettings,
)

if TYPE_CHECKING:
    from parvis.config.document import PluginConfiguration
    from parvis.transport.base import Transport

__all__ = [
    "Config",
    "ConfigError",
    "GraylogSettings",
    "JmxSettings",
    "OpenTelemetrySettings",
    "PikaSettings",
    "RabbitMQAPISettings",
    "SlurmSettings",
    "SmtpSettings",
    "StompSettings",
]

log = logging.getLogger("parvis.config")

RECIPE_DIRECTORY = "zocalo.recipe_directory"
FALLBACK_LOCATION = "zocalo.go.fallback_location"
LOGBOOK_LOCATION = "zocalo.dispatcher.logbook_location"

_STOMP_VARIABLES = {
    "PARVIS_STOMP_HOST": "host",
    "PARVIS_STOMP_PORT": "port",
    "PARVIS_STOMP_USERNAME": "username",
    "PARVIS_STOMP_PASSWORD": "password",
    "PARVIS_STOMP_PREFIX": "prefix",
}
_STORAGE_VARIABLES = {
    "PARVIS_RECIPE_DIRECTORY": RECIPE_DIRECTORY,
    "PARVIS_FALLBACK_LOCATION": FALLBACK_LOCATION,
    "PARVIS_LOGBOOK_LOCATION": LOGBOOK_LOCATION,
}
_ISPYB_VARIABLE = "PARVIS_ISPYB_URL"
_ENVIRONMENT_VARIABLE = "PARVIS_ENVIRONMENT"

#: Variables that change the configuration.
VARIABLES = (*_STOMP_VARIABLES, *_STORAGE_VARIABLES, _ISPYB_VARIABLE)


@dataclass(frozen=True)
class Config:
    """Everything that is configured. `Config()` is what holds without a file.

    Attributes:
        path: The file it came from, or None.
        environments: Names of the environments in force.
        stomp: The STOMP broker.
        storage: All `storage` plugin configurations, merged.
        ispyb_url: Address of the metadata database for SQLAlchemy, or None.
        logging: What plugin `logging` says, to be given to `logging.config.dictConfig`, or None.
        transport_default: Name of the transport to use where none is named, or None.
        pika, graylog, jmx, rabbitmqapi, slurm, iris, smtp, opentelemetry: What the plugin of that name says,
            or None.
        foreign: Configurations of installed plugins that are not ours, by name of the configuration.
        overrides: The `PARVIS_*` variables (and options, in that form) that hold.
    """

    path: Path | None = None
    environments: tuple[str, ...] = ()
    stomp: StompSettings = field(default_factory=StompSettings)
    storage: dict[str, Any] = field(default_factory=dict[str, Any])
    ispyb_url: str | None = field(default=None, repr=False)
    logging: dict[str, Any] | None = field(default=None, repr=False)
    transport_default: str | None = None
    pika: PikaSettings | None = None
    graylog: GraylogSettings | None = None
    jmx: JmxSettings | None = None
    rabbitmqapi: RabbitMQAPISettings | None = None
    slurm: SlurmSettings | None = None
    iris: SlurmSettings | None = None
    smtp: SmtpSettings | None = None
    opentelemetry: OpenTelemetrySettings | None = None
    foreign: dict[str, PluginConfiguration] = field(
        default_factory=dict[str, "PluginConfiguration"], repr=False
    )
    overrides: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        environments: Sequence[str] = (),
        overrides: Mapping[str, str] | None = None,
    ) -> Config:
        """Read the configuration.

        Args:
            path: The file; by default the one that `ZOCALO_CONFIG` names, and none if it names none.
            environments: Environments to activate, in order; by default those that `PARVIS_ENVIRONMENT`
                names, else the one that `ZOCALO_DEFAULT_ENV` names, else `default` if the file has it.
            overrides: What command line options say, in the form of `PARVIS_*` variables.

        Raises:
            ConfigError: A file cannot be read or is malformed, or there is no such environment.
        """
        if path is None and os.environ.get("ZOCALO_CONFIG"):
            path = Path(os.environ["ZOCALO_CONFIG"])
        held = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)} | dict(overrides or {})
        if path is None:
            if environments:
                raise ConfigError(
                    f"environment {environments[0]!r} is not defined: there is no configuration file; "
                    "set ZOCALO_CONFIG to the name of one"
                )
            return cls()._overridden(held)
        return cls._from_file(path.expanduser().absolute(), environments)._overridden(held)

    @classmethod
    def _from_file(cls, path: Path, environments: Sequence[str]) -> Config:
        from parvis.config.document import read_document

        document = read_document(path)
        chosen = tuple(environments) or _default_environments(document.environments)
        config = cls(path=path, environments=chosen)
        for environment in chosen:
            for name in document.names_in(environment):
                config = config._with_plugin(document.plugins[name])
        return config

    def _with_plugin(self, configuration: PluginConfiguration) -> Config:
        from parvis.config.plugins import PLUGINS, parse_settings

        content = configuration.read()
        plugin = cast("str", content["plugin"])
        rest = {key: value for key, value in content.items() if key != "plugin"}
        if plugin == "storage":
            return replace(self, storage=self.storage | rest)
        if plugin == "logging":
            return replace(self, logging=rest)
        if plugin not in PLUGINS:
            if not _is_installed(plugin):
                log.warning(
                    "%s: %s: plugin %r is not installed", configuration.file, configuration.name, plugin
                )
                return self
            return replace(self, foreign=self.foreign | {configuration.name: configuration})
        settings = parse_settings(configuration)
        if plugin == "transport":
            return replace(self, transport_default=settings.default)
        return replace(self, **({"ispyb_url": settings.url} if plugin == "ispyb" else {plugin: settings}))

    def _overridden(self, held: Mapping[str, str]) -> Config:
        stomp = {key: held[name] for name, key in _STOMP_VARIABLES.items() if name in held}
        changes: dict[str, Any] = dict(stomp)
        if "port" in stomp:
            if not stomp["port"].isdecimal() or not 0 < int(stomp["port"]) < 65536:
                raise ConfigError("the STOMP port (PARVIS_STOMP_PORT) must be a number from 1 to 65535")
            changes["port"] = int(stomp["port"])
        storage = {key: held[name] for name, key in _STORAGE_VARIABLES.items() if name in held}
        merged = self.storage | storage
        url = held.get(_ISPYB_VARIABLE) or self.ispyb_url
        if url is None:
            url = merged.get("parvis.ispyb_url") or merged.get("zocalo.ispyb_url")
        return replace(
            self, stomp=replace(self.stomp, **changes), storage=merged, ispyb_url=url, overrides=dict(held)
        )

    @property
    def recipe_directory(self) -> Path:
        """Where recipes are: `zocalo.recipe_directory` of the storage, else those that come with Parvis."""
        configured = self.storage.get(RECIPE_DIRECTORY)
        return Path(str(configured)).expanduser() if configured else shipped_recipes()

    @property
    def fallback_location(self) -> Path:
        """Where drop files go: `zocalo.go.fallback_location`, else `$XDG_STATE_HOME/parvis/dropfiles`."""
        configured = self.storage.get(FALLBACK_LOCATION)
        if configured:
            return Path(str(configured)).expanduser()
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(state).expanduser() / "parvis" / "dropfiles"

    @property
    def logbook_location(self) -> Path | None:
        """Where the dispatcher keeps its logbook (`zocalo.dispatcher.logbook_location`), or None."""
        configured = self.storage.get(LOGBOOK_LOCATION)
        return Path(str(configured)).expanduser() if configured else None

    def transport(self) -> Transport:
        """Return a transport to the configured broker, not yet connected.

        Raises:
            ConfigError: The settings of the broker are no good.
        """
        from parvis.transport.stomp import StompTransport

        stomp = self.stomp
        return StompTransport(stomp.hosts, stomp.username, stomp.password, stomp.prefix)

    def activate_foreign(self) -> dict[str, Any]:
        """Activate plugins that are not ours; return what each returned, by name of its configuration.

        Raises:
            ConfigError: A plugin failed.
        """
        from parvis.config.plugins import activate_foreign

        return {name: activate_foreign(configuration, self) for name, configuration in self.foreign.items()}

    def to_environment(self) -> dict[str, str]:
        """Return environment variables with which another process loads this same configuration.

        Passwords may be among them: give them as the environment of a process, never as its arguments.
        """
        variables = dict(self.overrides)
        if self.path is not None:
            variables["ZOCALO_CONFIG"] = str(self.path)
        if self.environments:
            variables[_ENVIRONMENT_VARIABLE] = ",".join(self.environments)
        return variables


def shipped_recipes() -> Path:
    """Return the directory of the recipes that come with Parvis."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parents[1] / "recipes"


def _default_environments(defined: Mapping[str, Any]) -> tuple[str, ...]:
    named = os.environ.get(_ENVIRONMENT_VARIABLE, "")
    chosen = tuple(name.strip() for name in named.split(",") if name.strip())
    if chosen:
        return chosen
    if os.environ.get("ZOCALO_DEFAULT_ENV"):
        return (os.environ["ZOCALO_DEFAULT_ENV"],)
    return ("default",) if "default" in defined else ()


def _is_installed(plugin: str) -> bool:
    from importlib.metadata import entry_points

    return bool(entry_points(group="zocalo.configuration.plugins", name=plugin))
