"""The web page in its own process, with a real broker: what it shows, and whom it lets do what."""

from __future__ import annotations

import base64
import json
import re
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from parvis.observe.hop_table import add
from parvis.observe.hops import REQUEST, Hop, Report, Sent, Started
from parvis.observe.log_record import LogRecord
from parvis.observe.records import RecordsWriter
from parvis.recipe.envelope import dump_json
from parvis.transport.base import Send
from parvis.transport.embedded import BrokerThread
from parvis.web.headers import CONTENT_SECURITY_POLICY
from running import broker_environment, connected, process_of, recipe_message
from sample_services import Multiplier
from waiting import wait_until
from web_page import (
    PASSWORD,
    USER,
    WebPage,
    events,
    log_in,
    make_certificate,
    token_of,
    web_page,
    write_configuration,
)

MARKUP = "<script>alert('gotcha')</script>\x1b[31m\u202e\"'>&<img src=x onerror=alert(1)>"
RECIPE_ID = "0123abcd-0000-4000-8000-00000000beef"


def _status(host: str, service: str, status: int = 2) -> Send:
    told = {"host": host, "service": service, "serviceclass": service, "status": status, "parvis": "0.1.0"}
    return Send("transient.status", dump_json(told), kind="topic", persistent=False)


def _write_records(directory: Path) -> None:
    """Records of a recipe of two nodes, the second of which has failed with markup for a reason."""
    now = time.time()
    recipe = {
        "1": {"service": "Multiply", "queue": "multiply", "output": {"result": 2}},
        "2": {"service": MARKUP, "queue": "add"},
        "start": [[1, {}]],
    }
    request = Hop(
        RECIPE_ID, REQUEST, "processing_recipe", "r", "done", "Dispatcher", "vm.1", now - 5, now - 4, 0.1,
        sent=(Sent(1, "multiply"),),
    )  # fmt: skip
    first = Hop(
        RECIPE_ID, 1, "multiply", "a", "done", "Multiplier", "vm.2", now - 4, now - 3, 0.5, came_from=0,
        sent=(Sent(2, "add", 41),),
    )  # fmt: skip
    second = [
        Hop(RECIPE_ID, 2, "add", f"b{n}", "done", "Adder", "vm.3", now - 3, now - 2, 0.2, came_from=1)
        for n in range(39)
    ]
    dead = Hop(
        RECIPE_ID, 2, "add", "c", "fail", "Adder", "vm.3", now - 3, now - 1, 0.2, came_from=1,
        sent=(Sent(2, "add", kind="dead_letter"),), reason=MARKUP, trace=f"Traceback\n  {MARKUP}",
    )  # fmt: skip
    started = Started(RECIPE_ID, "r", now - 4, "gda", {"x": MARKUP}, {"recipes": ["maths"]}, {}, recipe)
    with RecordsWriter(directory) as records, records.writing() as database:
        add(database, Report([request, first, *second, dead], [started]))
        records.add_logs(
            database,
            [
                LogRecord(
                    now - 2, 3, "parvis.sums", f"cannot add {MARKUP}", recipe_id=RECIPE_ID, service="Adder"
                ),
                LogRecord(now - 1, 6, "parvis.sums", "x" * 1_000_000, service="Adder"),
            ],
        )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WebPage, int]]:
    """The page and the port of its broker."""
    directory = tmp_path_factory.mktemp("web")
    _write_records(directory / "records")
    with BrokerThread() as broker:
        environment = write_configuration(directory, broker.port)
        with web_page(directory, environment) as running:
            yield running, broker.port


@pytest.fixture
def browser(page: tuple[WebPage, int]) -> Iterator[httpx.Client]:
    with page[0].browser() as client:
        yield client


