"""Where a service tells whether it lives, and when it counts as stuck."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from parvis.config import LIVENESS_ADDRESS, LIVENESS_PORT, LIVENESS_TIMEOUT, Config, ConfigError

DEFAULT_PORT: Final = 8000
DEFAULT_TIMEOUT: Final = 30.0
# Whoever looks after a container, such as the kubelet, asks from outside of it.
_ADDRESS: Final = "0.0.0.0"  # noqa: S104


@dataclass(frozen=True, slots=True)
class LivenessSettings:
    """Where to serve the endpoints.

    Attributes:
        port: The first port to try; 0 for any.
        address: Where to listen.
        timeout: Seconds after which a service that does not go on counts as stuck.
    """

    port: int = DEFAULT_PORT
    address: str = _ADDRESS
    timeout: float = DEFAULT_TIMEOUT


def liveness_settings(config: Config) -> LivenessSettings | None:
    """Return the settings; None if no port is configured (`parvis.liveness.port`).

    Raises:
        ConfigError: The port is none, or the time-out is no number of seconds above 0.
    """
    port = config.storage.get(LIVENESS_PORT)
    if port is None:
        return None
    text = str(port)
    if not text.isdecimal() or len(text) > 5 or int(text) > 65535:
        raise ConfigError(
            f"{LIVENESS_PORT} (or PARVIS_LIVENESS_PORT) must be a port from 0 to 65535, it is {text[:20]!r}"
        )
    return LivenessSettings(
        int(text), str(config.storage.get(LIVENESS_ADDRESS) or _ADDRESS), _timeout(config)
    )


def _timeout(config: Config) -> float:
    value = config.storage.get(LIVENESS_TIMEOUT, DEFAULT_TIMEOUT)
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(
            f"{LIVENESS_TIMEOUT} (or PARVIS_LIVENESS_TIMEOUT) must be seconds above 0, "
            f"it is {str(value)[:20]!r}"
        )
    return seconds
