"""Options that several commands share."""

from __future__ import annotations

import configparser
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import click

from parvis.cli.environments import environments_option
from parvis.cli.moments import FiniteRange
from parvis.config import LIVENESS_PORT, Config, ConfigError
from parvis.observe.liveness_settings import DEFAULT_PORT

Function: TypeAlias = Callable[..., Any]

#: Seconds that a broker may take to let a command in.
BROKER_PATIENCE: Final = 5.0

#: `--json`, given to the command as `as_json`.
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

#: `--metrics-port` of what runs services; it becomes part of the configuration.
metrics_option = click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Serve Prometheus metrics at this port or the next free one; 0 for any.",
)

_LIVENESS_OPTIONS: list[Callable[[Function], Function]] = [
    click.option("--liveness", is_flag=True, help="Serve liveness and readiness, for Kubernetes and others."),
    click.option(
        "--liveness-port",
        type=click.IntRange(0, 65535),
        metavar="PORT",
        help="At this port or the next free one, 0 for any; 8000 if not told.",
    ),
    click.option(
        "--liveness-timeout",
        type=FiniteRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Count a service as stuck that does not go on for so long; 30 s if not told.",
    ),
]


def liveness_options(function: Function) -> Function:
    """`--liveness`, its port and its time-out; they become part of the configuration."""
    for option in reversed(_LIVENESS_OPTIONS):
        function = option(function)
    return function


#: `--records` of what reads or writes records; it becomes part of the configuration.
records_option = click.option(
    "--records",
    "records_directory",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Where the records are; by default as configured, or in a place for this broker.",
)

_VARIABLES = {
    "transport": "PARVIS_TRANSPORT",
    "stomp_host": "PARVIS_STOMP_HOST",
    "stomp_port": "PARVIS_STOMP_PORT",
    "stomp_user": "PARVIS_STOMP_USERNAME",
    "stomp_pass": "PARVIS_STOMP_PASSWORD",
    "stomp_prfx": "PARVIS_STOMP_PREFIX",
    "log_format": "PARVIS_LOG_FORMAT",
    "metrics_port": "PARVIS_METRICS_PORT",
    "liveness_port": "PARVIS_LIVENESS_PORT",
    "liveness_timeout": "PARVIS_LIVENESS_TIMEOUT",
    "records_directory": "PARVIS_RECORDS_DIRECTORY",
}
_STOMP_CONF_KEYS = {
    "host": "PARVIS_STOMP_HOST",
    "port": "PARVIS_STOMP_PORT",
    "username": "PARVIS_STOMP_USERNAME",
    "password": "PARVIS_STOMP_PASSWORD",
    "prefix": "PARVIS_STOMP_PREFIX",
}


_CONFIG_OPTIONS: list[Callable[[Function], Function]] = [
    environments_option,
    click.option("--live", is_flag=True, hidden=True),
    click.option("--test", is_flag=True, hidden=True),
    click.option(
        "-t",
        "--transport",
        metavar="TRN",
        help="StompTransport (the default), or PikaTransport for RabbitMQ.",
    ),
    click.option("--stomp-host", metavar="HOST", help="Broker, or several separated by commas."),
    click.option("--stomp-port", type=click.IntRange(1, 65535), metavar="PORT", help="Port of the broker."),
    click.option("--stomp-user", metavar="USER", help="User name at the broker."),
    click.option("--stomp-pass", metavar="PASS", hidden=True, help="Password at the broker."),
    click.option("--stomp-prfx", metavar="PRE", help="Namespace of queues and topics."),
    click.option(
        "--stomp-conf",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="File with a section [stomp]: host, port, username, password, prefix.",
    ),
]
_LOG_OPTIONS: list[Callable[[Function], Function]] = [
    click.option("-v", "--verbose", "verbosity", count=True, help="Log more. May be repeated."),
    click.option(
        "--log-format", type=click.Choice(["text", "json"]), help="Form of the log on the terminal."
    ),
]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which configuration the options of a command ask for.

    Attributes:
        environments: Those of `-e`.
        overrides: What other options say, in the form of `PARVIS_*` variables.
        flags: The option that each of the overrides comes from.
    """

    environments: tuple[str, ...]
    overrides: dict[str, str]
    flags: dict[str, str]

    def load(self, path: Path | None = None) -> Config:
        """Return that configuration, from `path` or the usual file. Raises ConfigError."""
        return Config.load(path, self.environments, self.overrides)


def with_config(*, logs: bool = False) -> Callable[[Function], Function]:
    """Give a command the options that say which configuration to use, and the `config` that they make.

    Args:
        logs: Add options for logs, too; the command is to call `set_up_logging(config)`.
    """

    def load(choice: Choice, given: dict[str, Any]) -> dict[str, Any]:
        config = choice.load()
        if given.pop("liveness", False) and LIVENESS_PORT not in config.storage:
            choice.overrides["PARVIS_LIVENESS_PORT"] = str(DEFAULT_PORT)
            config = choice.load()
        return {"config": config}

    return _with_options(_CONFIG_OPTIONS + (_LOG_OPTIONS if logs else []), load)


def with_choice() -> Callable[[Function], Function]:
    """Give a command the same options, and the `Choice` that they make, as `choice`; nothing is loaded."""
    return _with_options(_CONFIG_OPTIONS, lambda choice, _: {"choice": choice})


def _with_options(
    options: list[Callable[[Function], Function]],
    make: Callable[[Choice, dict[str, Any]], dict[str, Any]],
) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def wrapper(*args: Any, **given: Any) -> Any:
            made = make(_take_choice(given), given)
            return function(*args, **made, **given)

        decorated: Function = wrapper
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def _take_choice(given: dict[str, Any]) -> Choice:
    """Take the options that say which configuration to use out of `given`."""
    ctx = click.get_current_context()
    old = tuple(name for name in ("live", "test") if given.pop(name))
    environments: tuple[str, ...] = (
        *ctx.meta.get("parvis.environments", ()),
        *given.pop("environments"),
        *old,
    )
    overrides = _stomp_conf(given.pop("stomp_conf"))
    flags = dict.fromkeys(overrides, "--stomp-conf")
    for name, variable in _VARIABLES.items():
        value = given.pop(name, None)
        if value is not None:
            overrides[variable] = str(value)
            flags[variable] = f"--{name.replace('_', '-')}"
    verbosity = given.pop("verbosity", 0)
    if verbosity:
        overrides["PARVIS_VERBOSITY"] = str(min(verbosity, 9))
        flags["PARVIS_VERBOSITY"] = "-v"
    if ctx.get_parameter_source("stomp_pass") is click.core.ParameterSource.COMMANDLINE:
        click.echo(
            "Warning: everybody on this machine can see --stomp-pass; use PARVIS_STOMP_PASSWORD.", err=True
        )
    return Choice(environments, overrides, flags)


def _stomp_conf(file: Path | None) -> dict[str, str]:
    if file is None:
        return {}
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--stomp-conf: cannot read {file}: {error.strerror}") from None
    except (configparser.Error, UnicodeDecodeError):
        raise ConfigError(f"--stomp-conf: {file} is not an ini file") from None
    if not parser.has_section("stomp"):
        raise ConfigError(f"--stomp-conf: {file} has no section [stomp]")
    values = parser["stomp"]
    return {variable: values[key] for key, variable in _STOMP_CONF_KEYS.items() if key in values}
