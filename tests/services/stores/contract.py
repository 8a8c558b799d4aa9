"""What every image store does, wherever it keeps objects. A test module makes a `Test...` class of it.

It needs the fixtures `store` (opened for the role `manage`) and `bucket` (the name of an empty one, there).
"""

from __future__ import annotations

import os
import random
import string
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from parvis_services.stores.store import ImageStore, NoSuchObject, ObjectExists, StoreError
from parvis_services.stores.url import BadUrl, ObjectUrl

METADATA = {
    "shape": "4362,4148",
    "encoding": "bslz4",
    "hash": "fc67f000d08fe6b380ea9434b8362d22",
    "spaced": "a b",
}


class StoreContract:
    """Tests of the interface `ImageStore`."""

    def test_object_comes_back_as_stored(self, store: ImageStore, bucket: str) -> None:
        data = os.urandom(3_000_001)
        put = store.put(bucket, "mx/7/1/000001", data, METADATA)
        got = store.get(bucket, "mx/7/1/000001")
        assert got.data == data
        assert got.info.metadata.items() >= METADATA.items()
        assert (put.key, put.size, put.etag) == ("mx/7/1/000001", len(data), got.info.etag)
        assert got.info.metadata["sha256"] == put.metadata["sha256"]
        assert abs(got.info.modified - time.time()) < 60
        assert store.stat(bucket, "mx/7/1/000001") == got.info

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_any_bytes_are_stored(self, store: ImageStore, bucket: str, kind: type[bytes]) -> None:
        store.put(bucket, "some", kind(b"counts"))
        assert store.get(bucket, "some").data == b"counts"

    def test_nothing_can_be_stored(self, store: ImageStore, bucket: str) -> None:
        assert store.put(bucket, "pins/token", b"").size == 0
        assert store.get(bucket, "pins/token").data == b""

    def test_what_is_stored_is_not_overwritten(self, store: ImageStore, bucket: str) -> None:
        store.put(bucket, "a/1", b"first")
        with pytest.raises(ObjectExists):
            store.put(bucket, "a/1", b"second")
        assert store.get(bucket, "a/1").data == b"first"

    def test_what_is_to_be_replaced_is(self, store: ImageStore, bucket: str) -> None:
        first = store.put(bucket, "manifest", b"first", {"n": "1"})
        second = store.put(bucket, "manifest", b"second", {"n": "2"}, replace=True)
        got = store.get(bucket, "manifest")
        assert (got.data, got.info.metadata["n"], got.info.etag) == (b"second", "2", second.etag)
        assert first.etag != second.etag

    def test_of_eight_who_put_one_wins(self, store: ImageStore, bucket: str) -> None:
        start = Barrier(8)

        def put(number: int) -> int | None:
            start.wait()
            try:
                store.put(bucket, "x/7/1/000001", bytes([number]) * 100_000)
            except ObjectExists:
                return None
            return number

        with ThreadPoolExecutor(8) as threads:
            won = [number for number in threads.map(put, range(8)) if number is not None]
        assert len(won) == 1
        assert store.get(bucket, "x/7/1/000001").data == bytes(won) * 100_000

    def test_part_of_an_object(self, store: ImageStore, bucket: str) -> None:
        store.put(bucket, "some", b"0123456789")
        assert store.get_range(bucket, "some", 2, 3) == b"234"
        assert store.get_range(bucket, "some", 8, 100) == b"89"
        assert store.get_range(bucket, "some", 10, 1) == b""
        assert store.get_range(bucket, "some", 0, 0) == b""

    def test_list_in_order_of_keys(self, store: ImageStore, bucket: str) -> None:
        keys = [
            *(f"mx/7/1/{number:06d}" for number in range(1, 13)),
            *("mx/7/1-2/000001", "mx/7/1.5", "mx/7/10/000001", "mx/7/1/header", "mx/70/1/000001", "other"),
            *("mx/7/1/pins/a", "mx/7/1/pins.old"),
        ]
        mixed = random.Random(1).sample(keys, len(keys))
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda key: store.put(bucket, key, key.encode()), mixed))
        expected = sorted(keys)
        assert [one.key for one in store.list_after(bucket)] == expected
        assert [one.size for one in store.list_after(bucket)] == [len(key) for key in expected]
        for prefix in ("mx/7/1/", "mx/7/1", "mx", "mx/7/1/00001", "none", "other"):
            wanted = [key for key in expected if key.startswith(prefix)]
            assert [one.key for one in store.list_after(bucket, prefix)] == wanted
            for after in ("mx/7/1/000003", "mx/7/1/", "mx/7/1-2/000001", "a", "zz", "mx/7/1/pins/a"):
                rest = [key for key in wanted if key > after]
                assert [one.key for one in store.list_after(bucket, prefix, after)] == rest
        assert [one.key for one in store.list_after(bucket, limit=3)] == expected[:3]

    def test_listing_tells_what_stat_tells(self, store: ImageStore, bucket: str) -> None:
        store.put(bucket, "some", b"0123456789", METADATA)
        (listed,), told = store.list_after(bucket), store.stat(bucket, "some")
        assert (listed.key, listed.size, listed.etag) == (told.key, told.size, told.etag)
        assert listed.metadata == {}
        assert abs(listed.modified - told.modified) < 1.1

    def test_pages_of_a_listing_join(self, store: ImageStore, bucket: str) -> None:
        keys = [f"{number:06d}" for number in range(1, 1101)]
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda key: store.put(bucket, key, b""), keys))
        assert len(store.list_after(bucket, limit=5000)) == 1000
        assert [one.key for one in store.list_all(bucket)] == keys
        assert [one.key for one in store.list_after(bucket, "0011")] == ["001100"]

    def test_what_is_not_there(self, store: ImageStore, bucket: str) -> None:
        for ask in (store.get, store.stat, lambda *at: store.get_range(at[0], at[1], 0, 1)):
            with pytest.raises(NoSuchObject):
                ask(bucket, "mx/7/1/000001")
            with pytest.raises(NoSuchObject):
                ask(f"{bucket}-not", "mx/7/1/000001")
        for ask in (store.list_after, store.usage, store.remove_bucket):
            with pytest.raises(NoSuchObject):
                ask(f"{bucket}-not")
        with pytest.raises(NoSuchObject):
            store.put(f"{bucket}-not", "some", b"")
        with pytest.raises(NoSuchObject):
            store.delete(f"{bucket}-not", ["some"])

    def test_deleted_objects_are_gone(self, store: ImageStore, bucket: str) -> None:
        for key in ("a/1", "a/2", "b"):
            store.put(bucket, key, b"")
        store.delete(bucket, ["a/1", "b", "a/3"])
        assert [one.key for one in store.list_after(bucket)] == ["a/2"]
        store.put(bucket, "a/1", b"again")
        assert store.get(bucket, "a/1").data == b"again"

    def test_buckets_come_and_go(self, store: ImageStore, bucket: str) -> None:
        name = "".join(random.choices(string.ascii_lowercase, k=12))
        assert store.make_bucket(name) is True
        assert store.make_bucket(name) is False
        assert {name, bucket} <= set(store.buckets())
        store.put(name, "some", b"")
        with pytest.raises(StoreError, match="not empty"):
            store.remove_bucket(name)
        store.delete(name, ["some"])
        store.remove_bucket(name)
        assert name not in store.buckets()

    def test_usage_counts_objects_and_bytes(self, store: ImageStore, bucket: str) -> None:
        assert store.usage(bucket).objects == 0
        store.put(bucket, "a/1", bytes(10_000))
        store.put(bucket, "a/2", bytes(20_000))
        store.put(bucket, "b/1", bytes(40_000))
        whole, part = store.usage(bucket), store.usage(bucket, "a/")
        assert (whole.objects, part.objects) == (3, 2)
        assert 70_000 <= whole.used < 80_000
        assert 30_000 <= part.used < 40_000

    @pytest.mark.parametrize("key", ["../x", "/x", "a//b", "a/../b", "a/./b", "a\0b", "ä", "a b", "x" * 901])
    def test_keys_that_none_has_are_refused(self, store: ImageStore, bucket: str, key: str) -> None:
        with pytest.raises(BadUrl):
            store.put(bucket, key, b"")
        with pytest.raises(BadUrl):
            store.get(bucket, key)
        with pytest.raises(BadUrl):
            store.delete(bucket, [key])

    @pytest.mark.parametrize("name", ["..", "a/b", ".incoming", "A", "a..b", ""])
    def test_buckets_that_none_has_are_refused(self, store: ImageStore, name: str) -> None:
        for ask in (store.list_after, store.make_bucket, store.remove_bucket):
            with pytest.raises(BadUrl):
                ask(name)

    @pytest.mark.parametrize(
        "metadata",
        [{"Big": "x"}, {"a": "line\nbreak"}, {"a": "ä"}, {"sha256": "0"}, {"a": "x" * 2000}, {"a": " "}],
    )
    def test_metadata_that_a_store_would_change_are_refused(
        self, store: ImageStore, bucket: str, metadata: dict[str, str]
    ) -> None:
        with pytest.raises(ValueError, match="metadata"):
            store.put(bucket, "some", b"", metadata)
        assert store.list_after(bucket) == []

    def test_address_leads_back(self, store: ImageStore, bucket: str) -> None:
        url = store.url(bucket, "a/1")
        assert ObjectUrl.parse(str(url)) == url
        with pytest.raises(NoSuchObject, match=str(url)) as caught:
            store.get(bucket, "a/1")
        assert caught.value.url == str(url)
