"""Searches the log records of a Graylog server by its REST interface.

Newer servers have `views/search/sync`; those that do not know it are asked by `search/universal/absolute`.
"""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final, cast
from urllib.parse import urlencode, urlsplit

import orjson

from parvis.config import GRAYLOG_PASSWORD, GRAYLOG_TOKEN, GRAYLOG_URL, GRAYLOG_USERNAME, Config, ConfigError
from parvis.observe.log_record import DEBUG, LogQuery, LogRecord
from parvis.recipe.envelope import as_object

_TIMEOUT: Final = 30.0
_MOST_BYTES: Final = 256_000_000
_MOST_RECORDS: Final = 10_000  # in one answer; no server gives more
_ALL_TIME: Final = 365 * 86_400.0
_READ: Final = frozenset(
    ("message", "full_message", "timestamp", "level", "facility", "source", "workflows_service", "recipe_ID")
)


class GraylogError(Exception):
    """The server cannot be asked, or gives no answer that makes sense."""


class _NotKnown(GraylogError):
    """There is nothing at this address of the server."""


class Graylog:
    """A Graylog server.

    Args:
        url: Its address, such as `https://graylog.example.org`, with `/api` or without.
        username: Whom to log in as; a token stands here, with the password `token`.
        password: The password.
        timeout: Seconds to wait for an answer.

    Raises:
        ConfigError: The address is none.
    """

    def __init__(self, url: str, username: str, password: str, timeout: float = _TIMEOUT) -> None:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.username:
            raise ConfigError(f"{GRAYLOG_URL} must be an address such as https://graylog.example.org")
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, port
        self._base = f"{parts.path.rstrip('/').removesuffix('/api')}/api/"
        self._login = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
        self._timeout = timeout
        self._is_old = False

    @classmethod
    def configured(cls, config: Config) -> Graylog | None:
        """Return the server that the configuration names, or None if it names none.

        Raises:
            ConfigError: It does not say how to log in.
        """
        url = config.storage.get(GRAYLOG_URL)
        if not url:
            return None
        token = config.storage.get(GRAYLOG_TOKEN)
        username, password = config.storage.get(GRAYLOG_USERNAME), config.storage.get(GRAYLOG_PASSWORD)
        if token:
            username, password = token, "token"
        if not username or not password:
            raise ConfigError(
                f"{GRAYLOG_URL} needs {GRAYLOG_TOKEN}, or {GRAYLOG_USERNAME} and {GRAYLOG_PASSWORD}"
            )
        return cls(str(url), str(username), str(password))

    def search(self, query: LogQuery) -> list[LogRecord]:
        """Return the log records that answer to a query, in its order, at most 10,000. `after` is not known.

        Raises:
            GraylogError: The server cannot be asked, refuses, or answers what nobody understands.
        """
        if not self._is_old:
            try:
                return self._search(query)
            except _NotKnown:
                self._is_old = True
        return self._search_as_before(query)

    def _search(self, query: LogQuery) -> list[LogRecord]:
        since, until = _times(query)
        asked = {
            "id": "q",
            "query": {"type": "elasticsearch", "query_string": query_string(query)},
            "timerange": {"type": "absolute", "from": since, "to": until},
            "search_types": [
                {
                    "id": "m",
                    "type": "messages",
                    "limit": min(query.limit, _MOST_RECORDS),
                    "offset": 0,
                    "sort": [{"field": "timestamp", "order": "DESC" if query.order == "newest" else "ASC"}],
                }
            ],
        }
        answer = self._ask("POST", "views/search/sync", orjson.dumps({"queries": [asked]}))
        result = as_object(as_object(answer.get("results")).get("q"))
        errors = [*_list(result.get("errors")), *_list(answer.get("errors"))]
        if errors:
            text = as_object(errors[0]).get("description")
            raise GraylogError(f"{self._name} refuses the search: {str(text)[:300]}")
        return self._records(as_object(as_object(result.get("search_types")).get("m")))

    def _search_as_before(self, query: LogQuery) -> list[LogRecord]:
        since, until = _times(query)
        asked = {
            "query": query_string(query),
            "from": since,
            "to": until,
            "limit": min(query.limit, _MOST_RECORDS),
            "sort": f"timestamp:{'desc' if query.order == 'newest' else 'asc'}",
        }
        return self._records(self._ask("GET", f"search/universal/absolute?{urlencode(asked)}"))

    def _records(self, result: Mapping[str, Any]) -> list[LogRecord]:
        messages = result.get("messages")
        if not isinstance(messages, list):
            raise GraylogError(f"{self._name} gives an answer without messages")
        found = [as_object(as_object(one).get("message")) for one in cast("list[Any]", messages)]
        return [_record(message) for message in found]

    @property
    def _name(self) -> str:
        return f"Graylog at {self._host}"

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Mapping[str, Any]:
        headers = {
            "Accept": "application/json",
            "Authorization": f"Basic {self._login}",
            "X-Requested-By": "parvis",
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = self._connection()
        try:
            connection.request(method, self._base + path, body, headers)
            answer = connection.getresponse()
            content = answer.read(_MOST_BYTES + 1)
        except (OSError, HTTPException) as error:
            raise GraylogError(f"{self._name} does not answer: {error or type(error).__name__}") from None
        finally:
            connection.close()
        if answer.status == 404:
            raise _NotKnown(f"{self._name} has no REST interface at {self._base}: see {GRAYLOG_URL}")
        if answer.status in (401, 403):
            raise GraylogError(
                f"{self._name} does not let us in ({answer.status}): see {GRAYLOG_TOKEN}, "
                f"or {GRAYLOG_USERNAME} and {GRAYLOG_PASSWORD}"
            )
        if answer.status not in (200, 201):
            raise GraylogError(f"{self._name} answers {answer.status} {answer.reason[:100]}")
        try:
            return as_object(orjson.loads(content))
        except orjson.JSONDecodeError:
            raise GraylogError(f"{self._name} gives an answer that is not JSON") from None

    def _connection(self) -> HTTPConnection:
        # http.client follows no redirection, which would take the log-in elsewhere.
        if self._secure:
            context = ssl.create_default_context()
            return HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)
        return HTTPConnection(self._host, self._port, timeout=self._timeout)


