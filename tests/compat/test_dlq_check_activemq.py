"""`zocalo.dlq_check` on an ActiveMQ that can be asked through Jolokia."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from parvis.transport.base import Send
from real.activemq.jolokia import managed
from real.activemq.server import ActiveMQ
from real.packages import Unavailable, unavailable
from running import Listener
from zocalo_site import stomp_site

pytestmark = pytest.mark.real("activemq")


def test_our_dead_letters_are_counted(tmp_path: Path) -> None:
    with ExitStack() as stack:
        try:
            broker, port = stack.enter_context(managed(tmp_path, "localhost"))  # as zocalo asks for it
        except Unavailable as error:
            unavailable(str(error))
        _count(broker, port, tmp_path)


def _count(broker: ActiveMQ, port: int, tmp_path: Path) -> None:
    site = stomp_site(broker.port, tmp_path / "site", (broker.username, broker.password))
    jmx = {"plugin": "jmx", "host": "127.0.0.1", "port": port, "base_url": "api/jolokia"}
    site.configure(
        management={**jmx, "username": "nobody", "password": "needed"},
        environments={"live": ["broker", "by-default", "places", "management"], "default": "live"},
    )
    site.open()
    try:
        assert "No DLQ messages found" in site.run("zocalo.dlq_check", "-n", site.namespace).stdout
        with site.running("parvis", "service", "-s", "Multiplier", ready="Multiplier"):
            listener = Listener(site.transport, f"DLQ.{site.namespace}.multiply")
            site.transport.send(Send("multiply", b"one"), Send("multiply", b"two"))
            listener.wait_for(2)
        run = site.run("zocalo.dlq_check", "-n", site.namespace)
        assert f"DLQ for {site.namespace}.multiply contains 2 entries" in run.stdout
        assert run.returncode == 1
    finally:
        site.transport.disconnect()
