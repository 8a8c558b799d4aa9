"""Whether traces are wanted: by OpenTelemetry's own variables, or the plugin `opentelemetry`.

Nothing of OpenTelemetry is imported before they are.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from parvis.config import Config, OpenTelemetrySettings

_log = logging.getLogger("parvis.tracing")

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"
_EXPORTERS: Final = ("otlp", "console")


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """Where traces go.

    Attributes:
        exporter: `otlp`, to a collector, or `console`, to standard error.
        collector: The collector, if it is not for OpenTelemetry's variables to say.
    """

    exporter: str
    collector: OpenTelemetrySettings | None = None


def tracing_settings(config: Config) -> TracingSettings | None:
    """Return where traces are to go, or None if none are wanted.

    Variables that ask for what there is not are logged, and then there are no traces: they must not keep
    anybody from working.
    """
    settings = _wanted(config)
    if settings is None:
        return None
    if settings.exporter not in _EXPORTERS:
        _log.warning(
            "no traces: OTEL_TRACES_EXPORTER is %.40r, and can be otlp, console or none", settings.exporter
        )
        return None
    protocol = _first_of(_PROTOCOLS) or _PROTOCOL
    if settings.exporter == "otlp" and settings.collector is None and protocol != _PROTOCOL:
        _log.warning("no traces: OTEL_EXPORTER_OTLP_PROTOCOL is %.40r, and can be %s", protocol, _PROTOCOL)
        return None
    if not _is_installed():
        _log.warning("no traces: they need the packages of OpenTelemetry: pip install 'parvis[tracing]'")
        return None
    return settings


def _wanted(config: Config) -> TracingSettings | None:
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return None
    if _first_of(_ENDPOINTS) or exporter == "console":
        return TracingSettings(exporter or "otlp")
    if exporter or config.opentelemetry is not None:
        return TracingSettings(exporter or "otlp", config.opentelemetry)
    return None


def _is_installed() -> bool:
    try:
        return all(
            find_spec(name) for name in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")
        )
    except ModuleNotFoundError:
        return False


def _first_of(variables: tuple[str, ...]) -> str:
    return next((os.environ[name] for name in variables if os.environ.get(name)), "")


@contextlib.contextmanager
def request_headers(config: Config, program: str, queue: str) -> Generator[Mapping[str, str]]:
    """Headers for a request that is sent inside, with which a trace begins; none if no traces are wanted.

    Args:
        config: The configuration.
        program: Name of the program that asks.
        queue: Where the request goes, without namespace.
    """
    settings = tracing_settings(config)
    if settings is None:
        yield {}
        return
    from parvis.observe.tracing import request_span

    with request_span(settings, program, queue) as headers:
        yield headers
