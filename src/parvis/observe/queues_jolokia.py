"""Figures of the queues of an ActiveMQ from its Jolokia, which tells its management beans over HTTP."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from parvis.observe.queue_figures import BrokerFacts, QueueFigures, is_dead_letters, local_name
from parvis.transport.base import BrokerRefused, Disconnected, TransportError

if TYPE_CHECKING:
    from parvis.config import JmxSettings
    from parvis.transport.base import Kind

_TIMEOUT: Final = 10.0
_LARGEST_ANSWER: Final = 64 * 1024 * 1024
_BROKER: Final = "org.apache.activemq:type=Broker,brokerName=*"
_DESTINATION: Final = (
    "Name,QueueSize,ConsumerCount,EnqueueCount,DequeueCount,InFlightCount,MemoryUsageByteCount,DLQ"
)
_HOUSEKEEPING: Final = ("ActiveMQ.Advisory.", "ActiveMQ.Statistics.")


class Jolokia:
    """The Jolokia of an ActiveMQ.

    Args:
        settings: Where it is, and the log-in.
    """

    origin = "Jolokia"

    def __init__(self, settings: JmxSettings) -> None:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self._url = f"http://{host}:{settings.port}/{settings.base_url.strip('/')}"
        login = f"{settings.username}:{settings.password}".encode()
        self._login = base64.b64encode(login).decode()

    def problem(self) -> str:
        """Why it gives no figures, in words; empty if it does."""
        try:
            if self._read(_BROKER, "BrokerVersion"):
                return ""
        except TransportError as error:
            return str(error)
        return f"Jolokia at {self._url} knows no ActiveMQ (useJmx must be on)"

    def figures(self, namespace: str) -> list[QueueFigures]:
        return [*self._figures("queue", namespace), *self._figures("topic", namespace)]

    def facts(self) -> BrokerFacts:
        names = "CurrentConnectionsCount,MemoryPercentUsage,StorePercentUsage,TempPercentUsage"
        nothing: Mapping[str, Any] = {}
        broker = next(iter(self._read(_BROKER, names)), nothing)
        heap = next(iter(self._read("java.lang:type=Memory", "HeapMemoryUsage")), nothing)
        queues = self.figures("")
        used, most = _number(heap, "used"), _number(heap, "max")
        return BrokerFacts(
            product="",
            connections=_number(broker, "CurrentConnectionsCount"),
            queues=sum(one.kind == "queue" for one in queues),
            messages=sum(one.held or 0 for one in queues if one.kind == "queue"),
            in_flight=sum(one.in_flight or 0 for one in queues if one.kind == "queue"),
            memory=_number(broker, "MemoryPercentUsage"),
            store=_number(broker, "StorePercentUsage"),
            temp=_number(broker, "TempPercentUsage"),
            heap=100 * used / most if used is not None and most else None,
        )

    def _figures(self, kind: Kind, namespace: str) -> Iterable[QueueFigures]:
        beans = f"{_BROKER},destinationType={kind.title()},destinationName=*"
        for facts in self._read(beans, _DESTINATION):
            absolute = str(facts.get("Name", ""))
            if absolute.startswith(_HOUSEKEEPING):
                continue
            yield QueueFigures(
                name=local_name(absolute, namespace),
                kind=kind,
                absolute=absolute,
                enqueued=_number(facts, "EnqueueCount"),
                dequeued=_number(facts, "DequeueCount"),
                held=_number(facts, "QueueSize"),
                in_flight=_number(facts, "InFlightCount"),
                clients=_number(facts, "ConsumerCount"),
                size=_number(facts, "MemoryUsageByteCount"),
                dead_letters=facts.get("DLQ") is True or (kind == "queue" and is_dead_letters(absolute)),
            )

    def _read(self, bean: str, attributes: str) -> list[Mapping[str, Any]]:
        """The attributes of each bean that a pattern means; of one attribute of one bean, its parts.

        Raises:
            Disconnected: Nobody answers.
            BrokerRefused: It does not let us in, or what answers is no Jolokia.
        """
        answer = self._get(f"{self._url}/read/{bean}/{attributes}")
        if answer.get("status") == 404:
            return []  # a pattern that means nothing: there are no queues
        value = answer.get("value")
        if answer.get("status") != 200 or not isinstance(value, dict):
            said = str(answer.get("error", "not what was asked for"))
            raise BrokerRefused(f"Jolokia at {self._url}: {said[:200]}")
        found = cast("dict[str, Any]", value)
        if "*" in bean:
            return [cast("dict[str, Any]", one) for one in found.values() if isinstance(one, dict)]
        return [found]

    def _get(self, url: str) -> dict[str, Any]:
        # Without an origin a strict Jolokia refuses.
        headers = {"Authorization": f"Basic {self._login}", "Origin": "http://localhost"}
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the address begins with http
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310 - as above
                content = json.loads(answer.read(_LARGEST_ANSWER))
        except urllib.error.HTTPError as error:
            hint = " (user name and password of plugin jmx)" if error.code in {401, 403} else ""
            raise BrokerRefused(f"Jolokia at {self._url} answers {error.code} {error.reason}{hint}") from None
        except ValueError:
            raise BrokerRefused(f"what answers at {self._url} is no Jolokia") from None
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            raise Disconnected(f"Jolokia at {self._url} cannot be reached: {reason}") from None
        if not isinstance(content, dict):
            raise BrokerRefused(f"what answers at {self._url} is no Jolokia")
        return cast("dict[str, Any]", content)


def _number(facts: Mapping[str, Any], name: str) -> int | None:
    value = facts.get(name)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
