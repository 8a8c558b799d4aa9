"""What an S3 store says of a failure, as the errors of a store. None of them repeats a server's text."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Mapping
from typing import Final
from xml.etree.ElementTree import ParseError

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, NewConnectionError
from urllib3.exceptions import ReadTimeoutError as ReadTimeout
from urllib3.exceptions import SSLError as TlsError

from parvis_services.stores.store import (
    AccessDenied,
    NoSuchObject,
    ObjectExists,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from parvis_services.stores.url import ObjectUrl

NOT_S3: Final = "what answers there does not speak S3; is the endpoint right?"


class BeyondTheEnd(StoreError):
    """What was asked for begins where the object has ended."""


_Kind = type[StoreError]

_CODES: Final[Mapping[str, tuple[_Kind, str]]] = {
    "NoSuchKey": (NoSuchObject, "there is no such object: not written yet, or expired"),
    "NoSuchBucket": (NoSuchObject, "there is no such bucket"),
    "PreconditionFailed": (ObjectExists, "it is there already, and what is stored is not overwritten"),
    "QuotaExceeded": (StoreFull, "the quota is used up"),
    "InsufficientCapacity": (StoreFull, "the store is full"),
    "SignatureDoesNotMatch": (AccessDenied, "the secret does not fit the access key of the configuration"),
    "InvalidAccessKeyId": (AccessDenied, "the store does not know the access key of the configuration"),
    "RequestTimeTooSkewed": (AccessDenied, "the clocks of this machine and of the store differ by too much"),
    "BucketNotEmpty": (StoreError, "the bucket is not empty"),
    "BucketAlreadyExists": (StoreError, "there is a bucket of that name, and it belongs to somebody else"),
    "TooManyBuckets": (AccessDenied, "the login may not make a bucket, or no more of them"),
    "XAmzContentSHA256Mismatch": (StoreUnavailable, "what arrived there was not what was sent"),
    "RequestTimeout": (StoreUnavailable, "the store waited for too long for what was sent"),
    "SlowDown": (StoreUnavailable, "the store has too much to do"),
}
_STATUSES: Final[Mapping[int, tuple[_Kind, str]]] = {
    403: (AccessDenied, "the login of the configuration does not allow it, or there is no such bucket"),
    404: (NoSuchObject, "there is no such object: not written yet, or expired"),
    412: _CODES["PreconditionFailed"],
    416: (BeyondTheEnd, "the object ends before that"),
    429: _CODES["SlowDown"],
    507: (StoreFull, "the store is full"),
}


@contextlib.contextmanager
def told(url: ObjectUrl | str) -> Iterator[None]:
    """Tell by the errors of a store what `minio` and `urllib3` raise, and nothing that these know."""
    try:
        yield
    except S3Error as error:
        found = error_of(url, error.response.status, error.code or "")
    except ServerError as error:
        found = error_of(url, error.status_code, "")
    except (InvalidResponseError, ParseError):
        found = StoreUnavailable(url, NOT_S3)
    except MinioException as error:
        found = StoreError(url, f"the store's answer is not understood ({type(error).__name__})")
    except (HTTPError, OSError) as error:
        found = StoreUnavailable(url, _why_away(error))
    else:
        return
    raise found from None  # the error that is behind it may know a signature, and what the server wrote


def error_of(url: ObjectUrl | str, status: int, code: str) -> StoreError:
    """The error for an answer: its status, and the code of S3 that came with it, if one did."""
    if status == 404 and not code and isinstance(url, ObjectUrl) and not url.key:
        code = "NoSuchBucket"
    kind, reason = _CODES.get(code) or _STATUSES.get(status) or (None, "")
    if kind is not None:
        return kind(url, reason)
    told = f"{status} {code}".strip() if code.isalnum() and len(code) < 60 else str(status)
    if status >= 500:
        return StoreUnavailable(url, f"the store has a fault of its own ({told})")
    return StoreError(url, f"the store refused it ({told})")


def _why_away(error: Exception) -> str:
    if isinstance(error, MaxRetryError) and error.reason is not None:
        error = error.reason
    if isinstance(error, ConnectTimeoutError) and not isinstance(error, NewConnectionError):
        return "the store does not answer: no connection in time"
    if isinstance(error, ReadTimeout):
        return "the store did not answer in time"
    if isinstance(error, TlsError | ssl.SSLError):
        return f"no encrypted connection{_certificate(error)}"
    if isinstance(error, NewConnectionError):
        behind = error.__cause__ or error.__context__
        said = behind.strerror if isinstance(behind, OSError) else None
        return f"the store cannot be reached: {said or 'no connection'}"
    return f"the connection to the store broke ({type(error).__name__})"


def _certificate(error: BaseException) -> str:
    """What is wrong with the certificate, if that is the reason."""
    for one in (error, error.__cause__, error.__context__, *error.args):
        if isinstance(one, ssl.SSLCertVerificationError):
            return f": {one.verify_message}"
    return ""
