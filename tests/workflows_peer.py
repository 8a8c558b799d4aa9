"""A service for `workflows` alone, run by its own front end: `python workflows_peer.py PORT [COLLECTOR]`.

It knows nothing of Parvis: it takes numbers from the queue t.double, in a transaction each, sends the
doubled number to its recipe's output, and refuses what is no number. Given the address of a collector of
OpenTelemetry, it sends its traces there, by the middleware of `workflows`.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import workflows.recipe
from workflows.frontend import Frontend
from workflows.services.common_service import CommonService
from workflows.transport.stomp_transport import StompTransport


class Doubler(CommonService):
    _service_name = "Doubler"
    _logger_name = "doubler"

    def initializing(self) -> None:
        workflows.recipe.wrap_subscribe(
            self._transport, "t.double", self.double, acknowledgement=True, exclusive=False
        )

    def double(self, wrapper: Any, header: dict[str, Any], message: Any) -> None:
        transport = self._transport
        assert transport is not None
        if not isinstance(message, int):
            transport.nack(header)
            return
        transaction = transport.transaction_begin(subscription_id=header["subscription"])
        transport.ack(header, transaction=transaction)
        wrapper.send(2 * message, transaction=transaction)
        transport.transaction_commit(transaction)


if __name__ == "__main__":
    StompTransport.defaults["--stomp-port"] = int(sys.argv[1])
    StompTransport.defaults["--stomp-host"] = "127.0.0.1"
    environment: dict[str, Any] = {}
    if len(sys.argv) > 2:
        # What zocalo's plugin `opentelemetry` makes of a configuration file, but for the https.
        traces = {"endpoint": sys.argv[2], "timeout": 5}
        environment["config"] = SimpleNamespace(_opentelemetry=traces)
    Frontend(
        transport=StompTransport,
        service=Doubler,
        transport_command_channel="command",
        environment=environment,
    ).run()