def test_who_is_there_is_shown_and_escaped_whatever_it_says(page: tuple[WebPage, int]) -> None:
    with page[0].browser() as browser, connected(page[1]) as transport:
        wait_until(lambda: "no connection" not in browser.get("/services").text, 10, "the page's connection")
        for status in (
            _status("vm.1.77", f"evil {MARKUP}"),
            _status("vm.1.78", "y" * 10_000_000),
            _status("vm.1.79", "Good"),
        ):
            transport.send(status)
        wait_until(lambda: "Good" in browser.get("/services").text, 15, "the last card")
        html = browser.get("/services").text
        cards = re.findall(r'href="(/services/service-[0-9a-f]+)"', html)
        assert "is there any more" in browser.get("/services/service-0123456789abcdef").text
        instances = "".join(browser.get(card).raise_for_status().text for card in cards)
    assert "evil" in html
    assert "1.77" in instances
    assert "<script>alert" not in instances
    assert "<script>alert" not in html
    assert "onerror=alert(1)>" not in html
    assert "&lt;script&gt;" in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert len(html) < 100_000


def test_every_answer_keeps_the_browser_to_this_server(browser: httpx.Client) -> None:
    for path in ("/", "/static/parvis.js", "/nothing", "/api/queues", "/log-in"):
        headers = browser.get(path).headers
        assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY, path
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    for path in ("/", "/services", "/queues", "/recipes", "/logs?text=add", f"/recipes/{RECIPE_ID}"):
        html = browser.get(path).raise_for_status().text
        assert "http://" not in html.replace("http://www.w3.org/", "")
        assert " style=" not in html
        assert "<style" not in html


def test_a_name_that_is_not_ours_is_refused(browser: httpx.Client) -> None:
    assert browser.get("/services", headers={"Host": "rebound.example.org"}).status_code == 400


def test_a_recipe_is_shown_with_counts_and_what_failed(browser: httpx.Client) -> None:
    html = browser.get(f"/recipes/{RECIPE_ID}").raise_for_status().text
    assert ">39 done, 1 to do, 1 given up</text>" in html
    assert '<text class="along"' in html
    assert "&lt;script&gt;alert(" in html
    assert "<script>alert" not in html
    assert "\x1b" not in html
    listed = browser.get("/recipes").text
    assert "maths" in listed
    assert f"/recipes/{RECIPE_ID}" in listed
    story = browser.get(f"/api/recipes/{RECIPE_ID}").json()
    assert {node["node"]: node["given_up"] for node in story["nodes"]}[2] == 1
    assert "Nobody has reported" in browser.get("/recipes/unheard-of").text
    assert browser.get("/api/recipes/unheard-of").status_code == 404


def test_the_log_is_searched(browser: httpx.Client) -> None:
    html = browser.get("/logs", params={"text": "cannot add", "level": "error"}).text
    assert "1 records" in html
    assert "&lt;script&gt;alert(" in html
    assert "<script>alert" not in html
    huge = browser.get("/logs", params={"service": "Adder", "since": "10m"})
    assert len(huge.content) < 100_000
    assert "1,000,000 characters in all" in huge.text
    (record,) = browser.get("/api/logs", params={"recipe": RECIPE_ID}).json()["records"]
    assert record["level"] == "error"
    assert "cannot be searched" in browser.get("/logs", params={"text": "!!!"}).text


def test_what_cannot_be_shown_says_why(browser: httpx.Client) -> None:
    assert "no metadata database is configured" in browser.get("/grid-scans").text
    answer = browser.get("/api/grid-scans/1")
    assert answer.status_code == 503
    assert "no metadata database is configured" in answer.json()["error"]
    assert browser.get("/api/grid-scans/99999999999999999999999").status_code == 404
    for asked, says in (("level=loud", "level is one of emergency"), ("since=zzz", "since is one of 10m")):
        answer = browser.get(f"/api/logs?{asked}")
        assert answer.status_code == 400
        assert says in answer.json()["error"]
    assert browser.get("/nothing").status_code == 404
    assert browser.get("/live/nothing").status_code == 404
    assert browser.get(f"/recipes/{'x' * 300}").status_code == 404


def test_changes_are_sent_as_they_happen(page: tuple[WebPage, int]) -> None:
    with page[0].browser() as browser, connected(page[1]) as transport:
        stream = events(browser, "services")
        first = next(stream)
        assert set(first) == {"head", "services"}
        for attempt in range(20):
            transport.post(_status("vm.1.80", f"Newcomer{attempt}"))
            news = next(stream)
            if "Newcomer" in "".join(news.get("services", {}).get("parts", {}).values()):
                break
        else:
            pytest.fail("nobody was told of the newcomer")
        known = set(first["services"]["parts"])
        assert not known & set(news["services"]["parts"]), "what has not changed is not sent again"


