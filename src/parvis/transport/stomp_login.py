"""Connecting to a STOMP 1.2 broker and logging in."""

from __future__ import annotations

import contextlib
import math
import socket
import ssl

from parvis.transport.base import BrokerRefused, Disconnected
from parvis.transport.stomp_connection import Connection, error_text
from parvis.transport.stomp_frames import Frame, Parser, ProtocolError, encode

_LARGEST_HEAD = 16 * 1024 * 1024
_MOST_HEADERS = 10_000
_TLS_ALERT = b"\x15\x03"  # how a server answers that expected TLS
_PUBLIC = "password"  # the default of brokers and of ours: no secret, and a word of their refusals


def open_connection(
    host: str,
    port: int,
    username: str,
    password: str,
    *,
    heartbeat: float,
    tls: ssl.SSLContext | None,
    timeout: float,
) -> Connection:
    """Connect and log in.

    Args:
        host, port: Where the broker is.
        username, password: Who we are.
        heartbeat: Seconds within which each side is to be heard; 0 for no heart-beats.
        tls: How to check the broker's certificate, or None for no TLS.
        timeout: Seconds for each step.

    Raises:
        Disconnected: Nobody answers.
        BrokerRefused: There is no such host; or the broker does not let us in, cannot prove who it is, or is
            no STOMP 1.2 broker.
    """
    broker = f"{host}:{port}"
    with contextlib.ExitStack() as on_failure:
        try:
            sock = on_failure.enter_context(socket.create_connection((host, port), timeout))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if tls is not None:
                sock = on_failure.enter_context(tls.wrap_socket(sock, server_hostname=host))
            # Wide limits: a broker may pass on what another broker, with limits of its own, has accepted.
            parser = Parser(max_head=_LARGEST_HEAD, max_headers=_MOST_HEADERS)
            beat = round(heartbeat * 1000)
            login = {"accept-version": "1.2", "host": host, "heart-beat": f"{beat},{beat}"}
            login |= {"login": username, "passcode": password} if username else {}
            sock.sendall(encode(Frame("CONNECT", login)))
            answer = _first_frame(sock, parser, broker, encrypted=tls is not None)
        except ProtocolError as error:
            raise BrokerRefused(f"{broker} does not speak STOMP as expected: {error}") from None
        except ssl.SSLCertVerificationError as error:
            raise BrokerRefused(f"the certificate of {broker} is not good: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise BrokerRefused(_no_tls(broker, error)) from None
        except socket.gaierror as error:
            raise _unresolved(host, error) from None
        except OSError as error:
            raise Disconnected(f"{broker} cannot be reached: {error or type(error).__name__}") from None
        headers = answer.headers
        if answer.command != "CONNECTED":
            text = error_text(answer)
            raise BrokerRefused(f"{broker} refused the log-in: {_without(password, text)}")
        if headers.get("version") != "1.2":
            raise BrokerRefused(f"{broker} speaks STOMP {headers.get('version', '1.0')}, needed is 1.2")
        send_every, silent_after = _rhythm(beat, headers.get("heart-beat", "0,0"))
        sock.setblocking(False)
        on_failure.pop_all()
    server = headers.get("server", "a STOMP broker")
    return Connection(
        sock, parser, broker=broker, server=server, send_every=send_every, silent_after=silent_after
    )


def _no_tls(broker: str, error: ssl.SSLError) -> str:
    if error.reason == "WRONG_VERSION_NUMBER":
        return f"{broker} does not speak TLS: take tls out of the settings, or ask for its port with TLS"
    return f"no TLS connection to {broker}: {error.reason or error}"


def _unresolved(host: str, error: socket.gaierror) -> BrokerRefused | Disconnected:
    if error.errno == socket.EAI_NONAME:
        return BrokerRefused(f"there is no host {host}")
    return Disconnected(f"the address of {host} cannot be found: {error.strerror}")


def _first_frame(sock: socket.socket, parser: Parser, broker: str, *, encrypted: bool) -> Frame:
    while True:
        data = sock.recv(4096)
        if not data:
            hint = "" if encrypted else " (does it want TLS?)"
            raise Disconnected(f"{broker} closed the connection during the log-in{hint}")
        if data.startswith(_TLS_ALERT) and not encrypted:
            raise BrokerRefused(f"{broker} speaks TLS: set tls in the settings of the broker")
        for item in parser.feed(data):
            if isinstance(item, Frame):
                return item


def _rhythm(beat: int, answer: str) -> tuple[float, float]:
    """Seconds after which we must send, and after which a silent broker is gone; infinite for never.

    `beat` is what we offered and asked for, in ms; `answer` is the header with what the broker offers and
    wants. We send twice as often as agreed, and wait for more than two beats: networks and brokers dawdle.
    """
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in answer.split(",")]
    offers, wants = (*numbers, 0, 0)[:2]
    send_every = max(beat, wants) / 2000 if beat and wants else math.inf
    silent_after = max(beat, offers) / 1000 * 2 + 1 if beat and offers else math.inf
    return send_every, silent_after


def _without(password: str, text: str) -> str:
    return text.replace(password, "***") if password not in ("", _PUBLIC) else text
