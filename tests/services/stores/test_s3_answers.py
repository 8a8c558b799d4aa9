"""What a store is taken to say if something else answers in its place: a proxy, or a web server."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import traceback
from collections.abc import Callable, Iterator

import pytest

from parvis_services.stores.profiles import KEY, open_store
from parvis_services.stores.s3 import S3Store
from parvis_services.stores.store import StoreError, StoreFull, StoreUnavailable

CONTENT = b"counts"
SAID = "words-of-the-server"


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{SAID}</Message></Error>".encode()


def answer(status: str, body: bytes = b"", *headers: str, kind: str = "application/xml") -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "Connection: close", "", ""]).encode() + body


@contextlib.contextmanager
def store_that_says(reply: bytes) -> Iterator[S3Store]:
    """A store whose every answer is the same."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with contextlib.suppress(OSError), connection:
                    connection.settimeout(5)
                    asked = b""
                    while b"\r\n\r\n" not in asked:
                        asked += connection.recv(65_536)
                    connection.sendall(reply)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65_536):
                        pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        login = {"access_key": "someone", "secret_key": "secret-of-someone"}
        store = open_store(
            "ceph", "manage", {KEY: {"ceph": {"endpoint": endpoint, "region": "here", "manage": login}}}
        )
        assert isinstance(store, S3Store)
        yield store
        store.close()
        server.shutdown(socket.SHUT_RDWR)


Ask = Callable[[S3Store], object]


def put(store: S3Store) -> object:
    return store.put("images", "17/1/000001", CONTENT)


def delete(store: S3Store) -> object:
    return store.delete("images", ["17/1/000001"])


def listing(store: S3Store) -> object:
    return store.list_after("images")


@pytest.mark.parametrize(
    ("reply", "ask", "kind"),
    [
        (answer("200 OK", b"<html>Welcome</html>", kind="text/html"), put, StoreUnavailable),
        (answer("200 OK", b"no XML"), listing, StoreUnavailable),
        (answer("200 OK", b"no XML"), delete, StoreUnavailable),
        (answer("502 Bad Gateway", b"<html>"), delete, StoreUnavailable),
        (answer("503 Slow Down", error("SlowDown")), put, StoreUnavailable),
        (answer("403 Forbidden", error("QuotaExceeded")), put, StoreFull),
        (answer("409 Conflict", error("ConditionalRequestConflict")), put, StoreError),
    ],
)
def test_what_is_wrong_is_an_error_of_a_store(reply: bytes, ask: Ask, kind: type[StoreError]) -> None:
    with store_that_says(reply) as store, pytest.raises(kind):
        ask(store)


def test_what_a_server_wrote_is_in_no_traceback() -> None:
    with store_that_says(answer("503 Slow Down", error("SlowDown"))) as store:
        for ask in (put, delete, listing):
            with pytest.raises(StoreUnavailable) as raised:
                ask(store)
            assert SAID not in "".join(traceback.format_exception(raised.value))


def test_an_object_that_comes_in_chunks_is_whole() -> None:
    head = (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
        f'ETag: "tag"\r\nx-amz-meta-sha256: {hashlib.sha256(CONTENT).hexdigest()}\r\n\r\n'
    )
    with store_that_says(head.encode() + b"6\r\ncounts\r\n0\r\n\r\n") as store:
        found = store.get("images", "17/1/000001")
    assert (found.data, found.info.size) == (CONTENT, len(CONTENT))