def test_only_who_has_logged_in_stops_services(page: tuple[WebPage, int]) -> None:
    running, port = page
    with process_of(Multiplier, port, broker_environment(port)) as service, running.browser() as browser:
        address = "/services/stop?service=Multiplier"
        wait_until(lambda: "Multiplier" in browser.get("/services").text, 20, "the card of the service")
        assert browser.get(address).status_code == 303
        token = token_of(browser, "/log-in")
        stop = {"service": "Multiplier", "_csrf_token": token}
        assert browser.post("/services/stop", data=stop).status_code == 401
        with running.signed_in() as operator:
            assert "Stop the instance of Multiplier?" in operator.get(address).text
            forged = operator.post("/services/stop", data={"service": "Multiplier"})
            assert forged.status_code == 403
            forged = operator.post("/services/stop", data=stop)
            assert forged.status_code == 403
            assert service.poll() is None
            assert operator.get("/services/stop?service=Nobody").status_code == 404
            own = {"service": "Multiplier", "_csrf_token": token_of(operator, address)}
            assert "was told to stop" in operator.post("/services/stop", data=own).text
        assert service.wait(20) == 0
    assert f"{USER} has told the instance of Multiplier to stop" in running.log.read_text()


def test_dead_letters_say_why_and_are_sent_in_again_or_kept_and_removed(page: tuple[WebPage, int]) -> None:
    running, port = page
    with (
        process_of(Multiplier, port, broker_environment(port)),
        connected(port) as transport,
        running.browser() as browser,
    ):
        for number in (13, 13, 15):
            transport.send(recipe_message("multiply", {"number": number}))
        transport.send(recipe_message("multiply", {"number": MARKUP}))

        def letters() -> list[dict[str, Any]]:
            return browser.get("/api/dead-letters").json().get("letters", [])

        wait_until(lambda: len(letters()) == 4, 30, "four dead letters")
        html = browser.get("/dead-letters").text
        assert "4 messages were set aside, in 1 queue" in html
        assert "13 is no good" in html
        assert "ZeroDivisionError: 15 is a surprise" in html
        assert "Traceback (most recent call last)" in html
        assert "<script>alert" not in html
        wait_until(lambda: "4 messages were set aside" in browser.get("/").text, 15, "the overview")
        reinject, purge = _group_of("13 is no good", html)
        assert browser.get(reinject).status_code == 303
        with running.signed_in() as operator:
            asked = operator.get(reinject)
            assert "Send 2 dead letters in again?" in asked.text
            assert "2 to test.multiply" in asked.text
            form = {"group": reinject.partition("=")[2], "_csrf_token": token_of(operator, reinject)}
            assert operator.post("/dead-letters/reinject", data={"group": form["group"]}).status_code == 403
            assert (
                "2 dead letters were sent in again" in operator.post("/dead-letters/reinject", data=form).text
            )
            wait_until(
                lambda: [one["reinjected"] for one in letters()].count(1) == 2, 30, "two that died again"
            )
            assert "Keep 2 dead letters in files" in operator.get(purge).text
            answer = operator.post("/dead-letters/purge", data=form).text
            assert "2 dead letters were kept in" in answer
            wait_until(lambda: len(letters()) == 2, 30, "two that are left")
            assert operator.post("/dead-letters/purge", data=form).status_code == 404
    log = running.log.read_text()
    assert log.count(f"{USER} has sent dead letter") == 2
    assert log.count(f"{USER} has removed dead letter") == 2
    kept = re.findall(r"kept in (\S+)", log)
    assert [json.loads(Path(file).read_text())["message"]["payload"] for file in kept] == [{"number": 13}] * 2


def _group_of(reason: str, html: str) -> tuple[str, str]:
    """Addresses for sending in again and for removing the dead letters of a reason."""
    article = next(part for part in html.split("<article")[1:] if reason in part)
    found = re.search(r"reinject\?group=([\w-]+)", article)
    assert found is not None, article
    return f"/dead-letters/reinject?group={found[1]}", f"/dead-letters/purge?group={found[1]}"


