"""Which broker: as `zocalo` and its commands have been told."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workflows.transport.stomp_transport import StompTransport as TheirStompTransport

if TYPE_CHECKING:
    from parvis.transport.base import Transport

_VARIABLES = {
    "--stomp-host": "PARVIS_STOMP_HOST",
    "--stomp-port": "PARVIS_STOMP_PORT",
    "--stomp-user": "PARVIS_STOMP_USERNAME",
    "--stomp-pass": "PARVIS_STOMP_PASSWORD",
    "--stomp-prfx": "PARVIS_STOMP_PREFIX",
}


def configured_transport() -> Transport:
    """Return a transport, not yet connected, as the configuration file says.

    The environment is the one that the command line of a zocalo command names, and its options `--stomp-*`
    count more than the file.

    Raises:
        ConfigError: The configuration is wrong.
    """
    from parvis.config import Config

    said: dict[str, Any] = TheirStompTransport.config
    overrides = {_VARIABLES[option]: str(value) for option, value in said.items() if option in _VARIABLES}
    return Config.load(environments=_environments(), overrides=overrides).transport()


def _environments() -> list[str]:
    try:
        from zocalo.configuration.argparse import get_specified_environments
    except ImportError:  # `workflows` alone has no configuration file
        return []
    return get_specified_environments(arguments=("-e", "--environment"))
