"""`parvis store`, as somebody at a terminal uses it, on a store in a directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from made_nxmx import describe
from parvis_services.stores.directory import DirectoryStore
from parvis_services.stores.layout import SeriesPlace
from parvis_services.stores.manifest import Manifest
from parvis_services.stores.series_header import load_header, load_mask
from recorded_files import CONFIG, SHAPE, images, write_file
from store_commands import counts_of, done, found_in, objects, run, without_file
from stored_series import age, configuration, kept, keys, pinned, put_series

pytestmark = pytest.mark.usefixtures("store")


class TestIngest:
    URL = "dir://ram/i04/993677/1"
    PLACE = SeriesPlace("standard", "i04", "", 993677, 1)

    def test_what_is_stored_gives_the_same_as_the_file(self, master: Path) -> None:
        (told,) = objects("ingest", master, 993677, "--bucket", "i04")
        assert {key: told[key] for key in ("series", "images", "stored", "present", "missing")} == {
            "series": self.URL,
            "images": 4,
            "stored": 4,
            "present": 0,
            "missing": [],
        }
        rows = objects("digest", self.URL)
        assert without_file(rows) == found_in(master)
        assert sum(row["n_spots_total"] for row in rows) > 40
        assert [row["file-number"] for row in rows] == [1, 2, 3, 4]

    def test_chunks_header_and_mask_are_stored_as_they_are(self, master: Path, store: DirectoryStore) -> None:
        done("ingest", master, 993677, "--bucket", "i04", "--experiment", "grid")
        with h5py.File(master) as file:
            data: Any = file["entry/data/data"]
            mask: Any = file["entry/instrument/detector/pixel_mask"]
            for number in range(4):
                chunk = data.id.read_direct_chunk((number, 0, 0))[1]
                assert store.get("i04", self.PLACE.frame(number + 1)).data == chunk
            stored = store.get("i04", self.PLACE.mask)
            assert np.array_equal(load_mask(stored.data, stored.info.metadata), mask)
        header = json.loads(store.get("i04", self.PLACE.header).data)
        assert header["appendix"] == {"dcid": 993677, "experiment_class": "grid"}
        assert header["config"]["pixel_mask_applied"] is True
        assert load_header(json.dumps(header).encode()).axes == {"omega": (10.0, pytest.approx(0.1))}

    def test_a_second_time_nothing_is_stored(self, master: Path, store: DirectoryStore) -> None:
        done("ingest", master, 993677, "--bucket", "i04")
        before = {entry.key: entry for entry in store.list_all("i04")}
        (told,) = objects("ingest", master, 993677, "--bucket", "i04")
        assert (told["stored"], told["present"], told["bytes"]) == (0, 4, 0)
        assert {entry.key: entry for entry in store.list_all("i04")} == before
        assert "4 were there already" in done("ingest", master, 993677, "--bucket", "i04")

    def test_another_series_in_its_place_is_told_of(self, master: Path, tmp_path: Path) -> None:
        done("ingest", master, 993677, "--bucket", "i04")
        other = write_file(tmp_path / "y_master.h5", images(4)[::-1].copy())
        result = run("ingest", other, 993677, "--bucket", "i04")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "is there already, and is something else" in result.stderr
        done("ingest", other, 993677, "--bucket", "i04", "--series", 2)
        assert len(objects("ls", "dir://ram/i04")) == 2

    @pytest.mark.parametrize(
        ("how", "dtype"),
        [
            ({}, np.int32),
            ({"chunks": (1, *SHAPE), **hdf5plugin.LZ4()}, np.uint32),
            ({"chunks": (1, *SHAPE)}, np.uint32),
            ({"chunks": (2, *SHAPE), **hdf5plugin.Bitshuffle()}, np.uint32),
            ({"chunks": (1, *SHAPE), "compression": "gzip"}, ">u4"),
        ],
        ids=["plain", "lz4", "uncompressed chunks", "two in a chunk", "gzip, other byte order"],
    )
    @pytest.mark.parametrize("layout", ["standard", "prototype"])
    def test_files_of_other_kinds(
        self, how: Any, dtype: Any, layout: str, tmp_path: Path, master: Path, store: DirectoryStore
    ) -> None:
        frames = images(4).astype(np.int32).astype(dtype)  # where there is no pixel, -1
        file = write_file(tmp_path / "other_master.h5", frames, **how or {"chunks": None})
        bucket = ["--bucket", "i04"] if layout == "standard" else []
        done("ingest", file, 993677, "--layout", layout, *bucket)
        if layout == "standard":
            assert without_file(objects("digest", self.URL)) == found_in(file)
            return
        encodings = {store.stat("993677", f"00000{n}").metadata["encoding"] for n in range(1, 5)}
        assert encodings == {"bslz4"}  # no other is known to the first tools
        done("ingest", master, 7, "--layout", layout)
        assert counts_of("dir://ram/993677") == counts_of("dir://ram/7")

    def test_the_layout_of_the_prototype(self, master: Path, store: DirectoryStore) -> None:
        done("ingest", master, 993677, "--layout", "prototype")
        assert keys(store, "993677") == [*(f"{n:06d}" for n in range(1, 5)), "header", "manifest", "mask"]
        assert store.get("993677", "header").data == CONFIG.encode()
        with h5py.File(master) as file:
            chunk = file["entry/data/data"].id.read_direct_chunk((2, 0, 0))[1]  # pyright: ignore[reportAttributeAccessIssue]
        assert store.get("993677", "000003").data == chunk
        assert len(objects("digest", "dir://ram/993677")) == 4
        assert "would delete" not in done("ls", "dir://ram/993677")

    def test_what_was_missing_is_stored_the_next_time(self, tmp_path: Path, store: DirectoryStore) -> None:
        whole = images(4)
        master = tmp_path / "z_master.h5"
        with h5py.File(master, "w") as file:
            describe(file)
            for number in (1, 2):
                link = h5py.ExternalLink(f"z_data_{number}.h5", "/data")
                file[f"entry/data/data_00000{number}"] = link
        for number, part in ((1, whole[:2]), (2, whole[2:])):
            with h5py.File(tmp_path / f"late_{number}.h5", "w") as file:
                file.create_dataset("data", data=part, chunks=(1, *SHAPE), **hdf5plugin.Bitshuffle())
        (tmp_path / "late_1.h5").rename(tmp_path / "z_data_1.h5")
        result = run("ingest", master, 993677, "--bucket", "i04")
        assert result.exit_code == 1
        assert "image 3 is not stored" in result.stderr
        assert "Traceback" not in result.output
        assert self.manifest(store).missing == [(3, 3)]
        (tmp_path / "late_2.h5").rename(tmp_path / "z_data_2.h5")
        (told,) = objects("ingest", master, 993677, "--bucket", "i04")
        assert (told["stored"], told["present"]) == (2, 2)
        manifest = self.manifest(store)
        assert (manifest.expected, manifest.stored, manifest.missing) == (4, 4, [])
        assert load_header(store.get("i04", self.PLACE.header).data).images == 4

    def manifest(self, store: DirectoryStore) -> Manifest:
        return Manifest.load(store.get("i04", self.PLACE.manifest).data)

    @pytest.mark.parametrize(
        ("arguments", "code", "complaint"),
        [
            (["x_master.h5", "993677"], 2, "say which --bucket"),
            (["x_master.h5", "993677", "--bucket", "A"], 2, "cannot name a bucket"),
            (["x_master.h5", "993677", "--bucket", "b", "--prefix", "../x"], 2, "cannot be the key"),
            (["x_master.h5", "0", "--bucket", "b"], 2, "DCID"),
            (["x_master.h5", "1", "--bucket", "b", "--layout", "prototype"], 2, "the bucket is the DCID"),
            (["x_master.h5", "1", "--bucket", "b", "--store", "tape"], 1, "no store 'tape'"),
            (["none.h5", "1", "--bucket", "b"], 1, "none.h5"),
            (["site.yml", "1", "--bucket", "b"], 1, "site.yml"),
        ],
    )
    def test_what_is_no_good(
        self, arguments: list[str], code: int, complaint: str, master: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(master.parent)
        result = run("ingest", *arguments)
        assert (result.exit_code, result.stdout) == (code, "")
        assert complaint in result.stderr
        assert "Traceback" not in result.stderr


class TestLs:
    def test_from_stores_to_objects(self, store: DirectoryStore, tmp_path: Path) -> None:
        place = put_series(store, 1, prefix="cm1")
        put_series(store, 2, images=5)
        put_series(store, 3, layout="prototype")
        store.put("i04", "notes.txt", b"not of a series")
        pinned(store, place, 1)
        assert objects("ls") == [
            {"store": "dir://ram", "place": str(tmp_path / "store"), "roles": ["read", "write", "manage"]}
        ]
        assert [row["bucket"] for row in objects("ls", "dir://ram")] == ["dir://ram/3", "dir://ram/i04"]
        rows = objects("ls", "dir://ram/i04")
        assert [(row["series"], row["images"], row["pins"], row["header"]) for row in rows] == [
            ("dir://ram/i04/2/1", 5, 0, True),
            ("dir://ram/i04/cm1/1/1", 3, 1, True),
        ]
        assert [row["dcid"] for row in objects("ls", "dir://ram/i04/cm1")] == [1]
        listed = objects("ls", "dir://ram/i04/cm1/1/1")
        assert [row["object"].rpartition("/1/1/")[2] for row in listed] == [
            *("000001", "000002", "000003", "header", "pins/job")
        ]
        assert listed[0]["bytes"] == 5
        assert listed[4]["until"] > listed[4]["stored"]
        assert len(objects("ls", "dir://ram/3")) == 4

    def test_for_people(self, store: DirectoryStore) -> None:
        put_series(store, 2, images=5)
        assert "dir://ram" in done("ls")
        assert done("ls", "dir://ram") == "dir://ram/i04\n"
        (line,) = [line for line in done("ls", "dir://ram/i04").splitlines() if "dir://" in line]
        assert line.split()[:2] == ["dir://ram/i04/2/1", "5"]
        assert "000005" in done("ls", "dir://ram/i04/2/1")
        assert run("ls", "dir://ram/i04/none").stderr == "0 series, 0 B\n"

    @pytest.mark.parametrize(
        ("url", "code", "complaint"),
        [
            ("dir://ram/nowhere", 1, "no such bucket"),
            ("dir://tape/x", 1, "no store 'tape'"),
            ("s3://ram/i04", 1, "begin with dir://"),
            ("http://ram/i04", 2, "begins no address"),
            ("dir://ram/i04/\x1b[2Jx", 2, "cannot be the key"),
        ],
    )
    def test_what_is_not_there(self, url: str, code: int, complaint: str) -> None:
        result = run("ls", url)
        assert (result.exit_code, result.stdout) == (code, "")
        assert complaint in result.stderr
        assert "\x1b" not in result.stderr


@pytest.mark.parametrize("command", ["ls", "submit", "digest", "cleanup", "pin", "link", "manifest"])
@pytest.mark.parametrize("secret", ["S3cretS3cret", "S3cret/S3cret+S3cret="])
def test_a_login_in_an_address_is_refused_and_not_repeated(command: str, secret: str) -> None:
    result = run(command, f"s3://access:{secret}@ceph.example:7480/993677")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "never a login" in result.stderr
    assert "parvis.stores" in result.stderr
    assert "S3cret" not in result.stderr


class TestKeeping:
    URL = "dir://ram/i04/1/1"

    def test_what_is_pinned_is_not_cleaned_up(self, store: DirectoryStore) -> None:
        put_series(store, 1)
        assert "is kept until" in done("pin", self.URL, "--hours", 2)
        result = run("cleanup", self.URL, "--yes")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "is pinned until" in result.stderr
        done("unpin", self.URL)
        assert "Deleted 1 series, 5 objects" in done("cleanup", self.URL, "--yes")
        put_series(store, 1)
        done("pin", self.URL, "--token", "a")
        done("unpin", self.URL, "--token", "b")
        assert run("cleanup", self.URL, "--yes").exit_code == 1
        done("cleanup", self.URL, "--yes", "--pinned")
        assert keys(store) == []

    def test_who_is_asked_can_say_no(self, store: DirectoryStore) -> None:
        put_series(store, 1)
        result = run("cleanup", self.URL, input="n\n")
        assert "Delete 1 series, 4 objects, " in result.stderr
        assert (result.exit_code, kept(store)) == (130, [1])
        assert run("cleanup", self.URL, input="y\n").exit_code == 0
        assert keys(store) == []

    def test_a_bucket_goes_with_its_series_unless_others_have_something_there(
        self, store: DirectoryStore
    ) -> None:
        put_series(store, 1)
        put_series(store, 2, prefix="cm1")
        done("cleanup", "dir://ram/i04/cm1", "--yes")
        assert kept(store) == [1]
        store.put("i04", "notes.txt", b"")
        result = run("cleanup", "dir://ram/i04", "--yes")
        assert (result.exit_code, keys(store)) == (1, ["notes.txt"])
        assert "part of no series" in result.stderr
        store.delete("i04", ["notes.txt"])
        assert "Removed the bucket i04" in done("cleanup", "dir://ram/i04", "--yes")
        assert store.buckets() == []

    @pytest.mark.parametrize(
        ("url", "code", "complaint"),
        [
            ("dir://ram/i04/1/1/000001", 2, "series are deleted whole"),
            ("dir://ram/i04/9/9", 1, "there is no series"),
            ("dir://ram/nowhere", 1, "no such bucket"),
        ],
    )
    def test_what_cannot_be_cleaned_up(
        self, url: str, code: int, complaint: str, store: DirectoryStore
    ) -> None:
        put_series(store, 1)
        result = run("cleanup", url, "--yes")
        assert (result.exit_code, kept(store)) == (code, [1])
        assert complaint in result.stderr

    def test_expire_deletes_what_the_rules_say(
        self, store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert run("expire").exit_code == 2
        file = configuration(tmp_path, tmp_path / "store", [{"store": "ram", "bucket": "i04"}])
        monkeypatch.setenv("ZOCALO_CONFIG", str(file))
        put_series(store, 1)
        place = put_series(store, 2)
        age(tmp_path / "store", 60)
        pinned(store, place, 1)
        assert f"would delete {self.URL}" in done("expire", "--dry-run")
        assert kept(store) == [1, 2]
        (told,) = objects("expire")
        assert (told["deleted"], told["pinned"], kept(store)) == ([self.URL], ["dir://ram/i04/2/1"], [2])
        full = configuration(
            tmp_path, tmp_path / "store", [{"store": "ram", "bucket": "i04", "gigabytes": 1e-9}]
        )
        monkeypatch.setenv("ZOCALO_CONFIG", str(full))
        result = run("expire")
        assert result.exit_code == 1
        assert "% full" in result.stderr


class TestLooking:
    URL = "dir://ram/i04/1/1"

    def test_a_manifest_for_people(self, store: DirectoryStore) -> None:
        place = put_series(store, 1)
        assert "has no manifest" in run("manifest", self.URL).stderr
        manifest = Manifest(
            dcid=1,
            series=1,
            unique_id="\x1b[2Jbad",
            expected=20,
            received=17,
            stored=15,
            missing=[(3, 3), (7, 10)],
            dropped=[(7, 8)],
            ended="time-out",
            told=[(1, 2)],
            first_seen=1.8e9,
        )
        store.put("i04", place.manifest, manifest.dump())
        result = run("manifest", self.URL)
        assert result.exit_code == 1
        lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
        assert lines["missing"] == "5: 3, 7-10"
        assert lines["dropped"] == "2: 7-8"
        assert (lines["expected"], lines["told"]) == ("20", "2: 1-2")
        assert "\x1b" not in result.stdout
        assert json.loads(run("manifest", self.URL, "--json").stdout)["missing"] == [[3, 3], [7, 10]]

    def test_a_directory_has_neither_links_nor_policies(self, store: DirectoryStore) -> None:
        put_series(store, 1)
        result = run("link", f"{self.URL}/000001")
        assert result.exit_code == 1
        assert "has no links" in result.stderr
        assert run("link", "dir://ram/i04").exit_code == 2
        result = run("policy", "ram", "i04", "--reader", "pia")
        assert result.exit_code == 2
        assert "permissions" in result.stderr

    def test_what_does_not_answer_is_told_of_without_its_secret(self, tmp_path: Path) -> None:
        login = {"access_key": "access", "secret_key": "S3cretS3cret"}
        profile = {"endpoint": "http://127.0.0.1:9", "read": login, "manage": login}
        content = json.loads((tmp_path / "site.yml").read_text())
        content["storage"]["parvis.stores"] = {"ceph": profile}
        (tmp_path / "site.yml").write_text(json.dumps(content))
        for command in (
            ["ls", "s3://ceph/i04"],
            ["digest", "s3://ceph/i04/1/1"],
            ["submit", "s3://ceph/993677"],
        ):
            result = run(*command)
            assert (result.exit_code, result.stdout) == (1, "")
            assert "s3://ceph/" in result.stderr
            assert "S3cret" not in result.output
        assert "S3cret" not in done("ls")
        policy = json.loads(done("policy", "ceph", "i04", "--reader", "pia", "--writer", "cephwriter"))
        allowed = [one for one in policy["Statement"] if one["Effect"] == "Allow"]
        assert {action for one in allowed for action in one["Action"]} == {
            *("s3:GetObject", "s3:ListBucket", "s3:PutObject")
        }
        assert run("policy", "ceph", "i04").exit_code == 2
