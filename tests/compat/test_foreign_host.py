"""Services written for `workflows`, run by `parvis service`."""

from __future__ import annotations

import json
import signal
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import orjson
import psutil
import pytest

from parvis.transport.base import Send
from running import Listener
from tcp_proxy import TcpProxy
from waiting import wait_until
from zocalo_site import Site, letters, node

OURS_THEIRS = {
    "1": {"queue": "site.double", "output": 2},
    "2": {"queue": "multiply", "output": 3},
    "3": {"queue": "site.double", "output": 4},
    "4": {"queue": "results"},
    "start": [[1, []]],
}


def test_they_are_nodes_of_a_recipe_and_end_in_good_order(site: Site) -> None:
    results, dead = Listener(site.transport, "results"), letters(site, "site.double")
    with (
        site.running("parvis", "service", "-s", "site-services:doub", ready="Doubler") as doubler,
        site.running("parvis", "service", "-s", "Multiplier", ready="Multiplier"),
    ):
        site.start(OURS_THEIRS, {"number": 5})
        body = orjson.loads(results.wait_for(1)[0].body)
        assert body["payload"] == {"number": 40}
        assert body["recipe-path"] == [1, 2, 3]
        assert body["environment"] == {"ID": "test-recipe", "seen": 10, "doubled": True}
        assert "doubled 5" in doubler.text
        assert "test-rec" in doubler.text  # the recipe ID, in each line of the log

        site.start(node("site.double"), "a word")
        (letter,) = dead.wait_for(1)
        assert letter.headers["parvis-reason"] == "what came is no number: 'a word'"
        assert letter.headers["parvis-service"] == "The Doubler"

        process = psutil.Process(doubler.pid)
        assert process.children(recursive=True) == []
        assert len([one for one in process.net_connections("tcp") if one.status == "ESTABLISHED"]) == 1
        card = next(card for card in site.cards if card["serviceclass"] == "Doubler")
        assert card["service"] == "The Doubler"
        assert card["host"].endswith(f".{doubler.pid}")
        doubler.process.send_signal(signal.SIGTERM)
        assert doubler.end() == 0
    assert [card["statustext"] for card in site.cards if card["serviceclass"] == "Doubler"][-1] == "shutdown"


def test_what_is_raised_costs_the_message(site: Site) -> None:
    results, dead = Listener(site.transport, "results"), letters(site, "site.fragile")
    with site.running("parvis", "service", "-s", "workflows_services:Fragile", ready="Fragile") as fragile:
        once = {"retries": 1, "retry-delay": 0.1}
        site.start(node("site.fragile", **once), {"raise": True})
        site.start(node("site.fragile"), {"raise": False})
        (letter,) = dead.wait_for(1)
        assert letter.headers["parvis-reason"] == "ZeroDivisionError: as was asked for"
        assert letter.headers["parvis-tries"] == "2"
        assert "in handle" in letter.headers["parvis-traceback"]
        assert json.loads(results.wait_for(1)[0].body)["payload"] == {"raise": False}
        site.transport.send(Send("site.news", b'"a broadcast"', kind="topic"), Send("site.plain", b'"plain"'))
        wait_until(lambda: "KeyError: 'a broadcast'" in fragile.text, 10, "the failure in the log")
        wait_until(lambda: "KeyError: 'plain'" in fragile.text, 10, "the failure in the log")
        assert fragile.process.poll() is None
        run = site.run("zocalo.shutdown", "-s", "Fragile")
        assert run.returncode == 0, run.stderr
        assert fragile.end() == 0
        assert "the last words of Broken" in fragile.text
    last = [card for card in site.cards if card["serviceclass"] == "Fragile"][-1]
    assert (last["service"], last["statustext"]) == ("Broken", "shutdown")
    assert len(results.messages) == 1, "what it had sent before it raised must not leave"


def test_what_is_in_hand_is_finished_before_the_end(site: Site, tmp_path: Path) -> None:
    results = Listener(site.transport, "results")
    go_on = tmp_path / "go on"
    with site.running("parvis", "service", "-s", "site-services:Fragile", ready="Fragile") as fragile:
        for number in range(2):
            site.start(node("site.fragile"), {"wait": str(go_on), "number": number})
        wait_until(lambda: "waiting for" in fragile.text, 10, "a message in hand")
        fragile.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            fragile.end(timeout=0.5)
        go_on.touch()
        assert fragile.end() == 0
        assert "the last words" in fragile.text
    results.wait_for(1)
    left = Listener(site.transport, "site.fragile")
    assert len(left.wait_for(1)) == 1
    assert len(results.messages) == 1


def test_what_kills_is_set_aside_at_last(site: Site) -> None:
    results, dead = Listener(site.transport, "results"), letters(site, "site.fragile")
    with site.running("parvis", "service", "-r", "-s", "site-services:Fragile", ready="Fragile"):
        site.start(node("site.fragile"), {"die": True})
        (letter,) = dead.wait_for(1, timeout=60)
        assert letter.headers["parvis-tries"] == "6"
        assert "died" in letter.headers["parvis-reason"]
        site.start(node("site.fragile"), {"die": False})
        results.wait_for(1)


