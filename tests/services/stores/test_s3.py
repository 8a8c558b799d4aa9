"""A store that speaks S3: Ceph's object gateway."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
import traceback
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import urllib3
from minio import Minio

from parvis_services.stores import s3_http
from parvis_services.stores.policy import bucket_policy
from parvis_services.stores.profiles import KEY, Login, Role, S3Profile, StoreNotConfigured, open_store
from parvis_services.stores.s3 import S3Store
from parvis_services.stores.store import (
    AccessDenied,
    DamagedObject,
    NoSuchObject,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from real.ceph import DAY, USERS, Ceph
from real.daemon import free_ports, make_certificates
from services.stores.contract import StoreContract
from tcp_proxy import Direction, TcpProxy
from waiting import wait_until

pytestmark = pytest.mark.real("ceph")


def opened(ceph: Ceph, role: Role, **more: Any) -> S3Store:
    """The gateway, in a role."""
    store = open_store("ceph", role, {KEY: {"ceph": ceph.profile(**more)}})
    assert isinstance(store, S3Store)
    return store


def peer(ceph: Ceph) -> Minio:
    """What another program may use."""
    access_key, secret_key = ceph.keys["manage"]
    return Minio(f"127.0.0.1:{ceph.port}", access_key, secret_key, secure=False)


def policy_of(bucket: str) -> str:
    return bucket_policy(bucket, [USERS["read"]], [USERS["write"]])


@pytest.fixture
def store(ceph: Ceph) -> Iterator[S3Store]:
    store = opened(ceph, "manage")
    yield store
    store.close()


@pytest.fixture
def bucket(store: S3Store) -> str:
    name = f"mx-{secrets.token_hex(4)}"
    store.make_bucket(name)
    store.set_policy(name, policy_of(name))
    return name


def _is_denied(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except AccessDenied:
        return True
    return False


class TestS3Store(StoreContract):
    """Ceph does what every store does."""


def test_reader_and_writer_can_do_no_more_than_that(ceph: Ceph, store: S3Store, bucket: str) -> None:
    reader, writer = opened(ceph, "read"), opened(ceph, "write")
    writer.put(bucket, "a/000001", b"counts")
    assert reader.get(bucket, "a/000001").data == b"counts"
    assert [one.key for one in reader.list_after(bucket)] == ["a/000001"]
    assert reader.stat(bucket, "a/000001").size == 6
    assert reader.usage(bucket).objects == 1
    refused = {
        "reader: put": lambda: reader.put(bucket, "a/000002", b""),
        "reader: overwrite": lambda: reader.put(bucket, "a/000001", b"", replace=True),
        "reader: delete": lambda: reader.delete(bucket, ["a/000001"]),
        "reader: rule": lambda: reader.expire(bucket, 1),
        "reader: make": lambda: reader.make_bucket("of-the-reader"),
        "reader: remove": lambda: reader.remove_bucket(bucket),
        "reader: policy": lambda: reader.set_policy(bucket, bucket_policy(bucket, writers=[USERS["read"]])),
        "writer: get": lambda: writer.get(bucket, "a/000001"),
        "writer: range": lambda: writer.get_range(bucket, "a/000001", 0, 1),
        "writer: stat": lambda: writer.stat(bucket, "a/000001"),
        "writer: list": lambda: writer.list_after(bucket),
        "writer: delete": lambda: writer.delete(bucket, ["a/000001"]),
        "writer: make": lambda: writer.make_bucket("of-the-writer"),
    }
    allowed = [what for what, ask in refused.items() if not _is_denied(ask)]
    assert allowed == []
    assert store.get(bucket, "a/000001").data == b"counts"
    store.delete(bucket, ["a/000001"])
    assert reader.list_after(bucket) == []


def test_link_is_good_until_it_expires(ceph: Ceph, store: S3Store, bucket: str) -> None:
    store.put(bucket, "some", b"counts")
    link = opened(ceph, "read").presign(bucket, "some", 2)
    assert not any(secret in link for _, secret in ceph.keys.values())
    anybody = urllib3.PoolManager(retries=False)
    assert anybody.request("GET", link).data == b"counts"
    wait_until(lambda: anybody.request("GET", link).status == 403, 10, "the link to expire")


def test_rule_removes_objects(ceph: Ceph, store: S3Store, bucket: str) -> None:
    store.put(bucket, "short/000001", b"")
    store.put(bucket, "long/000001", b"")
    store.expire(bucket, 1000, "long/")
    store.expire(bucket, 2, "short/")
    store.expire(bucket, 1, "short/")
    rules = peer(ceph).get_bucket_lifecycle(bucket)
    assert rules is not None
    assert sorted(rule.expiration.days or 0 for rule in rules.rules if rule.expiration) == [1, 1000]
    wait_until(lambda: not store.list_after(bucket, "short/"), 12 * DAY, "the gateway to delete it")
    assert [one.key for one in store.list_after(bucket)] == ["long/000001"]


def test_quota_is_used_up(ceph: Ceph, store: S3Store, bucket: str) -> None:
    ceph.set_quota(bucket, 102_400)  # it counts in blocks of 4,096
    store.put(bucket, "a", bytes(60_000))
    with pytest.raises(StoreFull, match="quota"):
        store.put(bucket, "b", bytes(60_000))
    assert store.usage(bucket).capacity == 102_400


def test_damage_on_the_way_there_is_noticed(ceph: Ceph, store: S3Store, bucket: str) -> None:
    def damage(direction: Direction, passing: bytes) -> bytes:
        return passing.replace(bytes(100), b"\1" + bytes(99), 1) if direction == "up" else passing

    with contextlib.closing(TcpProxy(ceph.port)) as proxy:
        through = opened(ceph, "manage", endpoint=f"http://127.0.0.1:{proxy.port}")
        through.put(bucket, "whole", bytes(200_000))
        proxy.watch = damage
        with pytest.raises(StoreUnavailable, match="not what was sent"):
            through.put(bucket, "damaged", bytes(200_000))
    assert [one.key for one in store.list_after(bucket)] == ["whole"]


def test_damage_in_the_store_is_noticed(ceph: Ceph, store: S3Store, bucket: str) -> None:
    """Somebody else's program writes other bytes under our checksum."""
    info = store.put(bucket, "some", b"counts")
    peer(ceph).put_object(bucket, "some", BytesIO(b"other!"), 6, metadata={"sha256": info.metadata["sha256"]})
    with pytest.raises(DamagedObject, match="SHA-256"):
        store.get(bucket, "some")


