"""`zocalo.dlq_check` on an ActiveMQ that can be asked through Jolokia."""

from __future__ import annotations

from pathlib import Path

import pytest

from parvis.transport.base import Send
from real.activemq.jolokia import agent
from real.activemq.server import ActiveMQ, install
from real.daemon import free_ports
from real.packages import Unavailable, unavailable
from running import Listener
from zocalo_site import stomp_site

pytestmark = pytest.mark.real("activemq")


def _make_it_manageable(broker: ActiveMQ) -> None:
    """Have it registered under the name that zocalo asks for."""
    file = broker.directory / "conf" / "activemq.xml"
    settings = file.read_text().replace('brokerName="parvis-tests"', 'brokerName="localhost"')
    file.write_text(settings.replace('useJmx="false"', 'useJmx="true"'))


def test_our_dead_letters_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    (tmp_path / "agent").mkdir()
    try:
        install()
        jar = agent(tmp_path / "agent")
    except Unavailable as error:
        unavailable(str(error))
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", f"-javaagent:{jar}={port}")
    broker = ActiveMQ(tmp_path / "broker")
    _make_it_manageable(broker)
    broker.start()
    monkeypatch.delenv("JAVA_TOOL_OPTIONS")
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
        broker.stop()
