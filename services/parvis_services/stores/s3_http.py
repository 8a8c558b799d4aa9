"""Signed requests to an S3 store: the client library has no way to ask it to store what is not there yet.

The content is signed by its SHA-256, which the store checks before it keeps anything.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import urllib3
from minio.credentials.credentials import Credentials
from minio.error import S3Error
from minio.signer import sign_v4_s3
from minio.time import to_amz_date, utcnow

from parvis_services.stores.profiles import KEY, S3Profile, StoreNotConfigured
from parvis_services.stores.s3_errors import error_of, told
from parvis_services.stores.store import LARGEST_OBJECT, Bytes, StoreError
from parvis_services.stores.url import ObjectUrl

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

CONNECT_TIMEOUT: Final = 3.0
READ_TIMEOUT: Final = 10.0

_KEPT_OPEN: Final = 32  # connections: as many threads as anybody has who uploads
_EMPTY: Final = hashlib.sha256(b"").hexdigest()


def connection_pool(tls: ssl.SSLContext | None) -> urllib3.PoolManager:
    """Connections to a store, kept open. Nothing is tried again here: who asks knows how long it helps."""
    timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT)
    return urllib3.PoolManager(maxsize=_KEPT_OPEN, timeout=timeout, retries=False, ssl_context=tls)


def tls_context(profile: str, settings: S3Profile) -> ssl.SSLContext:
    """What certificates to trust for a store. Raises StoreNotConfigured if they cannot be used."""
    file = settings.ca_file.expanduser() if settings.ca_file else None
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:
        why = error.strerror or "it holds no certificates"
        raise StoreNotConfigured(f"{KEY}: store {profile!r}: ca_file {file} cannot be used: {why}") from None


class SignedHttp:
    """Sends requests in the name of somebody. May be used from any thread.

    Args:
        pool: Connections.
        endpoint: `http[s]://HOST[:PORT]`.
        region: Of the store.
        credentials: In whose name.
    """

    def __init__(
        self, pool: urllib3.PoolManager, endpoint: str, region: str, credentials: Credentials
    ) -> None:
        self._pool = pool
        self._endpoint = endpoint
        self._region = region
        self._credentials = credentials

    def request(
        self,
        url: ObjectUrl,
        method: str,
        *,
        body: Bytes = b"",
        digest: str = _EMPTY,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> BaseHTTPResponse:
        """Send a request about an object or a bucket and return the answer, its content read.

        Args:
            url: What it is about.
            method: Of HTTP.
            body, digest: What to send, and its SHA-256 in hexadecimal digits.
            headers, query: What to say and to ask along with it.

        Raises:
            StoreError: The store refused it, or cannot be reached: one of its kinds. Its text has no secret.
        """
        path = quote(f"/{url.bucket}/{url.key}".rstrip("/"), safe="/-_.~")
        asked = urlencode(query or {}, quote_via=quote, safe="-_.~")
        target = urlsplit(f"{self._endpoint}{path}?{asked}" if asked else f"{self._endpoint}{path}")
        date = utcnow()
        signed: dict[str, str | list[str] | tuple[str]] = {
            **(headers or {}),
            "Host": target.netloc,
            "x-amz-content-sha256": digest,
            "x-amz-date": to_amz_date(date),
        }
        signed = sign_v4_s3(
            method=method,
            url=target,
            region=self._region,
            headers=signed,
            credentials=self._credentials,
            content_sha256=digest,
            date=date,
        )
        with told(url):
            response = self._pool.urlopen(
                method,
                urlunsplit(target),
                body=body if method in {"PUT", "POST"} else None,
                headers=signed,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            try:
                return _read(url, method, response)
            finally:
                response.release_conn()


def _read(url: ObjectUrl, method: str, response: BaseHTTPResponse) -> BaseHTTPResponse:
    if response.status in {200, 204, 206}:
        length = response.headers.get("content-length", "0")
        if method == "GET" and length.isdecimal() and int(length) > LARGEST_OBJECT:
            response.close()
            raise StoreError(url, f"it has {length} bytes, more than {LARGEST_OBJECT}")
        response.read(cache_content=True)
        return response
    response.read(cache_content=True)
    raise error_of(url, response.status, _code_of(response))


def _code_of(response: BaseHTTPResponse) -> str:
    if "xml" not in response.headers.get("content-type", "") or not response.data:
        return ""
    try:
        return S3Error.fromxml(response).code or ""
    except Exception:  # noqa: BLE001 - whatever it says, it is no more than the status does
        return ""