def test_messages_kept_and_acknowledged_out_of_turn(site: Site) -> None:
    results = Listener(site.transport, "results")
    with site.running("parvis", "service", "-s", "site-services:Collector", ready="Collector") as collector:
        for number in range(7):
            site.start(node("site.collect"), number)
        results.wait_for(7)
        assert results.payloads() == [4, 3, 2, 1, 0, 6, 5]
        assert "the configuration says WELCOME" in collector.text
        collector.process.send_signal(signal.SIGTERM)
        assert collector.end() == 0
    again = Listener(site.transport, "site.collect")
    site.transport.send(Send("site.collect", b"last"))
    assert [message.body for message in again.wait_for(1)] == [b"last"]


def test_a_lost_connection_is_made_again(site: Site) -> None:
    proxy = TcpProxy(site.settings["broker"]["port"])
    site.configure(broker=site.settings["broker"] | {"port": proxy.port})
    results = Listener(site.transport, "results")
    with site.running("parvis", "service", "-s", "site-services:Collector", ready="Collector") as collector:
        for number in range(3):
            site.start(node("site.collect"), number)
        wait_until(lambda: collector.text.count("keeping") == 3, 10, "it has the messages")
        proxy.cut()
        site.start(node("site.collect"), 3)
        wait_until(lambda: set(results.payloads()) == {0, 1, 2, 3}, 20, "all results")
        assert collector.process.poll() is None
    proxy.close()


class _Mail(socketserver.StreamRequestHandler):
    """Takes one mail."""

    mails: list[str] = []  # noqa: RUF012

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        text: list[str] = []
        for line in self.rfile:
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                while (part := self.rfile.readline()) not in (b".\r\n", b""):
                    text.append(part.decode())
                self.mails.append("".join(text))
            self.wfile.write(b"250 fine\r\n")


@pytest.fixture
def mail_server() -> Iterator[int]:
    """The port of a mail server."""
    _Mail.mails.clear()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Mail) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_mailer(site: Site, mail_server: int) -> None:
    site.configure(mail=site.settings["mail"] | {"port": mail_server})
    dead = letters(site, "mailnotification")
    with site.running("parvis", "service", "-s", "zocalo:Mailer", ready="Mailer"):
        parameters = {"recipient": "somebody@example.org", "subject": "Done"}
        plain = {"parameters": parameters, "content": "It is {payload}."}
        site.transport.send(Send("mailnotification", orjson.dumps(plain)))
        wait_until(lambda: _Mail.mails, 10, "a mail")
        assert "Subject: Done" in _Mail.mails[0]
        # A brace that opens and never closes ends the original service, again and again.
        broken = {"parameters": parameters, "content": "{"}
        site.transport.send(Send("mailnotification", orjson.dumps(broken), {"parvis-attempts": "3"}))
        (letter,) = dead.wait_for(1)
        assert "ValueError" in letter.headers["parvis-reason"]


def test_json_lines(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    recipe = {"1": {"queue": "jsonlines", "parameters": {"output_filename": str(file)}}, "start": [[1, []]]}
    with site.running("parvis", "service", "-s", "zocalo:JSONLines", ready="JSONLines"):
        for number in range(3):
            site.start(recipe, {"number": number})
        wait_until(lambda: file.exists() and file.read_text().count("\n") == 3, 10, "three lines")
    assert [json.loads(line)["number"] for line in file.read_text().splitlines()] == [0, 1, 2]


@pytest.mark.parametrize("service", ["zocalo:Dispatcher", "Dispatcher"])
def test_dispatchers_start_jobs_of_either_go(site: Site, service: str) -> None:
    recipe = {
        "1": {"queue": "results", "parameters": {"of": "{ispyb_dcid}"}},
        "start": [[1, {"dc": "{ispyb_dcid}"}]],
    }
    (site.recipes / "simple.json").write_text(json.dumps(recipe))
    results = Listener(site.transport, "results")
    with site.running("parvis", "service", "-s", service, ready="Dispatcher"):
        for number, command in enumerate((["parvis", "go"], ["zocalo.go"])):
            run = site.run(*command, "-r", "simple", "-n", "-s", f"ispyb_dcid={number}")
            assert run.returncode == 0, run.stderr
        results.wait_for(2)
    assert results.payloads() == [{"dc": "0"}, {"dc": "1"}]


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("nowhere:Nothing", 2, "there is no service 'nowhere:Nothing'"),
        ("workflows:Sample", 2, "several services begin with"),
        ("json:dumps", 1, "is not a class derived from workflows' CommonService"),
    ],
)
def test_names_that_lead_nowhere(small_site: Site, name: str, code: int, said: str) -> None:
    run = small_site.run("parvis", "service", "-s", name)
    assert run.returncode == code
    assert said in run.stderr
    assert "Traceback" not in run.stderr


def test_a_service_that_cannot_start(small_site: Site) -> None:
    small_site.configure(environments={"default": ["broker", "by-default", "places"]})
    run = small_site.run("parvis", "service", "-s", "zocalo:Mailer")
    assert run.returncode == 1
    assert "There are no SMTP settings" in run.stderr
    assert "Mail Notifications has ended by an error of its own" in run.stderr


def test_the_list_tells_them_from_ours(small_site: Site) -> None:
    rows = {row["service"]: row for row in json.loads(small_site.run("parvis", "service", "--json").stdout)}
    assert rows["Multiplier"]["foreign"] is False
    assert rows["zocalo:Mailer"]["foreign"] is True
    assert rows["site-services:Doubler"]["about"] == "Doubles a number; refuses what is none."
    assert "site-services:Multiplier" not in rows
