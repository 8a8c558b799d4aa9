"""Rows of a database as plain values that JSON can carry."""

from __future__ import annotations

import datetime
import keyword
import math
import re
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import types

_TIME_FRACTION = re.compile(r"\.0+$")


class StoredTime(types.TypeDecorator[Any]):
    """A date or time of SQLite, which keeps them as text: written as ISO, read as the text that is there."""

    impl = types.String
    cache_ok = True

    def process_bind_param(self, value: object, dialect: object) -> object:  # noqa: ARG002 - SQLAlchemy's signature
        if isinstance(value, datetime.datetime):
            return value.replace(tzinfo=None).isoformat(" ", "microseconds")
        if isinstance(value, datetime.date):
            return value.isoformat()
        return value

    def process_result_value(self, value: object, dialect: object) -> object:  # noqa: ARG002 - SQLAlchemy's signature
        return _TIME_FRACTION.sub("", value.replace(" ", "T")) if isinstance(value, str) else value


def as_stored(inspector: sa.Inspector, _table: sa.Table, column: dict[str, Any]) -> None:
    """Give a reflected column a type that hands on what the database holds, whatever that is.

    Enumerations may hold values their table does not list, SQLite may hold any text in a date, and numbers
    are wanted as floats, not as rounded decimals.
    """
    kind = column["type"]
    if isinstance(kind, types.Enum):
        column["type"] = types.String(kind.length)
    elif isinstance(kind, types.Numeric | types.Float) and kind.asdecimal:
        kind.asdecimal = False
    elif inspector.dialect.name == "sqlite" and isinstance(kind, types.DateTime | types.Date | types.Time):
        column["type"] = StoredTime()


def plain(value: Any) -> Any:
    """One value of a row as JSON has it.

    Dates and times become ISO text, decimals floats, bytes hexadecimal text, what is not a number null.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float | Decimal):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    return str(value)


def columns_of(
    columns: Iterable[sa.ColumnElement[Any]], row: sa.Row[Any], *, leave_out: Collection[str] = ()
) -> dict[str, Any]:
    """Columns of a row of a query, by name, as JSON has them.

    A name that is a word of Python (`global`) gets an underscore, as in the models of the `ispyb` package.
    """
    mapping: Mapping[Any, Any] = row._mapping
    named = ((str(column.key), column) for column in columns)
    return {_key(name): plain(mapping[column]) for name, column in named if name not in leave_out}


def _key(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) else name
