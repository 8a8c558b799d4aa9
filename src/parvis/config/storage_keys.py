"""The keys of the `storage` that Parvis reads, and what their values must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, cast

Kind = Literal[
    "text",
    "directory",
    "whole number",
    "number",
    "port",
    "true or false",
    "list of texts",
    "list of mappings",
    "mapping",
]

#: Every key that Parvis reads, and of what kind it is.
KEYS: Final[Mapping[str, Kind]] = {
    "zocalo.recipe_directory": "directory",
    "zocalo.go.fallback_location": "text",
    "zocalo.dispatcher.logbook_location": "directory",
    "zocalo.dlq.purge_location": "text",
    "zocalo.ispyb_url": "text",
    "zocalo.default_transport": "text",
    "parvis.allowed_directories": "list of texts",
    "parvis.detector": "text",
    "parvis.detectors": "mapping",
    "parvis.external_queues": "list of texts",
    "parvis.flow.fan_out": "whole number",
    "parvis.flow.recipe": "whole number",
    "parvis.flow.user": "whole number",
    "parvis.graylog.url": "text",
    "parvis.graylog.token": "text",
    "parvis.graylog.username": "text",
    "parvis.graylog.password": "text",
    "parvis.health.services": "list of texts",
    "parvis.health.file_systems": "mapping",
    "parvis.health.stores": "list of texts",
    "parvis.health.scheduler": "list of texts",
    "parvis.health.limits": "mapping",
    "parvis.health.queues": "mapping",
    "parvis.isolated_memory": "whole number",
    "parvis.ispyb_site": "mapping",
    "parvis.ispyb_url": "text",
    "parvis.liveness.address": "text",
    "parvis.liveness.port": "port",
    "parvis.liveness.timeout": "number",
    "parvis.log_broadcast": "text",
    "parvis.metrics.address": "text",
    "parvis.metrics.port": "port",
    "parvis.pickup.interval": "number",
    "parvis.pickup.settle": "number",
    "parvis.recipe_parameters": "mapping",
    "parvis.records.collector": "text",
    "parvis.records.days": "number",
    "parvis.records.directory": "text",
    "parvis.records.hops": "true or false",
    "parvis.records.megabytes": "number",
    "parvis.records.stuck_after": "number",
    "parvis.state_directory": "text",
    "parvis.store_expiry": "list of mappings",
    "parvis.store_sweeper.interval": "number",
    "parvis.stores": "mapping",
    "parvis.sweeper.deliveries": "whole number",
    "parvis.sweeper.queues": "list of texts",
    "parvis.web.secret": "text",
    "parvis.web.users": "mapping",
}


def misfit(key: str, value: Any) -> str:
    """Say what is wrong with the kind of a value of one of `KEYS`; nothing if it fits."""
    kind = KEYS[key]
    return "" if value is None or _FITS[kind](value) else f"must be a {kind}".replace("a true", "true")


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and float(value) >= 0
    except (TypeError, ValueError):
        return False


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and str(value).isdecimal()


def _is_list(value: Any) -> bool:
    values: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
    return all(isinstance(one, str) for one in values)


_FITS: Final[Mapping[Kind, Callable[[Any], bool]]] = {
    # A bare `off` of YAML is no text, and stands for one.
    "text": lambda value: isinstance(value, str) or value is False,
    "directory": lambda value: isinstance(value, str),
    "whole number": _is_whole,
    "number": _is_number,
    "port": lambda value: _is_whole(value) and int(value) < 65536,
    "true or false": lambda value: isinstance(value, bool) or str(value).lower() in {"true", "false"},
    "list of texts": _is_list,
    "list of mappings": lambda value: (
        isinstance(value, list) and all(isinstance(one, dict) for one in cast("list[Any]", value))
    ),
    "mapping": lambda value: isinstance(value, dict),
}
