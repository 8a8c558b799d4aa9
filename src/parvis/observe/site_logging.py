"""Plugin `logging` of the configuration: a site says in its own file what is logged where."""

from __future__ import annotations

import copy
import logging
import logging.config
from collections.abc import Iterator, Mapping
from typing import Any, cast

from parvis.config import ConfigError

# What a site's file names after zocalo, we have ourselves.
_EQUIVALENTS = {
    "zocalo.configuration.plugin_logging.GraylogUDPHandler": "parvis.observe.gelf.GelfUdpHandler",
    "zocalo.configuration.plugin_logging.GraylogTCPHandler": "parvis.observe.gelf.GelfTcpHandler",
    "zocalo.configuration.plugin_logging.DowngradeFilter": "parvis.observe.site_logging.DowngradeFilter",
}
_FORBIDDEN = {"filters", "formatters", "handlers"}


class DowngradeFilter(logging.Filter):
    """Makes records above level `reduce_to`, and below `only_below`, records of level `reduce_to`."""

    def __init__(self, reduce_to: str = "WARNING", *, only_below: str = "CRITICAL") -> None:
        super().__init__()
        levels = logging.getLevelNamesMapping()
        self._name, self._to, self._below = reduce_to, levels[reduce_to], levels[only_below]
        if self._below <= self._to:
            raise ValueError(f"reduce_to ({reduce_to}) must be a lower level than only_below ({only_below})")

    def filter(self, record: logging.LogRecord) -> bool:
        if self._to < record.levelno < self._below:
            record.levelno, record.levelname = self._to, self._name
        return True


def apply_site_logging(configuration: Mapping[str, Any], verbosity: int) -> None:
    """Apply a dictConfig, and after it the first `verbosity` of those under its key `verbose`.

    Raises:
        ConfigError: The configuration is malformed, or names what is not there.
    """
    main = _with_equivalents({key: value for key, value in configuration.items() if key != "verbose"})
    steps: Any = configuration.get("verbose") or []
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in cast("list[Any]", steps)):
        raise ConfigError("plugin logging: verbose must be a list of mappings, one for each -v")
    increments = [
        {"incremental": True, **_with_equivalents(step)} for step in cast("list[dict[str, Any]]", steps)
    ]
    _check_incremental(main, "the configuration")
    for number, increment in enumerate(increments, 1):
        _check_incremental(increment, f"verbose, entry {number}")
    _dict_config(main, "the configuration")
    for number, increment in enumerate(increments[:verbosity], 1):
        _dict_config(increment, f"verbose, entry {number}")


def _check_incremental(content: dict[str, Any], where: str) -> None:
    if not content.get("incremental"):
        return
    loggers = [content, _section(content, "root"), *_definitions(content, "loggers")]
    found = sorted({key for logger in loggers for key in logger if key in _FORBIDDEN})
    if found:
        raise ConfigError(f"plugin logging: {where} is incremental and so cannot have {', '.join(found)}")


def _dict_config(content: dict[str, Any], where: str) -> None:
    try:
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, **content})
    except (ValueError, TypeError, AttributeError, ImportError) as error:
        cause = f": {error.__cause__}" if error.__cause__ else ""
        raise ConfigError(f"plugin logging: {where} does not work: {error}{cause}") from None


def _with_equivalents(content: Mapping[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(dict(content))
    for section in ("handlers", "filters"):
        for definition in _definitions(changed, section):
            if definition.get("()") in _EQUIVALENTS:
                definition["()"] = _EQUIVALENTS[definition["()"]]
    return changed


def _section(content: dict[str, Any], name: str) -> dict[str, Any]:
    section = content.get(name)
    return cast("dict[str, Any]", section) if isinstance(section, dict) else {}


def _definitions(content: dict[str, Any], section: str) -> Iterator[dict[str, Any]]:
    definitions = _section(content, section)
    return (_section(definitions, name) for name in definitions)
