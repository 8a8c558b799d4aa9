"""`parvis store` on Ceph: each role with no more than it needs, links, the store's own rules."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import urllib3
from click.testing import CliRunner, Result
from minio import Minio

from parvis.cli import main
from parvis_services.stores.expiry import EXPIRY, rules_of, set_backstop, sweep
from parvis_services.stores.profiles import KEY, open_store
from parvis_services.xray.analysis import analyse
from real.ceph import USERS, Ceph
from recorded_files import images, write_file
from stored_series import HOUR, keys, pinned, put_series
from waiting import wait_until

pytestmark = pytest.mark.real("ceph")


class Site:
    """A site whose machines have a login each for what they do, and no more."""

    def __init__(self, ceph: Ceph, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ceph = ceph
        self._directory = directory
        self._monkeypatch = monkeypatch
        self.said: list[str] = []

    def storage(self, *roles: str, **more: str) -> Mapping[str, Any]:
        """What the configuration of a machine with some roles says of stores; `more` counts more."""
        profile = self.ceph.profile(**more)
        return {KEY: {"ceph": {key: profile[key] for key in ("endpoint", *more, *roles)}}}

    def run(self, *arguments: object, roles: tuple[str, ...], **more: str) -> Result:
        """Run `parvis store` on such a machine."""
        storage = {"plugin": "storage", **self.storage(*roles, **more)}
        content = {"version": 1, "storage": storage, "environments": {"x": ["storage"], "default": "x"}}
        file = self._directory / "site.yml"
        file.write_bytes(orjson.dumps(content))
        self._monkeypatch.setenv("ZOCALO_CONFIG", str(file))
        result = CliRunner().invoke(main, ["store", *map(str, arguments)])
        self.said.append(result.output)
        return result

    def done(self, *arguments: object, roles: tuple[str, ...], **more: str) -> str:
        """What a command prints that does well."""
        result = self.run(*arguments, roles=roles, **more)
        assert result.exit_code == 0, result.output
        return result.stdout


@pytest.fixture
def site(ceph: Ceph, tmp_path: Path, unconfigured: None, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(ceph, tmp_path, monkeypatch)


@pytest.fixture
def bucket() -> str:
    return f"mx-{secrets.token_hex(4)}"


def test_every_role_can_do_its_part_and_no_secret_is_shown(site: Site, bucket: str, tmp_path: Path) -> None:
    master = write_file(tmp_path / "x_master.h5", images(4))
    ingest = ("ingest", master, 993677, "--bucket", bucket)
    url = f"s3://ceph/{bucket}/993677/1"
    result = site.run(*ingest, roles=("write",))
    assert result.exit_code == 1
    assert bucket in result.stderr
    site.done("ingest", master, 1, "--bucket", bucket, roles=("manage",))  # who makes the bucket
    readers = ("--reader", USERS["read"], "--writer", USERS["write"])
    site.done("policy", "ceph", bucket, *readers, "--apply", roles=("manage",))
    site.done(*ingest, roles=("write",))
    assert "4 were there already" in site.done(*ingest, roles=("write", "read"))
    rows = [json.loads(line) for line in site.done("digest", url, "--json", roles=("read",)).splitlines()]
    assert [row["n_spots_total"] for row in rows] == [
        analyse(master, frame=frame).n_spots_total for frame in range(4)
    ]
    assert len(site.done("ls", url, "--json", roles=("read",)).splitlines()) == 7
    site.done("manifest", url, roles=("read",))
    site.done("pin", url, "--hours", 1, roles=("write",))
    assert site.run("cleanup", url, "--yes", roles=("manage",)).exit_code == 1
    site.done("unpin", url, roles=("write",))
    assert site.run("cleanup", url, "--yes", roles=("read",)).exit_code == 1
    site.done("cleanup", f"s3://ceph/{bucket}", "--yes", roles=("manage",))
    assert bucket not in site.done("ls", "s3://ceph", roles=("manage",))
    said = "\n".join(site.said)
    assert [secret for _, secret in site.ceph.keys.values() if secret in said] == []


def test_a_link_is_good_for_its_time_and_then_forbidden(site: Site, bucket: str, tmp_path: Path) -> None:
    store = open_store("ceph", "manage", site.storage("manage"))
    place = put_series(store, 7, bucket=bucket)
    url = store.url(bucket, place.frame(2))
    link = site.done("link", url, "--seconds", 2, roles=("manage",)).strip()
    assert site.ceph.keys["manage"][1] not in link
    assert urllib3.request("GET", link).data == b"image"
    assert "SHA-256 is right" in site.done("get", link, "-o", tmp_path / "image", roles=())
    assert (tmp_path / "image").read_bytes() == b"image"
    gone = site.run("get", link.replace("000002", "000009"), roles=())
    assert (gone.exit_code, "does not take the link (403)" in gone.stderr) == (1, True)
    wait_until(lambda: urllib3.request("GET", link).status == 403, 20, "the link to expire")
    expired = site.run("get", link, "-o", tmp_path / "late", roles=())
    assert (expired.exit_code, expired.stdout) == (1, "")
    assert "the link has expired" in expired.stderr
    assert "(403): ask for a new one" in expired.stderr
    assert not (tmp_path / "late").exists()
    signed = link.rpartition("X-Amz-Signature=")[2]
    assert [text for text in (gone.output, expired.output) if signed in text] == []
    missing = site.run("link", f"{url}9", roles=("manage",))
    assert (missing.exit_code, missing.stdout) == (1, "")


def test_an_object_or_a_link_to_one_is_fetched_over_a_connection_that_is_checked(
    site: Site, bucket: str, tmp_path: Path
) -> None:
    store = open_store("ceph", "manage", site.storage("manage"))
    place = put_series(store, 7, bucket=bucket)
    image, gone = (store.url(bucket, place.frame(number)) for number in (2, 9))
    known = {"endpoint": site.ceph.tls_endpoint, "ca_file": str(site.ceph.ca_file)}
    site.done("get", image, "-o", tmp_path / "image", roles=("manage",), **known)
    assert (tmp_path / "image").read_bytes() == b"image"
    assert "no such object" in site.run("get", gone, roles=("manage",), **known).stderr
    denied = site.run("get", image, roles=("read",), **known)  # the bucket has no policy for it yet
    assert (denied.exit_code, "does not allow it" in denied.stderr) == (1, True)
    links = [
        site.done("link", url, "--seconds", 600, roles=("manage",), **known).strip()
        for url in (image, store.url(bucket, place.header))
    ]
    assert site.run("get", links[0], roles=(), **known).stdout_bytes == b"image"
    store.delete(bucket, [place.header])
    assert "the object is gone (404)" in site.run("get", links[1], roles=(), **known).stderr
    stranger = site.run("get", links[0], roles=(), endpoint="https://127.0.0.1:1")
    assert stranger.exit_code == 1
    assert "no encrypted connection" in stranger.stderr


def test_a_sweep_beside_the_rule_of_the_store_itself(site: Site, bucket: str) -> None:
    store = open_store("ceph", "manage", site.storage("manage"))
    place = put_series(store, 1, bucket=bucket)
    put_series(store, 2, bucket=bucket)
    pinned(store, place, 200)
    (rule,) = rules_of({EXPIRY: [{"store": "ceph", "bucket": bucket, "prefix": ""}]})
    set_backstop(store, rule, bucket)
    key, secret = site.ceph.keys["manage"]
    peer = Minio(f"127.0.0.1:{site.ceph.port}", key, secret, secure=False)
    lifecycle = peer.get_bucket_lifecycle(bucket)
    assert lifecycle is not None
    assert [one.expiration.days for one in lifecycle.rules if one.expiration] == [10]
    later = time.time() + 100 * HOUR
    swept = sweep(store, rule, [rule], later)
    assert [one.place.dcid for one in swept.deleted] == [2]
    assert [one.place for one in swept.pinned] == [place]
    assert keys(store, bucket) == [*map(place.frame, (1, 2, 3)), place.header, place.pin("job")]
    assert [one.place.dcid for one in sweep(store, rule, [rule], later + 150 * HOUR).deleted] == [1]
    assert keys(store, bucket) == []
