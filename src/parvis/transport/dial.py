"""Connecting to a broker, with errors for people."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Generator
from typing import Final

from parvis.transport.base import BrokerRefused, Disconnected

TLS_ALERT: Final = b"\x15\x03"
"""How the answer begins of a server that expected TLS."""


@contextlib.contextmanager
def dialled(host: str, port: int, tls: ssl.SSLContext | None, timeout: float) -> Generator[socket.socket]:
    """Give a socket to log in on, which blocks. If that fails, it is closed.

    Args:
        host, port: Where the broker is.
        tls: How to check the broker's certificate, or None for no TLS.
        timeout: Seconds for each step.

    Raises:
        Disconnected: Nobody answers.
        BrokerRefused: There is no such host, or the broker cannot prove who it is.
    """
    broker = f"{host}:{port}"
    with contextlib.ExitStack() as on_failure:
        try:
            sock = on_failure.enter_context(socket.create_connection((host, port), timeout))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if tls is not None:
                sock = on_failure.enter_context(tls.wrap_socket(sock, server_hostname=host))
            yield sock
        except ssl.SSLCertVerificationError as error:
            raise BrokerRefused(f"the certificate of {broker} is not good: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise BrokerRefused(_no_tls(broker, error)) from None
        except socket.gaierror as error:
            raise _unresolved(host, error) from None
        except UnicodeError:
            raise BrokerRefused(f"{host[:80]!r} is no name of a host") from None
        except OSError as error:
            raise Disconnected(f"{broker} cannot be reached: {error or type(error).__name__}") from None
        on_failure.pop_all()


def wants_tls(broker: str) -> str:
    """What to say of a broker that answers `TLS_ALERT`."""
    return f"{broker} speaks TLS: set tls in the settings of the broker"


def _no_tls(broker: str, error: ssl.SSLError) -> str:
    if error.reason == "WRONG_VERSION_NUMBER":
        return f"{broker} does not speak TLS: take tls out of the settings, or ask for its port with TLS"
    return f"no TLS connection to {broker}: {error.reason or error}"


def _unresolved(host: str, error: socket.gaierror) -> BrokerRefused | Disconnected:
    if error.errno == socket.EAI_NONAME:
        return BrokerRefused(f"there is no host {host}")
    return Disconnected(f"the address of {host} cannot be found: {error.strerror}")
