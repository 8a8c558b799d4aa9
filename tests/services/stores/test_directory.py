"""A store in a directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from parvis_services.stores.directory import DirectoryStore
from parvis_services.stores.profiles import Role
from parvis_services.stores.store import (
    AccessDenied,
    DamagedObject,
    ImageStore,
    NoSuchObject,
    StoreError,
    StoreUnavailable,
)
from services.stores.contract import StoreContract


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory of the store."""
    root = tmp_path / "store"
    root.mkdir()
    return root


@pytest.fixture
def store(root: Path) -> DirectoryStore:
    return DirectoryStore("local", root)


@pytest.fixture
def bucket(store: ImageStore) -> str:
    store.make_bucket("mx-i04")
    return "mx-i04"


class TestDirectoryStore(StoreContract):
    """A directory does what every store does."""


def test_an_object_is_one_file_that_begins_with_its_content(
    store: ImageStore, bucket: str, root: Path
) -> None:
    store.put(bucket, "a/7/1/000001", b"counts", {"shape": "1,2"})
    (file,) = [path for path in root.rglob("*") if path.is_file()]
    assert file == root / bucket / "a/7/1/000001"
    assert file.read_bytes().startswith(b"counts")


def test_what_is_being_written_is_not_there_yet(store: ImageStore, bucket: str, root: Path) -> None:
    """A writer that is killed leaves nothing that anybody sees."""
    program = """
import os, sys
from parvis_services.stores import directory, object_file
from pathlib import Path
def dies(descriptor, data, notes):
    os.write(descriptor, bytes(data)[:10])
    os.kill(os.getpid(), 9)
directory.write_object = dies
directory.DirectoryStore("local", Path(sys.argv[1])).put(sys.argv[2], "x/000001", bytes(100))
"""
    done = subprocess.run([sys.executable, "-c", program, str(root), bucket], check=False)
    assert done.returncode == -9
    assert store.list_after(bucket) == []
    with pytest.raises(NoSuchObject):
        store.get(bucket, "x/000001")
    (left,) = (root / ".incoming").iterdir()
    os.utime(left, (0, 0))
    DirectoryStore("local", root).put(bucket, "x/000001", b"again")
    assert not left.exists()
    assert store.get(bucket, "x/000001").data == b"again"


def test_damage_is_noticed(store: ImageStore, bucket: str, root: Path) -> None:
    store.put(bucket, "some", bytes(1000))
    file = root / bucket / "some"
    content = file.read_bytes()
    file.write_bytes(b"\1" + content[1:])
    with pytest.raises(DamagedObject, match="SHA-256"):
        store.get(bucket, "some")
    for damaged in (content[:500], content[:-1], b"", b"x" * 5000, content[:-40] + b"\xff" * 40):
        file.write_bytes(damaged)
        for ask in (store.get, store.stat, lambda *at: store.get_range(at[0], at[1], 0, 10)):
            with pytest.raises(DamagedObject):
                ask(bucket, "some")
        (listed,) = store.list_after(bucket)
        assert (listed.key, listed.etag) == ("some", "")
    store.delete(bucket, ["some"])
    assert store.list_after(bucket) == []


