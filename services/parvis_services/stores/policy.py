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

    def say(name: str, effect: str, users: Sequence[str], actions: Sequence[str], resource: str) -> None:
        if users:
            who = {"AWS": [f"arn:aws:iam::{tenant}:user/{user}" for user in users]}
            told = {"Sid": name, "Effect": effect, "Principal": who, "Action": [*actions]}
            statements.append({**told, "Resource": [resource]})

    say("ParvisReaders", "Allow", readers, ["s3:GetObject"], objects)
    say("ParvisReadersList", "Allow", readers, ["s3:ListBucket"], itself)
    say("ParvisWriters", "Allow", writers, ["s3:PutObject"], objects)
    # Who has put an object owns it, and could read it and delete it else; a denial counts more than that.
    say(
        "ParvisWritersOnly",
        "Deny",
        writers,
        ["s3:GetObject*", "s3:DeleteObject*", "s3:PutObjectAcl"],
        objects,
    )
    if not statements:
        raise ValueError("a policy without readers and writers would say nothing")
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2)
