"""Who may do what in a bucket: a bucket policy in the language of S3, by which a reader can only read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from parvis_services.stores.url import check_bucket

_USER: Final = re.compile(r"[A-Za-z0-9._@+=,-]{1,64}", re.ASCII)


def bucket_policy(
    bucket: str, readers: Sequence[str] = (), writers: Sequence[str] = (), tenant: str = ""
) -> str:
    """The policy of a bucket, as JSON.

    Readers can fetch and list, not write or delete. Writers can put, not read, list or delete; whoever puts
    may also overwrite, which S3 does not tell apart. Who owns the bucket can do all, and is who manages it.

    Args:
        bucket: Which bucket.
        readers, writers: Users of the store, as `radosgw-admin user create --uid` named them.
        tenant: Whose users they are, if the store has tenants.

    Raises:
        ValueError: There is nobody to allow anything, or a name cannot be a user's.
    """
    check_bucket(bucket)
    for name in (*readers, *writers, *([tenant] if tenant else [])):
        if not _USER.fullmatch(name):
            raise ValueError(f"{name[:80]!r} cannot be the name of a user")
    objects, itself = f"arn:aws:s3:::{bucket}/*", f"arn:aws:s3:::{bucket}"
    statements: list[dict[str, Any]] = []
    if readers:
        who = _principals(readers, tenant)
        statements.append(_allow("ParvisReaders", who, ["s3:GetObject"], objects))
        statements.append(_allow("ParvisReadersList", who, ["s3:ListBucket"], itself))
    if writers:
        statements.append(_allow("ParvisWriters", _principals(writers, tenant), ["s3:PutObject"], objects))
    if not statements:
        raise ValueError("a policy without readers and writers would say nothing")
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2)


def _principals(users: Sequence[str], tenant: str) -> list[str]:
    return [f"arn:aws:iam::{tenant}:user/{user}" for user in users]


def _allow(name: str, who: list[str], actions: list[str], resource: str) -> dict[str, Any]:
    return {
        "Sid": name,
        "Effect": "Allow",
        "Principal": {"AWS": who},
        "Action": actions,
        "Resource": [resource],
    }