def query_string(query: LogQuery) -> str:
    """Return what is asked for in Graylog's language, which is Lucene's."""
    parts: list[str] = []
    if query.sources:
        names = " OR ".join(map(_quoted, query.sources))
        parts.append(f"(facility:({names}) OR workflows_service:({names}))")
    if query.recipe is not None:
        # An ID in full is 36 characters; less is its beginning.
        plain = "".join(sign for sign in query.recipe if sign.isalnum() or sign == "-")
        parts.append(f"recipe_ID:{_quoted(plain) if len(plain) >= 36 else f'{plain}*'}")
    if query.level is not None and query.level < DEBUG:
        parts.append(f"level:<={query.level}")
    if query.text is not None:
        words = query.text.rstrip("* ")
        is_beginning = query.text.rstrip().endswith("*") and words.isalnum()
        parts.append(f"message:{f'{words}*' if is_beginning else _quoted(words)}")
    return " AND ".join(parts) or "*"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _times(query: LogQuery) -> tuple[str, str]:
    until = time.time() if query.until is None else query.until
    since = until - _ALL_TIME if query.since is None else query.since
    return _written(since), _written(until)


def _written(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _record(message: Mapping[str, Any]) -> LogRecord:
    level = message.get("level")
    text, full = str(message.get("message") or ""), str(message.get("full_message") or "")
    return LogRecord(
        time=_read_time(message.get("timestamp")),
        level=int(level) if isinstance(level, int | float) and 0 <= level <= DEBUG else DEBUG - 1,
        facility=str(message.get("facility") or ""),
        message=text,
        full=full if full != text else "",
        host=str(message.get("source") or ""),
        service=str(message.get("workflows_service") or ""),
        recipe_id=str(message.get("recipe_ID") or ""),
        fields={key: value for key, value in message.items() if key not in _READ and value is not None},
    )


def _read_time(text: Any) -> float:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []
