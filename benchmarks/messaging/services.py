"""The services that are measured, each in a process of its own: `python services.py KIND QUEUE`.

Each takes a recipe message from its queue and sends the payload on to where the recipe says; `raw` passes on
frames that were made before.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable
from typing import Any, ClassVar

from settings import GROUP, NAMESPACE, PASSWORD, USERNAME, broker_port, next_queue, raw_frame_size


def ours(queue: str) -> None:
    """A service of Parvis, as `parvis service` runs it."""
    from parvis.config import Config
    from parvis.service.base import Service, Step
    from parvis.service.contract import Anything, Outputs
    from parvis.service.host import Host, stop_on_signals

    class Forward(Service[Anything, Anything]):
        name: ClassVar[str] = "Forward"
        queue: ClassVar[str] = "forward"
        outputs: ClassVar[Outputs] = {"result": None}
        default_output: ClassVar[str | None] = "result"
        prefetch: ClassVar[int] = 20

        def process(self, payload: Anything, step: Step[Anything]) -> None:
            step.send("result", payload)

    config = Config.load()
    host = Host(config.transport(), [Forward(config)], queue=queue)
    stop_on_signals(host)
    host.run()


def reporting(queue: str) -> None:
    """The same, which reports what it handles."""
    os.environ["PARVIS_RECORDS_HOPS"] = "true"
    ours(queue)


def workflows(queue: str) -> None:
    """A service of workflows, in a transaction each, under its own front end."""
    import workflows.recipe
    from workflows.frontend import Frontend
    from workflows.services.common_service import CommonService

    class Forward(CommonService):
        _service_name = "Forward"
        _logger_name = "forward"

        def initializing(self) -> None:
            workflows.recipe.wrap_subscribe(self._transport, queue, self.forward, acknowledgement=True)

        def forward(self, wrapper: Any, header: dict[str, Any], message: Any) -> None:
            transport: Any = self._transport
            transaction = transport.transaction_begin(subscription_id=header["subscription"])
            transport.ack(header, transaction=transaction)
            wrapper.send(message, transaction=transaction)
            transport.transaction_commit(transaction)

    Frontend(
        transport=workflows_transport(),
        service=Forward,
        transport_command_channel="command",
        environment={},
    ).run()


def workflows_transport() -> Any:
    """The transport of workflows for the broker that is measured."""
    if broker_port().startswith("amqp:"):
        from workflows.transport.pika_transport import PikaTransport

        PikaTransport.defaults |= {
            "--rabbit-host": "127.0.0.1",
            "--rabbit-port": int(broker_port().removeprefix("amqp:")),
            "--rabbit-user": USERNAME,
            "--rabbit-pass": PASSWORD,
            "--rabbit-vhost": "/",
        }
        return PikaTransport
    from workflows.transport.stomp_transport import StompTransport

    StompTransport.defaults |= {
        "--stomp-host": "127.0.0.1",
        "--stomp-port": int(broker_port()),
        "--stomp-user": USERNAME,
        "--stomp-pass": PASSWORD,
        "--stomp-prfx": NAMESPACE,
    }
    return StompTransport


def raw(queue: str) -> None:
    """A socket: takes what has come, and for each frame of it sends one made before, in one transaction."""
    target = f"/queue/{NAMESPACE}.{next_queue(queue)}"
    body = b"x" * raw_frame_size()
    with socket.create_connection(("127.0.0.1", int(broker_port()))) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(
            f"CONNECT\naccept-version:1.2\nhost:b\nlogin:{USERNAME}\npasscode:{PASSWORD}\n\n\0".encode()
        )
        sock.recv(4096)
        source = f"/queue/{NAMESPACE}.{queue}"
        subscription = f"id:1\ndestination:{source}\nack:client\nactivemq.prefetchSize:{2 * GROUP}"
        sock.sendall(f"SUBSCRIBE\n{subscription}\n\n\0".encode())
        head = f"SEND\ndestination:{target}\npersistent:true\ncontent-length:{len(body)}"
        pass_on(sock, head, body)


def pass_on(sock: socket.socket, head: str, body: bytes) -> None:
    """Answer each group of frames with a transaction; ends with the process."""
    acknowledgement = re.compile(rb"\nack:([^\n]+)\n")
    buffer = b""
    for number in range(1, sys.maxsize):
        taken = acknowledgement.findall(buffer)
        while not taken:
            buffer += sock.recv(1 << 20)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            taken = acknowledgement.findall(buffer)
        buffer = buffer[buffer.rfind(taken[-1]) + len(taken[-1]) :]
        send = f"{head}\ntransaction:{number}\n\n".encode() + body + b"\0"
        sock.sendall(
            b"BEGIN\ntransaction:%d\n\n\0ACK\nid:%b\ntransaction:%d\n\n\0" % (number, taken[-1], number)
            + send * len(taken)
            + b"COMMIT\ntransaction:%d\n\n\0" % number
        )


KINDS: dict[str, Callable[[str], None]] = {
    "ours": ours,
    "reporting": reporting,
    "workflows": workflows,
    "raw": raw,
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](sys.argv[2])
