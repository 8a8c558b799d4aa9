"""An ActiveMQ that ignores delays, as it comes from the factory."""

import logging

import pytest

from inbox import Inbox
from parvis.transport.base import Send
from parvis.transport.stomp import StompTransport
from real.activemq.server import ActiveMQ, running

pytestmark = pytest.mark.real("activemq")


def delayed_message(broker: ActiveMQ) -> None:
    """Send a message with a delay, and wait for it."""
    hosts = [(broker.host, broker.port)]
    transport = StompTransport(hosts, broker.username, broker.password, "delays")
    transport.connect(10)
    inbox = Inbox()
    transport.subscribe("work", inbox)
    for _ in range(2):
        transport.send(Send("work", b"", delay=1.0))
        transport.commit([inbox.get()], [])
    transport.disconnect()


def test_it_is_said_once_that_delays_are_ignored(caplog: pytest.LogCaptureFixture):
    with running(scheduler=False) as broker, caplog.at_level(logging.ERROR):
        delayed_message(broker)
    (record,) = [record for record in caplog.records if "ignores delays" in record.message]
    assert "schedulerSupport" in record.message


def test_nothing_is_said_of_a_broker_that_heeds_them(activemq: ActiveMQ, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.ERROR):
        delayed_message(activemq)
    assert "ignores delays" not in caplog.text
