"""The policy of a bucket; what it does is tested on a store."""

from __future__ import annotations

import json

import pytest

from parvis_services.stores.policy import bucket_policy
from parvis_services.stores.url import BadUrl


def test_who_may_do_what() -> None:
    statements = json.loads(bucket_policy("mx-i04", ["pia", "xrc"], ["cephwriter"], "mx"))["Statement"]
    allowed = {
        (one["Effect"], tuple(one["Principal"]["AWS"]), action, *one["Resource"])
        for one in statements
        for action in one["Action"]
    }
    readers = ("arn:aws:iam::mx:user/pia", "arn:aws:iam::mx:user/xrc")
    writers = ("arn:aws:iam::mx:user/cephwriter",)
    objects = "arn:aws:s3:::mx-i04/*"
    assert allowed == {
        ("Allow", readers, "s3:GetObject", objects),
        ("Allow", readers, "s3:ListBucket", "arn:aws:s3:::mx-i04"),
        ("Allow", writers, "s3:PutObject", objects),
        ("Deny", writers, "s3:GetObject*", objects),
        ("Deny", writers, "s3:DeleteObject*", objects),
        ("Deny", writers, "s3:PutObjectAcl", objects),
    }


@pytest.mark.parametrize("name", ["*", "a b", 'x"', ""])
def test_names_that_would_allow_others_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name of a user"):
        bucket_policy("mx-i04", [name])


def test_nobody_and_no_bucket_are_refused() -> None:
    with pytest.raises(ValueError, match="say nothing"):
        bucket_policy("mx-i04")
    with pytest.raises(BadUrl):
        bucket_policy("*", ["pia"])
