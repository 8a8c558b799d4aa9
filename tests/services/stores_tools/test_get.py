"""`parvis store get`: from a store in a directory, and by links to a server that answers what it likes."""

from __future__ import annotations

import hashlib
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner, Result

from http_server import HttpServer, Quiet
from parvis.cli import main
from parvis_services.stores.directory import DirectoryStore
from parvis_services.stores.store import LARGEST_OBJECT
from stored_series import put_series

URL = "dir://ram/i04/7/1"
SIGNED = "X-Amz-Signature=5ecret5ignature"


@pytest.fixture(autouse=True)
def store(store: DirectoryStore) -> DirectoryStore:
    put_series(store, 7)
    return store


def get(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["store", "get", *map(str, arguments)])


class Answers(Quiet, BaseHTTPRequestHandler):
    """Answers by what is asked for, and remembers what that was."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = self.path.partition("?")[0].rpartition("/")[2]
        status, headers, body = ANSWERS[name]
        self.send_response(status)
        for header, text in headers.items():
            self.send_header(header, text)
        self.end_headers()
        self.wfile.write(body)


def _whole(body: bytes, **more: str) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Length": str(len(body)), **more}, body


ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "bare": _whole(b"image"),
    "good": _whole(b"image", **{"x-amz-meta-sha256": hashlib.sha256(b"image").hexdigest()}),
    "damaged": _whole(b"imaga", **{"x-amz-meta-sha256": hashlib.sha256(b"image").hexdigest()}),
    "cut": (200, {"Content-Length": "100"}, b"image"),
    "huge": (200, {"Content-Length": str(LARGEST_OBJECT + 1)}, b"image"),
    "forbidden": (403, {"Content-Length": "0"}, b""),
    "gone": (404, {"Content-Length": "0"}, b""),
    "busy": (503, {"Content-Length": "0"}, b""),
    "elsewhere": (302, {"Location": "/bucket/bare", "Content-Length": "0"}, b""),
}


@pytest.fixture
def server() -> Iterator[str]:
    Answers.asked.clear()
    with HttpServer(Answers) as server:
        yield f"{server.url.rstrip('/')}/bucket"


class TestAddress:
    def test_an_object_comes_as_it_is_stored(self, tmp_path: Path) -> None:
        file = tmp_path / "image"
        result = get(f"{URL}/000002", "-o", file)
        assert result.exit_code == 0, result.output
        assert file.read_bytes() == b"image"
        assert "SHA-256 is right" in result.stdout
        for output in ([], ["-o", "-"]):
            assert get(f"{URL}/000002", *output).stdout_bytes == b"image"

    def test_what_is_there_is_overwritten_only_by_force(self, tmp_path: Path) -> None:
        file = tmp_path / "image"
        file.write_bytes(b"mine")
        result = get(f"{URL}/000002", "-o", file)
        assert result.exit_code == 1
        assert "--force" in result.stderr
        assert get(f"{URL}/000009", "-o", file, "--force").exit_code == 1
        assert file.read_bytes() == b"mine"
        assert get(f"{URL}/000002", "-o", file, "--force").exit_code == 0
        assert file.read_bytes() == b"image"
        link = tmp_path / "link"
        link.symlink_to(file)
        assert "no plain file" in get(f"{URL}/000002", "-o", link, "--force").stderr
        assert sorted(one.name for one in tmp_path.iterdir()) == ["image", "link", "site.yml", "store"]

    def test_what_cannot_be_had_leaves_no_file(self, tmp_path: Path) -> None:
        damaged = tmp_path / "store" / "i04" / "7" / "1" / "000003"
        damaged.write_bytes(b"imaga" + damaged.read_bytes()[5:])
        for key, said in (("/000009", "there is no such object"), ("/000003", "SHA-256")):
            result = get(f"{URL}{key}", "-o", tmp_path / "image")
            assert (result.exit_code, result.stdout) == (1, "")
            assert said in result.stderr
        assert not (tmp_path / "image").exists()
        assert str(tmp_path / "no" / "image") in get(f"{URL}/000002", "-o", tmp_path / "no" / "image").stderr

    def test_wrong_usage(self) -> None:
        for source in ("dir://ram/i04", "000001", "s3://key:5ecret@host/bucket/key"):
            result = get(source)
            assert result.exit_code == 2
            assert "5ecret" not in result.output

    def test_a_terminal_gets_no_image(self) -> None:
        leader, terminal = pty.openpty()
        command = [sys.executable, "-m", "parvis", "store", "get", f"{URL}/000002"]
        done = subprocess.run(command, stdout=terminal, stderr=subprocess.PIPE, check=False, timeout=60)
        os.close(terminal)
        os.close(leader)
        assert done.returncode == 2
        assert b"-o FILE" in done.stderr


class TestLink:
    def test_what_comes_is_compared_where_that_can_be(self, server: str, tmp_path: Path) -> None:
        for name, said in (("good", "SHA-256 is right"), ("bare", "no SHA-256")):
            result = get(f"{server}/{name}?{SIGNED}", "-o", tmp_path / name)
            assert result.exit_code == 0, result.output
            assert said in result.stdout
            assert (tmp_path / name).read_bytes() == b"image"
        assert Answers.asked == [f"/bucket/{name}?{SIGNED}" for name in ("good", "bare")]

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("damaged", "SHA-256"),
            ("cut", "the connection to the store broke"),
            ("huge", f"more than {LARGEST_OBJECT} bytes"),
            ("forbidden", "does not take the link (403)"),
            ("gone", "the object is gone (404)"),
            ("busy", "the store has a fault of its own (503)"),
            ("elsewhere", "sends on to somewhere else (302)"),
        ],
    )
    def test_what_cannot_be_had_is_told_of_without_what_is_signed(
        self, name: str, said: str, server: str, tmp_path: Path
    ) -> None:
        result = get(f"{server}/{name}?{SIGNED}", "-o", tmp_path / "image")
        assert (result.exit_code, result.stdout) == (1, "")
        assert said in result.stderr
        assert f"{server}/{name}" in result.stderr
        assert "5ecret" not in result.output
        assert not (tmp_path / "image").exists()
        assert len(Answers.asked) == 1

    @pytest.mark.parametrize(
        "said", ["X-Amz-Date=20200101T120000Z&X-Amz-Expires=60", "Expires=1577880060&Signature=x"]
    )
    def test_an_expired_link_is_told_of_with_its_time(self, said: str, server: str) -> None:
        result = get(f"{server}/forbidden?{said}&{SIGNED}")
        assert result.exit_code == 1
        over = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1577880060))
        assert f"the link has expired, at {over} (403): ask for a new one" in result.stderr

    @pytest.mark.parametrize("said", ["Expires=9", "X-Amz-Date=x&X-Amz-Expires=1", f"Expires={'9' * 400}"])
    def test_whatever_a_link_says_of_its_time(self, said: str, server: str) -> None:
        result = get(f"{server}/forbidden?{said}")
        assert result.exit_code == 1
        assert "ask for a new one" in result.stderr

    def test_a_store_that_is_away(self) -> None:
        result = get(f"http://127.0.0.1:9/bucket/key?{SIGNED}")
        assert result.exit_code == 1
        assert "the store cannot be reached: Connection refused" in result.stderr

    def test_plain_http_to_another_machine_is_only_for_stores_where_it_is_wanted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = f"http://store.invalid:7480/bucket/key?{SIGNED}"
        result = get(link)
        assert result.exit_code == 1
        assert "must be https" in result.stderr
        assert "5ecret" not in result.output
        profile: dict[str, Any] = {"endpoint": "http://Store.invalid:7480", "insecure": True}
        file = tmp_path / "insecure.yml"
        file.write_text(
            f"version: 1\nx: {{plugin: storage, parvis.stores: {{far: {profile}}}}}\n"
            "environments: {default: [x]}\n"
        )
        monkeypatch.setenv("ZOCALO_CONFIG", str(file))
        assert "the store cannot be reached" in get(link).stderr

    def test_wrong_usage(self) -> None:
        for link in (
            f"https://?{SIGNED}",
            f"https://host?{SIGNED}",
            f"https://user:5ecret@host/bucket/key?{SIGNED}",
            f"https://host:x/bucket/key?{SIGNED}",
            f"https://host/bucket/key?{SIGNED}\nHost: other",
            f"https://host/bucket/key?{SIGNED}{'x' * 5000}",
        ):
            result = get(link)
            assert result.exit_code == 2, link
            assert "5ecret" not in result.output