def test_no_link_leads_out(store: ImageStore, bucket: str, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    DirectoryStore("other", tmp_path).put("outside", "secret", b"secret")
    (root / bucket / "way").symlink_to(outside)
    (root / bucket / "file").symlink_to(outside / "secret")
    (root / "linked").symlink_to(outside)
    asked = [
        lambda: store.get(bucket, "way/secret"),
        lambda: store.get(bucket, "file"),
        lambda: store.get("linked", "secret"),
        lambda: store.put(bucket, "way/new", b"", replace=True),
        lambda: store.put("linked", "new", b""),
        lambda: store.list_after("linked"),
        lambda: store.make_bucket("linked"),
        lambda: store.delete(bucket, ["way/secret"]),
        lambda: store.remove_bucket("linked"),
    ]
    for ask in asked:
        with pytest.raises(StoreError):
            ask()
    assert store.list_after(bucket) == []
    assert store.buckets() == [bucket]
    assert [one.name for one in outside.iterdir()] == ["secret"]
    store.put(bucket, "file", b"new", replace=True)  # takes the place of the link
    assert DirectoryStore("other", tmp_path).get("outside", "secret").data == b"secret"


def test_what_is_no_file_is_no_object(store: ImageStore, bucket: str, root: Path) -> None:
    os.mkfifo(root / bucket / "pipe")
    for key in ("pipe", "directory"):
        (root / bucket / "directory").mkdir(exist_ok=True)
        with pytest.raises(NoSuchObject):
            store.get(bucket, key)


def test_a_key_and_one_that_goes_on_after_it(store: ImageStore, bucket: str) -> None:
    store.put(bucket, "a/b", b"")
    with pytest.raises(StoreError, match="go on after this one") as caught:
        store.put(bucket, "a", b"")
    assert type(caught.value) is StoreError
    with pytest.raises(StoreError, match="must be"):
        store.put(bucket, "a/b/c", b"")


def test_no_room(root: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from parvis_services.stores.directory import DirectoryStore
from parvis_services.stores.store import StoreFull
store = DirectoryStore("local", Path(sys.argv[1]))
store.make_bucket("mx-i04")
store.put("mx-i04", "a/000001", bytes(20_000))
try:
    store.put("mx-i04", "a/000002", bytes(200_000))
except StoreFull as error:
    print(error)
    print([one.key for one in store.list_after("mx-i04")], os.listdir(f"{sys.argv[1]}/.incoming"))
"""
    mount = 'mount -t tmpfs -o size=128k none "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh"]
    done = subprocess.run(
        [*command, str(root), sys.executable, program], capture_output=True, text=True, check=False
    )
    if done.returncode and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip(f"this machine lets nobody mount a small file system: {done.stderr.strip()}")
    assert "dir://local/mx-i04/a/000002: there is no room: No space left" in done.stdout
    assert "['a/000001'] []" in done.stdout


def test_directory_that_is_away(tmp_path: Path) -> None:
    store = DirectoryStore("local", tmp_path / "mount")
    for ask in (store.buckets, lambda: store.get("mx-i04", "a"), lambda: store.put("mx-i04", "a", b"")):
        with pytest.raises(StoreUnavailable, match="mounted"):
            ask()


@pytest.mark.parametrize(("role", "may"), [("read", {"get", "list"}), ("write", {"put"})])
def test_a_role_may_do_what_it_is_for(
    root: Path, store: ImageStore, bucket: str, role: Role, may: set[str]
) -> None:
    store.put(bucket, "there", b"1")
    limited = DirectoryStore("local", root, role)
    asked = {
        "get": lambda: limited.get(bucket, "there"),
        "list": lambda: limited.list_after(bucket),
        "put": lambda: limited.put(bucket, "new", b""),
        "delete": lambda: limited.delete(bucket, ["there"]),
        "remove": lambda: limited.remove_bucket(bucket),
    }
    for what, ask in asked.items():
        if what in may:
            ask()
            continue
        with pytest.raises(AccessDenied, match=role):
            ask()
    assert store.get(bucket, "there").data == b"1"


def test_what_a_directory_cannot_do(store: ImageStore, bucket: str) -> None:
    with pytest.raises(StoreError, match="no links"):
        store.presign(bucket, "a", 60)
    with pytest.raises(StoreError, match="StoreSweeper"):
        store.expire(bucket, 1)


def test_deleting_leaves_no_directories(store: ImageStore, bucket: str, root: Path) -> None:
    store.put(bucket, "a/7/1/000001", b"")
    store.put(bucket, "a/8/1/000001", b"")
    store.delete(bucket, ["a/7/1/000001"])
    assert not (root / bucket / "a/7").exists()
    assert (root / bucket / "a/8/1/000001").exists()
