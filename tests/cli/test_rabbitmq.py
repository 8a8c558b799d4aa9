"""`parvis rabbitmq configure` with a real RabbitMQ."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from inbox import Inbox
from parvis.cli import main
from parvis.service.registry import contracts, load_service
from parvis.transport.base import Send
from real.rabbitmq.vhost import VirtualHost

pytestmark = pytest.mark.real("rabbitmq")


@pytest.fixture(autouse=True)
def _site(unconfigured: None, vhost: VirtualHost, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in vhost.environment().items():
        monkeypatch.setenv(name, value)


def configure(vhost: VirtualHost, *arguments: str | Path) -> Result:
    api = f"http://{vhost.server.host}:{vhost.server.management_port}"
    return CliRunner().invoke(main, ["rabbitmq", "configure", "--api", api, *map(str, arguments)])


def changes(vhost: VirtualHost, *arguments: str | Path) -> list[dict[str, Any]]:
    return json.loads(configure(vhost, "--json", *arguments).stdout)


def test_makes_what_the_services_need_and_then_nothing(vhost: VirtualHost) -> None:
    planned = configure(vhost, "--dry-run", "--queue", "results", "--priority-queue", "urgent")
    assert planned.exit_code == 0, planned.stderr
    assert "+ queue results in" in planned.stdout
    assert "nothing was done" in planned.stdout
    assert vhost.api("GET", "queues") == []
    done = configure(vhost, "--queue", "results", "--priority-queue", "urgent")
    assert done.exit_code == 0, done.stderr
    present = {queue["name"]: queue["arguments"] for queue in vhost.api("GET", "queues")}
    for name in [*contracts(), "results"]:
        assert present[name]["x-queue-type"] == "quorum"
        assert present[name]["x-delivery-limit"] == 20
        assert f"dlq.{name}" in present
    assert present[load_service("XRayCentring").queue]["x-single-active-consumer"] is True
    assert present["urgent"]["x-max-priority"] == 9
    assert vhost.api("GET", "exchanges", "transient.status")["type"] == "fanout"
    assert "Nothing to do" in configure(vhost, "--queue", "results", "--priority-queue", "urgent").stdout


def test_user_without_rights_to_make_anything_works_with_it(vhost: VirtualHost) -> None:
    assert configure(vhost, "--queue", "work").exit_code == 0
    vhost.server.api("PUT", "users/worker", {"password": "secret", "tags": ""})
    # what everybody needs for broadcasts to oneself: queues that the broker names
    vhost.api("PUT", "permissions", "worker", {"configure": "^amq[.]gen", "write": ".*", "read": ".*"})
    transport = vhost.transport(username="worker", password="secret")
    transport.connect(10)
    inbox, news = Inbox(), Inbox()
    transport.subscribe("work", inbox)
    transport.subscribe_broadcast("command", news)
    transport.send(Send("work", b"later", delay=1), Send("command", b"{}", kind="topic"))
    assert inbox.get().body == b"later"
    assert news.get().body == b"{}"
    transport.disconnect()


def test_queue_that_differs_is_told_and_left_alone(vhost: VirtualHost) -> None:
    vhost.api("PUT", "queues", "results", {"durable": True, "arguments": {"x-queue-type": "classic"}})
    result = configure(vhost, "--queue", "results")
    assert result.exit_code == 1
    assert "! queue results" in result.stdout
    assert "x-queue-type is 'classic', wanted is 'quorum'" in result.stdout
    assert "1 of" in result.stderr
    assert configure(vhost, "--queue", "results", "--delete").exit_code == 0
    assert vhost.queue("results")["arguments"]["x-queue-type"] == "quorum"


def site(vhost: VirtualHost, directory: Path) -> Path:
    """A file for both commands."""
    content = {
        "vhosts": [{"name": vhost.name, "description": "a test"}],
        "permissions": [
            {"vhost": vhost.name, "user": "parvis", "configure": ".*", "write": ".*", "read": ".*"},
            {"vhost": "/", "user": "parvis", "configure": ".*", "write": ".*", "read": ".*"},
        ],
        "policies": [
            {
                "name": "limit",
                "vhost": vhost.name,
                "pattern": "^site[.]",
                "definition": {"delivery-limit": 5},
                "priority": 1,
                "apply-to": "queues",
            }
        ],
        "exchanges": [{"name": "images", "type": "topic", "vhost": vhost.name, "durable": True}],
        "bindings": [
            {"source": "images", "destination": "site.one", "routing_key": "raw.*", "vhost": vhost.name}
        ],
        "groups": [
            {
                "names": ["site.one", "site.two"],
                "vhost": vhost.name,
                "bindings": ["", "images"],
                "settings": {"queues": {"type": "quorum", "dead-letter-routing-key-pattern": "dlq.{name}"}},
            },
            {
                "names": ["site.log"],
                "vhost": vhost.name,
                "settings": {"single_active_consumer": True, "queues": {"type": "classic"}},
            },
            {"names": ["command"], "vhost": vhost.name, "settings": {"broadcast": True}},
        ],
    }
    file = directory / "rabbitmq.yml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_file_of_zocalo_is_made_as_zocalo_makes_it(vhost: VirtualHost, tmp_path: Path) -> None:
    pytest.importorskip("zocalo.cli.configure_rabbitmq")
    file = site(vhost, tmp_path)
    assert configure(vhost, file).exit_code == 0
    assert "Nothing to do" in configure(vhost, file, "--delete").stdout
    assert _zocalo(vhost, file, tmp_path) == []
    vhost.api("DELETE", "queues", "dlq.site.two")
    vhost.api("DELETE", "policies", "limit")
    vhost.api("DELETE", "exchanges", "images")
    assert len(_zocalo(vhost, file, tmp_path)) >= 3
    assert "Nothing to do" in configure(vhost, file, "--delete").stdout


def _zocalo(vhost: VirtualHost, file: Path, directory: Path) -> list[str]:
    """What `zocalo.configure_rabbitmq` has to change."""
    api = {
        "plugin": "rabbitmqapi",
        "base_url": f"http://{vhost.server.host}:{vhost.server.management_port}/api",
        "username": vhost.server.username,
        "password": vhost.server.password,
    }
    settings = directory / "zocalo.yml"
    settings.write_text(
        yaml.safe_dump({"version": 1, "rabbit": api, "environments": {"default": {"plugins": ["rabbit"]}}})
    )
    done = subprocess.run(
        [sys.executable, "-m", "zocalo.cli.configure_rabbitmq", str(file)],
        env={**os.environ, "ZOCALO_CONFIG": str(settings)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stderr.splitlines()
    return [
        line for line in lines if line.lower().startswith(("creating", "updating", "deleting", "removing"))
    ]


def test_delete_takes_away_what_a_file_does_not_name(vhost: VirtualHost, tmp_path: Path) -> None:
    file = site(vhost, tmp_path)
    assert configure(vhost, file).exit_code == 0
    vhost.make_queues("forgotten", "in.use")
    vhost.transport()
    sender = vhost.transport()
    sender.connect(10)
    sender.send(Send("in.use", b"a message"), Send("in.use", b"later", delay=60))
    assert changes(vhost, file) == []
    listener = vhost.transport()
    listener.connect(10)
    listener.subscribe_temporary("answers", Inbox())
    listener.subscribe_broadcast("command", Inbox())
    deleted = configure(vhost, file, "--delete")
    assert deleted.exit_code == 1
    assert "- queue forgotten" in deleted.stdout
    assert "! queue in.use" in deleted.stdout
    names = {queue["name"] for queue in vhost.api("GET", "queues")}
    assert "forgotten" not in names
    assert {"in.use", "parvis.delay.60000", "site.one"} <= names
    assert any(name.startswith("transient.answers.") for name in names)
    listener.disconnect()
    sender.disconnect()


def test_users_come_from_files_of_their_own(vhost: VirtualHost, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.mkdir()
    (users / "one.ini").write_text("[rabbitmq]\nusername = one\npassword = se%cret\ntags = monitoring\n")
    file = site(vhost, tmp_path)
    first = configure(vhost, file, "--user-config", users)
    assert first.exit_code == 0, first.output
    assert "+ user one" in first.stdout
    assert "se%cret" not in first.output
    assert vhost.server.api("GET", "users/one")["tags"] in ("monitoring", ["monitoring"])
    assert changes(vhost, file, "--user-config", users) == []
    (users / "one.ini").write_text("[rabbitmq]\nusername = one\npassword = other\n")
    assert [change["action"] for change in changes(vhost, file, "--user-config", users)] == ["update"]
    vhost.server.api("DELETE", "users/one")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("groups: [1]", r"groups\[0\] must be a mapping"),
        ("groups: [{}]", r"groups\[0\]: names is missing"),
        ("groups: {}\nqueues: 3\nvhosts: 7", "vhosts must be a list"),
        ("[1, 2]", "must be a mapping with some of vhosts"),
        ("a: [", "is not YAML"),
        (
            "groups: [{names: [x], settings: {queues: {type: 3}}}]",
            "settings.queues: type must be of type str",
        ),
        ("groups: [{names: [x, x]}]", "queue x is named twice"),
    ],
)
def test_malformed_file_is_an_error(vhost: VirtualHost, tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "bad.yml"
    file.write_text(text)
    result = configure(vhost, file)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert re.search(says, result.stderr)


def test_wrong_address_and_password(vhost: VirtualHost, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(main, ["rabbitmq", "configure", "--api", "http://127.0.0.1:1"])
    assert result.exit_code == 2
    assert "http://127.0.0.1:1/api cannot be reached" in result.stderr
    monkeypatch.setenv("PARVIS_RABBITMQ_PASSWORD", "wr0ng")
    result = configure(vhost)
    assert result.exit_code == 2
    assert "refused the log-in of 'parvis'" in result.stderr
    assert "wr0ng" not in result.output
