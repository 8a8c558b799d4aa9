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

from parvis.config.secret import secrets_in
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
from parvis.config.variables import (
    ENVIRONMENT_VARIABLE,
    FALLBACK_LOCATION,
    GRAYLOG_PASSWORD,
    GRAYLOG_TOKEN,
    GRAYLOG_URL,
    GRAYLOG_USERNAME,
    ISPYB_VARIABLE,
    LIVENESS_ADDRESS,
    LIVENESS_PORT,
    LIVENESS_TIMEOUT,
    LOG_FORMAT_VARIABLE,
    LOGBOOK_LOCATION,
    METRICS_ADDRESS,
    METRICS_PORT,
    RABBITMQ_VARIABLES,
    RECIPE_DIRECTORY,
    RECORDS_COLLECTOR,
    RECORDS_DIRECTORY,
    RECORDS_HOPS,
    STATE_DIRECTORY,
    STOMP_VARIABLES,
    STORAGE_VARIABLES,
    TRANSPORT_VARIABLE,
    VARIABLES,
    VERBOSITY_VARIABLE,
)

if TYPE_CHECKING:
    from parvis.config.document import PluginConfiguration
    from parvis.transport.base import Transport

__all__ = [
    "FALLBACK_LOCATION",
    "GRAYLOG_PASSWORD",
    "GRAYLOG_TOKEN",
    "GRAYLOG_URL",
    "GRAYLOG_USERNAME",
    "LIVENESS_ADDRESS",
    "LIVENESS_PORT",
    "LIVENESS_TIMEOUT",
    "LOGBOOK_LOCATION",
    "METRICS_ADDRESS",
    "METRICS_PORT",
    "RECIPE_DIRECTORY",
    "RECORDS_COLLECTOR",
    "RECORDS_DIRECTORY",
    "RECORDS_HOPS",
    "STATE_DIRECTORY",
    "VARIABLES",
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

_RABBITMQ = "PikaTransport"
_STOMP = "StompTransport"
_EITHER = "ParvisTransport"  # as `workflows` knows our connection: RabbitMQ where only that is configured


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
        verbosity: How much more than usual is logged: 1 adds debugging, and each the next entry of `verbose`
            of plugin `logging`.
        log_format: `text`, or `json` for one JSON object a line.
        overrides: The `PARVIS_*` variables (and options, in that form) that hold.
    """

    path: Path | None = None
    environments: tuple[str, ...] = ()
    stomp: StompSettings = field(default_factory=StompSettings)
    storage: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)
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
    verbosity: int = 0
    log_format: str = "text"
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
        path = path or configured_path()
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
        chosen = tuple(environments) or default_environments(document.environments)
        config = cls(path=path, environments=chosen)
        for environment in chosen:
            for name in document.names_in(environment):
                config = config._with_plugin(document.plugins[name])
        return config

    def _with_plugin(self, configuration: PluginConfiguration) -> Config:
        from parvis.config.document import suggestion
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
                where = f"{configuration.file}: {configuration.name}"
                hint = suggestion(plugin, {**PLUGINS, "storage": None, "logging": None})
                if hint:
                    raise ConfigError(f"{where}: there is no plugin {plugin!r}{hint}")
                log.warning("%s: plugin %r is not installed", where, plugin)
                return self
            return replace(self, foreign=self.foreign | {configuration.name: configuration})
        settings = parse_settings(configuration)
        if plugin == "transport":
            return replace(self, transport_default=settings.default)
        return replace(self, **({"ispyb_url": settings.url} if plugin == "ispyb" else {plugin: settings}))

    def _overridden(self, held: Mapping[str, str]) -> Config:
        stomp: dict[str, Any] = {key: held[name] for name, key in STOMP_VARIABLES.items() if name in held}
        if "port" in stomp:
            stomp["port"] = _number(held, "PARVIS_STOMP_PORT", 1, 65535)
        rabbitmq: dict[str, Any] = {
            key: held[name] for name, key in RABBITMQ_VARIABLES.items() if name in held
        }
        if "port" in rabbitmq:
            rabbitmq["port"] = _number(held, "PARVIS_RABBITMQ_PORT", 1, 65535)
        storage = self.storage | {key: held[name] for name, key in STORAGE_VARIABLES.items() if name in held}
        url = held.get(ISPYB_VARIABLE) or self.ispyb_url
        if url is None:
            url = storage.get("parvis.ispyb_url") or storage.get("zocalo.ispyb_url")
        log_format = held.get(LOG_FORMAT_VARIABLE, self.log_format)
        if log_format not in {"text", "json"}:
            raise ConfigError(f"{LOG_FORMAT_VARIABLE} must be text or json, it is {log_format[:20]!r}")
        return replace(
            self,
            stomp=replace(self.stomp, **stomp),
            pika=replace(self.pika or PikaSettings(), **rabbitmq) if rabbitmq else self.pika,
            storage=storage,
            ispyb_url=url,
            transport_default=held.get(TRANSPORT_VARIABLE)
            or self.transport_default
            or storage.get("zocalo.default_transport"),
            verbosity=_number(held, VERBOSITY_VARIABLE, 0, 9) if VERBOSITY_VARIABLE in held else 0,
            log_format=log_format,
            overrides=dict(held),
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
        return Path(str(configured)).expanduser() if configured else _own_state_directory() / "dropfiles"

    @property
    def state_directory(self) -> Path:
        """Where services keep what outlives them: `parvis.state_directory`, else `$XDG_STATE_HOME/parvis`."""
        configured = self.storage.get(STATE_DIRECTORY)
        return Path(str(configured)).expanduser() if configured else _own_state_directory()

    @property
    def logbook_location(self) -> Path | None:
        """Where the dispatcher keeps its logbook (`zocalo.dispatcher.logbook_location`), or None."""
        configured = self.storage.get(LOGBOOK_LOCATION)
        return Path(str(configured)).expanduser() if configured else None

    @property
    def metrics_port(self) -> int | None:
        """First port to serve metrics at (`parvis.metrics.port`), 0 for any; None for no metrics.

        Raises:
            ConfigError: It is no port.
        """
        configured = self.storage.get(METRICS_PORT)
        if configured is None:
            return None
        text = str(configured)
        if not text.isdecimal() or len(text) > 5 or int(text) > 65535:
            raise ConfigError(
                f"{METRICS_PORT} (or PARVIS_METRICS_PORT) must be a port from 0 to 65535, it is {text[:20]!r}"
            )
        return int(text)

    @property
    def metrics_address(self) -> str:
        """Address to serve metrics at: `parvis.metrics.address`, else this machine alone."""
        return str(self.storage.get(METRICS_ADDRESS) or "127.0.0.1")

    @property
    def broker(self) -> StompSettings | PikaSettings:
        """The broker in use, as its transport wants it.

        Raises:
            ConfigError: There is no transport of that name.
        """
        if self.transport_default == _RABBITMQ:
            return self.pika or PikaSettings()
        if self.transport_default == _EITHER and self.pika is not None and self.stomp == StompSettings():
            return self.pika
        if self.transport_default not in (None, _STOMP, _EITHER):
            raise ConfigError(
                f"the configuration asks for {self.transport_default}, and there are only {_STOMP} and "
                f"{_RABBITMQ}; ask for one with -t or PARVIS_TRANSPORT"
            )
        return self.stomp

    @property
    def broker_hosts(self) -> str:
        """Each `host:port` of the broker in use, for people. Raises as `broker`."""
        return ", ".join(f"{host}:{port}" for host, port in self.broker.hosts)

    def at(self, host: str, port: int) -> Config:
        """Return this configuration with one host of the broker in use, in place of all of them."""
        broker = replace(self.broker, host=f"[{host}]", port=port)
        return replace(self, pika=broker) if isinstance(broker, PikaSettings) else replace(self, stomp=broker)

    def transport(self) -> Transport:
        """Return a transport to the configured broker, not yet connected.

        Raises:
            ConfigError: The settings of the broker are no good.
        """
        broker = self.broker
        if isinstance(broker, PikaSettings):
            return _amqp_transport(broker)
        from parvis.transport.stomp import StompTransport

        tls = broker.tls_context()
        try:
            return StompTransport(broker.hosts, broker.username, broker.password, broker.prefix, tls=tls)
        except ValueError as error:
            raise ConfigError(f"STOMP: {error}") from None

    def activate_foreign(self) -> dict[str, Any]:
        """Activate plugins that are not ours; return what each returned, by name of its configuration.

        Raises:
            ConfigError: A plugin failed.
        """
        from parvis.config.plugins import activate_foreign

        return {name: activate_foreign(configuration, self) for name, configuration in self.foreign.items()}

    def secrets(self) -> set[str]:
        """Return the passwords and tokens of this configuration, for taking them out of what is shown."""
        holders = (self.stomp, self.pika, self.jmx, self.rabbitmqapi)
        found = {holder.password for holder in holders if holder is not None}
        found |= {slurm.user_token or "" for slurm in (self.slurm, self.iris) if slurm is not None}
        found |= {text for key, value in self.storage.items() for text in secrets_in(str(key), value)}
        return found - {"", StompSettings().password, PikaSettings().password}

    def to_environment(self) -> dict[str, str]:
        """Return environment variables with which another process loads this same configuration.

        Passwords may be among them: give them as the environment of a process, never as its arguments.
        """
        variables = dict(self.overrides)
        if self.path is not None:
            variables["ZOCALO_CONFIG"] = str(self.path)
        if self.environments:
            variables[ENVIRONMENT_VARIABLE] = ",".join(self.environments)
        return variables


def _own_state_directory() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "parvis"


def _amqp_transport(broker: PikaSettings) -> Transport:
    try:
        from parvis.transport.amqp import AmqpTransport
    except ModuleNotFoundError as error:
        raise ConfigError(f"{_RABBITMQ} needs {error.name}: pip install 'parvis[rabbitmq]'") from None
    tls = broker.tls_context()
    try:
        return AmqpTransport(broker.hosts, broker.username, broker.password, broker.vhost, tls=tls)
    except ValueError as error:
        raise ConfigError(f"RabbitMQ: {error}") from None


def shipped_recipes() -> Path:
    """Return the directory of the recipes that come with Parvis."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parents[1] / "recipes"


def environment_names() -> list[str]:
    """Return the names of the environments that can be chosen; none if there is no readable configuration."""
    path = configured_path()
    if path is None:
        return []
    from parvis.config.document import read_document

    try:
        return sorted(read_document(path.expanduser().absolute()).environments)
    except ConfigError:
        return []


def configured_path() -> Path | None:
    """Return the file that `ZOCALO_CONFIG` names, or None."""
    return Path(os.environ["ZOCALO_CONFIG"]) if os.environ.get("ZOCALO_CONFIG") else None


def _number(held: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = held[name]
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ConfigError(f"{name} must be a number from {least} to {most}, it is {text[:20]!r}")
    return int(text)


def default_environments(defined: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the environments that are in force where nobody names any, of those `defined`."""
    named = os.environ.get(ENVIRONMENT_VARIABLE, "")
    chosen = tuple(name.strip() for name in named.split(",") if name.strip())
    if chosen:
        return chosen
    if os.environ.get("ZOCALO_DEFAULT_ENV"):
        return (os.environ["ZOCALO_DEFAULT_ENV"],)
    return ("default",) if "default" in defined else ()


def _is_installed(plugin: str) -> bool:
    from importlib.metadata import entry_points

    return bool(entry_points(group="zocalo.configuration.plugins", name=plugin))
