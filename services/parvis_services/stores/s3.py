"""A store that speaks S3: Ceph's object gateway, and others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import ClassVar, Final
from urllib.parse import urlsplit

from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.credentials.providers import StaticProvider
from minio.datatypes import parse_list_objects
from minio.deleteobjects import DeleteObject
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from urllib3 import BaseHTTPResponse

from parvis_services.stores.profiles import Login, S3Profile
from parvis_services.stores.s3_errors import NOT_S3, BeyondTheEnd, error_of, told
from parvis_services.stores.s3_http import SignedHttp, connection_pool, tls_context
from parvis_services.stores.store import (
    CHECKSUM,
    Bytes,
    DamagedObject,
    ImageStore,
    ObjectInfo,
    StoredObject,
    StoreUnavailable,
    Usage,
    check_metadata,
)
from parvis_services.stores.url import BadUrl, ObjectUrl, Scheme, check_bucket, check_key, check_prefix

_FEWEST: Final = 3  # letters of a bucket's name
_LARGEST_PAGE: Final = 1000
_LONGEST_LINK: Final = 7 * 86_400
_METADATA: Final = "x-amz-meta-"
_RULE: Final = "parvis-"


class S3Store(ImageStore):
    """A store that speaks S3, in one role.

    A store that takes longer than 3 s to connect to, or 10 s to answer, counts as unavailable. Nothing is
    tried again here.

    Args:
        profile: Name of the store.
        settings: Where it is.
        login: Who to be.

    Raises:
        StoreNotConfigured: The file with the secret or the one with the certificates cannot be used.
    """

    scheme: ClassVar[Scheme] = "s3"

    def __init__(self, profile: str, settings: S3Profile, login: Login) -> None:
        self.profile = profile
        endpoint = urlsplit(settings.endpoint)
        secure = endpoint.scheme == "https"
        provider = StaticProvider(login.access_key, login.secret())
        self._pool = connection_pool(tls_context(profile, settings) if secure else None)
        self._http = SignedHttp(self._pool, settings.endpoint, settings.region, provider.retrieve())
        # With the region given, it is never asked for: a reader may not.
        self._client = Minio(
            endpoint.netloc,
            secure=secure,
            region=settings.region,
            credentials=provider,
            http_client=self._pool,
        )

    def put(
        self,
        bucket: str,
        key: str,
        data: Bytes,
        metadata: Mapping[str, str] | None = None,
        *,
        replace: bool = False,
    ) -> ObjectInfo:
        """As of `ImageStore`."""
        url = self._checked(bucket, key)
        kept = dict(metadata or {})
        check_metadata(kept)
        view = memoryview(data)
        kept[CHECKSUM] = hashlib.sha256(view).hexdigest()
        headers = {f"{_METADATA}{name}": text for name, text in kept.items()}
        headers["Content-Type"] = "application/octet-stream"
        # An object belongs to who puts it: without this, who owns the bucket could delete and not read it.
        headers["x-amz-acl"] = "bucket-owner-full-control"
        if not replace:
            headers["If-None-Match"] = "*"
        response = self._http.request(url, "PUT", body=view, headers=headers, digest=kept[CHECKSUM])
        if not (etag := _etag(response)):  # a web server that says yes to everything has stored nothing
            raise StoreUnavailable(url, NOT_S3)
        return ObjectInfo(key, view.nbytes, etag, _moment(response, "date"), kept)

    def get(self, bucket: str, key: str) -> StoredObject:
        """As of `ImageStore`. What another program stored without a checksum is not checked."""
        url = self._checked(bucket, key)
        response = self._http.request(url, "GET")
        data = response.data
        # Whatever is between us and the store may send it on in chunks, without saying how long it is.
        info = replace(_info(key, response), size=len(data))
        expected = info.metadata.get(CHECKSUM)
        if expected and hashlib.sha256(data).hexdigest() != expected:
            raise DamagedObject(url, "its SHA-256 is not that of what was stored")
        return StoredObject(info, data)

    def get_range(self, bucket: str, key: str, start: int, length: int) -> bytes:
        """As of `ImageStore`."""
        url = self._checked(bucket, key)
        first = max(0, start)
        if length < 1:
            return b""
        headers = {"Range": f"bytes={first}-{first + length - 1}"}
        try:
            return self._http.request(url, "GET", headers=headers).data
        except BeyondTheEnd:
            return b""

    def list_after(
        self, bucket: str, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[ObjectInfo]:
        """As of `ImageStore`: one request."""
        url = self._checked(bucket)
        query = {"list-type": "2", "max-keys": str(min(limit, _LARGEST_PAGE))}
        if check_prefix(prefix):
            query["prefix"] = prefix
        if after:
            query["start-after"] = after
        response = self._http.request(url, "GET", query=query)
        with told(url):
            objects, *_ = parse_list_objects(response)
            return [
                ObjectInfo(
                    str(one.object_name),
                    one.size or 0,
                    (one.etag or "").strip('"'),
                    one.last_modified.timestamp() if one.last_modified else 0.0,
                )
                for one in objects
            ]

    def stat(self, bucket: str, key: str) -> ObjectInfo:
        """As of `ImageStore`."""
        return _info(key, self._http.request(self._checked(bucket, key), "HEAD"))

    def delete(self, bucket: str, keys: list[str]) -> None:
        """As of `ImageStore`: one request for a thousand."""
        urls = {key: self._checked(bucket, key) for key in keys}
        with told(self._checked(bucket)):
            failed = list(self._client.remove_objects(bucket, (DeleteObject(key) for key in urls)))
        for one in failed:
            if one.code != "NoSuchKey":
                status = 403 if one.code == "AccessDenied" else 400
                raise error_of(urls.get(one.name or "", self.url(bucket)), status, one.code or "")

    def expire(self, bucket: str, days: int, prefix: str = "") -> None:
        """As of `ImageStore`. The store looks once a day, so that it may take up to a day longer."""
        url = self._checked(bucket)
        check_prefix(prefix)
        if days < 1:
            raise ValueError("a rule counts in whole days, from 1 on")
        with told(url):
            there = self._client.get_bucket_lifecycle(bucket)
            others = [rule for rule in (there.rules if there else []) if rule.rule_id != f"{_RULE}{prefix}"]
            ours = Rule(
                ENABLED,
                rule_filter=Filter(prefix=prefix),
                rule_id=f"{_RULE}{prefix}",
                expiration=Expiration(days=days),
            )
            self._client.set_bucket_lifecycle(bucket, LifecycleConfig([*others, ours]))

    def presign(self, bucket: str, key: str, seconds: int) -> str:
        """As of `ImageStore`, for 1 s to 7 days. Whoever has the link may fetch the object until then."""
        url = self._checked(bucket, key)
        if not 1 <= seconds <= _LONGEST_LINK:
            raise ValueError(f"a link can be good for 1 to {_LONGEST_LINK} s")
        with told(url):
            return self._client.presigned_get_object(bucket, key, timedelta(seconds=seconds))

    def buckets(self) -> list[str]:
        """As of `ImageStore`: those that belong to the login."""
        with told(f"{self.scheme}://{self.profile}"):
            return sorted(one.name for one in self._client.list_buckets())

    def make_bucket(self, bucket: str) -> bool:
        """As of `ImageStore`. Raises StoreError if it is there and belongs to somebody else."""
        url = self._checked(bucket)
        with told(url):
            if self._client.bucket_exists(bucket):
                return False
            self._client.make_bucket(bucket)
        return True

    def remove_bucket(self, bucket: str) -> None:
        """As of `ImageStore`."""
        with told(self._checked(bucket)):
            self._client.remove_bucket(bucket)

    def usage(self, bucket: str, prefix: str = "") -> Usage:
        """As of `ImageStore`. Of a whole bucket Ceph knows it at once, and its quota."""
        url = self._checked(bucket)
        headers = self._http.request(url, "HEAD").headers
        quota = _count(headers, "x-rgw-quota-bucket-size")
        used, objects = _count(headers, "x-rgw-bytes-used"), _count(headers, "x-rgw-object-count")
        if not check_prefix(prefix) and used is not None and objects is not None:
            return Usage(used, objects, quota)
        sizes = [one.size for one in self.list_all(bucket, prefix)]
        return Usage(sum(sizes), len(sizes), quota)

    def close(self) -> None:
        """Close all connections that are not in use."""
        self._pool.clear()

    def set_policy(self, bucket: str, policy: str) -> None:
        """Put a bucket policy in force, in place of the one there is.

        Args:
            bucket: Which bucket.
            policy: JSON, as of `policy.bucket_policy`.
        """
        with told(self._checked(bucket)):
            self._client.set_bucket_policy(bucket, policy)

    def _checked(self, bucket: str, key: str = "") -> ObjectUrl:
        check_bucket(bucket)
        if len(bucket) < _FEWEST:
            raise BadUrl(f"{bucket!r} cannot name a bucket of an S3 store: it must have 3 letters or more")
        if key:
            check_key(key)
        return self.url(bucket, key)


def _info(key: str, response: BaseHTTPResponse) -> ObjectInfo:
    metadata = {
        name.lower().removeprefix(_METADATA): text
        for name, text in response.headers.items()
        if name.lower().startswith(_METADATA)
    }
    size = _count(response.headers, "content-length") or 0
    return ObjectInfo(key, size, _etag(response), _moment(response, "last-modified"), metadata)


def _etag(response: BaseHTTPResponse) -> str:
    return response.headers.get("etag", "").strip('"')


def _moment(response: BaseHTTPResponse, header: str) -> float:
    try:
        return parsedate_to_datetime(response.headers.get(header, "")).timestamp()
    except ValueError:
        return 0.0


def _count(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "")
    return int(text) if text.isdecimal() else None
