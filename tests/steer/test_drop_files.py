"""Drop files: which go first, which are broken, and that each is sent once whoever dies or looks on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parvis.cli.dropfile import store
from parvis.steer.drop_files import (
    BROKEN,
    Broken,
    Request,
    Unreadable,
    in_order,
    is_settled,
    read,
    read_all,
    send,
    send_all,
    set_aside,
    stored_files,
    time_to_settle,
)
from parvis.transport.base import Disconnected
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from running import Listener, connected

HEADERS = {"zocalo.go.user": "gda", "zocalo.go.host": "i03-control"}


def request(
    directory: Path,
    name: str,
    *recipes: str,
    age: float = 1000,
    host: str = "i03-control",
    identity: str | None = None,
) -> Path:
    """Store a request that was made some time ago."""
    file = directory / name
    told = {**HEADERS, "zocalo.go.host": host, **({} if identity is None else {"parvis-id": identity})}
    store(file, told, {"recipes": list(recipes), "parameters": {"ispyb_dcid": 1}})
    moment = time.time() - age
    os.utime(file, (moment, moment))
    return file


def names(requests: list[Request]) -> list[str]:
    return [one.file.name for one in requests]


def test_the_present_experiment_goes_first(tmp_path: Path) -> None:
    request(tmp_path, "dozor", "per-image-analysis-dozor", age=900)
    request(tmp_path, "mimas", "mimas", age=800)
    request(tmp_path, "centring", "xray-centering", age=700)
    request(tmp_path, "gridscan", "per-image-analysis-gridscan-i03", age=600)
    request(tmp_path, "rotation", "per-image-analysis-rotation", age=500)
    request(tmp_path, "archive", "archive-cbfs", age=400)
    request(tmp_path, "newest", "per-image-analysis-gridscan", age=300)
    request(tmp_path, "elsewhere", "archive-cbfs", age=5000, host="i24-control")
    requests = [read(file) for file in stored_files(tmp_path)]
    assert names(in_order(requests)) == [
        "elsewhere",
        "newest",
        "archive",
        "mimas",
        "rotation",
        "centring",
        "gridscan",
        "dozor",
    ]


def test_files_of_zocalo_and_ours_are_read(tmp_path: Path) -> None:
    theirs = tmp_path / "fd634088-d59b-4f11-9c05-46b45ef47ff8"
    theirs.write_text(json.dumps({"headers": {"dlstbx.go.host": "old"}, "message": {"recipes": ["mimas"]}}))
    ours = request(tmp_path, "ours", "mimas", identity="identity")
    assert (read(theirs).host, read(theirs).recipes) == ("old", ["mimas"])
    assert (read(ours).host, read(ours).headers["parvis-id"]) == ("i03-control", "identity")


def test_files_settle(tmp_path: Path) -> None:
    now = time.time()
    file = request(tmp_path, "one", "mimas", age=50)
    assert is_settled(file, 49, now)
    assert not is_settled(file, 60, now)
    assert time_to_settle(file, 60, now) == pytest.approx(10, abs=1)
    os.utime(file, (now + 86_400, now + 86_400))
    assert time_to_settle(file, 60, now) == 60, "a clock that is wrong delays it no longer than this"


def _fifo(file: Path) -> None:
    os.mkfifo(file)


def _socket(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(file))


def _link(file: Path) -> None:
    secret = file.parent.parent / "secret"
    secret.write_text(json.dumps({"headers": {}, "message": {"recipes": []}}))
    file.symlink_to(secret)


def _text(text: str | bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(text if isinstance(text, bytes) else text.encode())


WRONG = {
    "empty": (_text(""), "empty"),
    "cut off": (_text('{"headers": {}, "message": {"reci'), "not JSON"),
    "a list": (_text("[1]"), "no stored request"),
    "no headers": (_text('{"message": {}}'), "no stored request"),
    "no message": (_text('{"headers": {}, "message": 3}'), "no stored request"),
    "not text": (_text(b"\xff\xfe\x00"), "not JSON"),
    "deep": (_text('{"headers": {}, "message": ' + "[" * 200_000), "JSON"),
    "10 MB": (_text(b'{"headers": {}, "message": {"x": "' + b"x" * 10_000_000 + b'"}}'), "larger than 8 MB"),
    "fifo": (_fifo, "no plain file"),
    "socket": (_socket, "no plain file"),
    "link": (_link, "symbolic link"),
    "n" * 200: (_text('{"headers": {}, "message": {}}'), "name is too long"),
    "-rf\n\x1b[2J\udcff": (_text("?"), "not JSON"),
}


def test_broken_files_are_set_aside_while_others_go_on(broker: BrokerThread, tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    for number in range(3):
        request(drop, f"good-{number}", "mimas")
    for name, (make, _) in WRONG.items():
        make(drop / name)
    (drop / "a directory").mkdir()
    (drop / ".being-written.part").write_text("{")
    broken: list[Broken] = []
    done: list[Request] = []
    with connected(broker.port) as transport:
        listener = Listener(transport, "processing_recipe")
        send_all(
            transport,
            in_order(read_all(stored_files(drop), broken.append)),
            pause=0,
            begins=lambda _: None,
            done=done.append,
            broken=broken.append,
            failed=lambda one, reason: pytest.fail(f"{one.file}: {reason}"),
            ended=lambda _: False,
        )
        assert len(listener.wait_for(3)) == len(done) == 3
    reasons = {one.file.name: one.reason for one in broken}
    assert set(reasons) == set(WRONG)
    for name, (_, problem) in WRONG.items():
        assert problem in reasons[name], name
    assert {path.name for path in drop.iterdir()} == {"a directory", ".being-written.part", BROKEN}
    for one in broken:
        assert one.place is not None
        assert one.place.parent == drop / BROKEN
        assert one.place.with_name(f"{one.place.name}.reason").read_text() == f"{one.reason}\n"
    assert len(list((drop / BROKEN).iterdir())) == 2 * len(WRONG)


def test_broken_files_of_one_name_are_all_kept(tmp_path: Path) -> None:
    for content in "abc":
        file = tmp_path / "same"
        file.write_text(content)
        set_aside(file, "broken")
    kept = sorted((tmp_path / BROKEN).glob("same*"))
    assert [file.read_text() for file in kept if file.suffix != ".reason"] == ["a", "b", "c"]


def test_each_is_sent_once_by_many_at_a_time(broker: BrokerThread, tmp_path: Path) -> None:
    for number in range(60):
        request(tmp_path, f"request-{number}", "mimas")
    sent: list[bool] = []

    def pick_up() -> None:
        with connected(broker.port) as transport:
            for one in read_all(stored_files(tmp_path), lambda broken: pytest.fail(broken.reason)):
                sent.append(send(transport, one))  # noqa: PERF401 - others count on

    threads = [threading.Thread(target=pick_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with connected(broker.port) as transport:
        listener = Listener(transport, "processing_recipe")
        arrived = [message.headers["parvis-id"] for message in listener.wait_for(60)]
    assert len(arrived) == len(set(arrived)) == sum(sent) == 60
    assert list(tmp_path.iterdir()) == []


def test_one_has_the_same_identity_whenever_it_is_sent(transport: StompTransport, tmp_path: Path) -> None:
    listener = Listener(transport, "processing_recipe")
    for _ in range(2):  # as if it had been killed between the confirmation and the deletion
        assert send(transport, read(request(tmp_path, "same", "mimas")))
    assert send(transport, read(request(tmp_path, "other", "mimas", identity="its own")))
    first, second, third = (message.headers["parvis-id"] for message in listener.wait_for(3))
    assert (first == second, third) == (True, "its own")


def test_what_is_not_confirmed_stays(broker: BrokerThread, tmp_path: Path) -> None:
    file = request(tmp_path, "one", "mimas")
    with connected(broker.port) as transport:
        transport.disconnect()
        with pytest.raises(Disconnected):
            send(transport, read(file))
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_claims_of_the_dead_are_taken_back(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    now = int(time.time())
    claims = {
        "ended": f"{host}-{ended.pid}-{now}",
        "alive": f"{host}-{os.getpid()}-{now}",
        "forgotten": f"{host}-{os.getpid()}-{now - 3600}",
        "far": f"elsewhere-1-{now}",
        "far-long-ago": f"elsewhere-1-{now - 3600}",
    }
    for name, claim in claims.items():
        request(tmp_path, f".{name}.claim-{claim}", "mimas")
    assert {file.name for file in stored_files(tmp_path)} == {"ended", "forgotten", "far-long-ago"}
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize(
    "headers", [{"receipt": "mine"}, {"destination": "/queue/evil", "a:b\n": "c\r\nd\0"}]
)
def test_headers_of_a_file_lead_nowhere_else(
    headers: dict[str, Any], transport: StompTransport, tmp_path: Path
) -> None:
    listener = Listener(transport, "processing_recipe")
    file = tmp_path / "evil"
    file.write_text(json.dumps({"headers": {**headers, "n": 5}, "message": {"recipes": [None, 3]}}))
    try:
        assert send(transport, read(file))
    except Unreadable:
        assert file.exists()
    else:
        (message,) = listener.wait_for(1)
        assert message.headers["n"] == "5"
