"""Where the records of a place are: each broker and namespace has a directory of its own, for each user."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from parvis.config import RECORDS_DIRECTORY, Config, ConfigError
from parvis.observe.records import FILE, RecordsWriter

DAYS: Final = "parvis.records.days"
MEGABYTES: Final = "parvis.records.megabytes"

_LONGEST_NAME: Final = 100


def records_directory(config: Config) -> Path:
    """Return the directory of the records: as configured, else one for this broker and namespace.

    Raises:
        ConfigError: The settings of the broker are no good.
    """
    configured = config.storage.get(RECORDS_DIRECTORY)
    if configured:
        return Path(str(configured)).expanduser()
    return _parent(config) / _place(config)


def find_records(config: Config) -> Path:
    """Return the directory of the records to be read: the same, if there are any.

    Where nothing at all is configured, and there are none, it is the place that was written to last, such as
    a demonstration's. Raises as `records_directory`.
    """
    directory = records_directory(config)
    if (
        (directory / FILE).is_file()
        or config.storage.get(RECORDS_DIRECTORY)
        or config.path
        or _names_broker(config)
    ):
        return directory
    found = [file.parent for file in _parent(config).glob(f"*/{FILE}")]
    return max(found, key=_written, default=directory)


def open_writer(config: Config, directory: Path | None = None) -> RecordsWriter:
    """Return the records for writing, bounded as configured.

    Raises:
        ConfigError: A bound is no number above 0.
        RecordsError: They cannot be written.
    """
    return RecordsWriter(
        directory or records_directory(config),
        days=_bound(config, DAYS, 30),
        megabytes=_bound(config, MEGABYTES, 2000),
    )


def mark_as_demonstration(config: Config, directory: Path) -> None:
    """Have `find_records` find the records of a demonstration, wherever they are.

    Raises:
        OSError: The mark cannot be made.
    """
    mark = _parent(config) / "demonstration"
    mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = mark.with_name(f"demonstration-{directory.parent.name}")
    new.unlink(missing_ok=True)
    new.symlink_to(directory, target_is_directory=True)
    new.replace(mark)


def _parent(config: Config) -> Path:
    return config.state_directory / "records"


def _place(config: Config) -> str:
    broker = config.broker
    space = getattr(broker, "prefix", "") or getattr(broker, "vhost", "")
    name = "_".join([*(f"{host}_{port}" for host, port in broker.hosts), space])
    return re.sub(r"[^\w.\-]+", "_", name).strip("._")[:_LONGEST_NAME]


def _written(directory: Path) -> float:
    """When the records in a directory were written to, as well as can be told."""
    return max(file.stat().st_mtime for file in directory.glob(f"{FILE}*"))


def _names_broker(config: Config) -> bool:
    return any(
        name.startswith(("PARVIS_STOMP", "PARVIS_RABBITMQ", "PARVIS_TRANSPORT")) for name in config.overrides
    )


def _bound(config: Config, name: str, default: float) -> float:
    value = config.storage.get(name, default)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < float("inf"):
        raise ConfigError(f"{name} must be a number above 0, it is {str(value)[:20]!r}")
    return number