def test_what_another_program_stored_is_read(ceph: Ceph, store: S3Store, bucket: str) -> None:
    peer(ceph).put_object(bucket, "some", BytesIO(b"counts"), 6)
    assert store.get(bucket, "some").data == b"counts"


def test_stopped_store_is_unavailable_at_once(ceph: Ceph, store: S3Store, bucket: str) -> None:
    store.put(bucket, "before", b"")
    ceph.stop_gateway()
    try:
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.put(bucket, "meanwhile", b"")
        with pytest.raises(StoreUnavailable, match="refused"):
            store.list_after(bucket)
        assert time.monotonic() - begun < 2 * s3_http.CONNECT_TIMEOUT
    finally:
        ceph.start_gateway()
    store.put(bucket, "meanwhile", b"")
    assert [one.key for one in store.list_after(bucket)] == ["before", "meanwhile"]


def test_store_that_says_nothing_is_unavailable(
    ceph: Ceph, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_http, "READ_TIMEOUT", 0.5)
    store = opened(ceph, "manage")
    store.put(bucket, "before", b"")
    with ceph.frozen_gateway():
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable, match="in time"):
            store.put(bucket, "meanwhile", b"")
        assert time.monotonic() - begun < 5


def test_connection_is_encrypted_and_the_store_known(ceph: Ceph, bucket: str, tmp_path: Path) -> None:
    known = opened(ceph, "manage", endpoint=ceph.tls_endpoint, ca_file=str(ceph.ca_file))
    known.put(bucket, "some", b"counts")
    assert known.get(bucket, "some").data == b"counts"
    make_certificates(tmp_path)
    for other in (None, str(tmp_path / "ca.pem")):
        stranger = opened(ceph, "manage", endpoint=ceph.tls_endpoint, ca_file=other)
        with pytest.raises(StoreUnavailable, match=r"no encrypted connection: .*certificate"):
            stranger.get(bucket, "some")
    (tmp_path / "empty.pem").write_text("nothing")
    for file in ("missing.pem", "empty.pem"):
        with pytest.raises(StoreNotConfigured, match=f"ca_file .*{file}"):
            opened(ceph, "manage", endpoint=ceph.tls_endpoint, ca_file=str(tmp_path / file))


def test_secret_is_in_no_error_and_no_log(
    ceph: Ceph, store: S3Store, bucket: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    secret = ceph.keys["manage"][1]
    wrong = {"access_key": ceph.keys["manage"][0], "secret_key": f"{secret}x"}
    unknown = {"access_key": "NOBODY", "secret_key": secret}
    (port,) = free_ports(1)
    stores = [
        store,
        opened(ceph, "manage", manage=wrong),
        opened(ceph, "manage", manage=unknown),
        opened(ceph, "manage", endpoint=f"http://127.0.0.1:{port}"),
        opened(ceph, "manage", endpoint=ceph.tls_endpoint),
        opened(ceph, "read"),
    ]
    said: list[str] = []
    with caplog.at_level(logging.DEBUG):
        for one in stores:
            said.append(f"{one!r} {one!s} {vars(one)!r}")
            for ask in (
                lambda one=one: one.get(bucket, "not-there"),
                lambda one=one: one.put(f"{bucket}-not", "some", b""),
                lambda one=one: one.list_after(f"{bucket}-not"),
                lambda one=one: one.delete(f"{bucket}-not", ["some"]),
                lambda one=one: one.expire(f"{bucket}-not", 1),
                lambda one=one: one.remove_bucket(f"{bucket}-not"),
            ):
                with pytest.raises(StoreError) as caught:
                    ask()
                said.append("".join(traceback.format_exception(caught.value)))
                assert caught.value.__cause__ is None
    text = "\n".join([*said, caplog.text])
    assert "urllib3" in caplog.text
    for word in (secret, "Signature=", "AWS4-HMAC", "Authorization"):
        assert word not in text
    assert "the secret does not fit" in text
    assert "does not know the access key" in text


def test_nothing_there_says_which(store: S3Store, bucket: str) -> None:
    with pytest.raises(NoSuchObject, match="no such object"):
        store.get(bucket, "not-there")
    with pytest.raises(NoSuchObject, match="no such bucket"):
        store.usage(f"{bucket}-not")


def test_bucket_of_somebody_else(ceph: Ceph, store: S3Store) -> None:
    other = S3Store("ceph", S3Profile(endpoint=ceph.endpoint), Login.model_validate(ceph.make_user()))
    name = f"mx-{secrets.token_hex(4)}"
    assert other.make_bucket(name)
    with pytest.raises(StoreError):
        store.make_bucket(name)