def test_logging_in_and_out(page: tuple[WebPage, int]) -> None:
    running = page[0]
    with running.browser() as browser:
        refused = log_in(browser, password="wrong")
        assert refused.status_code == 401
        assert log_in(browser, name="nobody").status_code == 401
        assert browser.get("/services/stop").status_code == 303
        welcome = log_in(browser, next="//evil.example.org/")
        assert welcome.headers["location"] == "/"
        cookies = [value for name, value in welcome.headers.multi_items() if name == "set-cookie"]
        (session,) = [cookie for cookie in cookies if cookie.startswith("parvis-session=")]
        assert "HttpOnly" in session
        assert "SameSite=strict" in session
        assert "Log out" in browser.get("/").text
        kept = dict(browser.cookies)
        token = token_of(browser, "/")
        assert browser.post("/log-out").status_code == 403
        assert browser.post("/log-out", data={"_csrf_token": token}).status_code == 303
        assert "Log out" not in browser.get("/").text
    with running.browser(cookies=kept) as thief:
        assert "Log out" not in thief.get("/").text, "a session that was ended is of no use"
    assert PASSWORD not in running.log.read_text()


def test_made_up_cookies_are_no_session_and_no_trouble(page: tuple[WebPage, int]) -> None:
    for content in (
        "@@@",
        "null",
        _encoded(b"{}"),
        _encoded(b'{"expires_at": "x"}'),
        _encoded(b"[]"),
        "A" * 4000,
    ):
        with page[0].browser(cookies={"parvis-session": content, "parvis-form": content}) as browser:
            answer = browser.get("/services/stop")
            assert answer.status_code == 303, content
    assert "Traceback" not in page[0].log.read_text()


def _encoded(claims: bytes) -> str:
    """A session cookie in the library's form, with these claims, that nobody has encrypted."""
    return base64.b64encode(bytes(28) + b"additional_authenticated_data=" + claims).decode()


def test_guessing_passwords_is_slowed_down(tmp_path: Path) -> None:
    with BrokerThread() as broker:
        environment = write_configuration(tmp_path, broker.port)
        with web_page(tmp_path, environment) as running, running.browser() as browser:
            token = token_of(browser, "/log-in")
            form = {"_csrf_token": token, "name": USER, "password": "guess", "next": "/"}
            codes = [browser.post("/log-in", data=form).status_code for _ in range(12)]
            assert codes == [401] * 10 + [429] * 2
            form["password"] = PASSWORD
            assert browser.post("/log-in", data=form).status_code == 429
            large = browser.post("/log-in", data=form | {"password": "x" * 1_000_000})
            assert large.status_code in {413, 429}


def test_with_a_certificate_cookies_travel_by_https_alone(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    environment = write_configuration(tmp_path, 1)
    options = ("--certificate", str(certificate), "--key", str(key))
    with web_page(tmp_path, environment, *options) as running:
        assert running.address.startswith("https://")
        trusted = ssl.create_default_context(cafile=str(certificate))
        with running.browser(verify=trusted) as browser:
            answer = log_in(browser)
        cookies = [value for name, value in answer.headers.multi_items() if name == "set-cookie"]
        assert cookies
        assert all("Secure" in cookie for cookie in cookies)
    key.write_text("no key")
    with pytest.raises(AssertionError, match="certificate or its key cannot be used") as caught:  # noqa: SIM117
        with web_page(tmp_path, environment, *options):
            pass
    assert "Traceback" not in str(caught.value)


def test_it_waits_for_a_broker_that_is_away(tmp_path: Path) -> None:
    environment = write_configuration(tmp_path, 1)
    with web_page(tmp_path, environment) as running, running.browser() as browser:
        assert "There is no connection to the broker" in browser.get("/").text
        assert "no connection to the broker" in browser.get("/services").text
        assert browser.get("/api/queues").status_code == 503


def test_a_port_that_is_taken_is_one_line(page: tuple[WebPage, int], tmp_path: Path) -> None:
    port = page[0].address.rstrip("/").rpartition(":")[2]
    environment = write_configuration(tmp_path, 1)
    with pytest.raises(AssertionError, match=f"cannot listen at 127.0.0.1:{port}"):  # noqa: SIM117
        with web_page(tmp_path, environment, "--port", port):
            pass
    assert "Traceback" not in (tmp_path / "web.log").read_text()
