"""Hops on a real RabbitMQ, where a queue must be there before something is sent to it."""

from __future__ import annotations

import pytest

from connecting import connecting
from parvis.config import Config
from parvis.observe.hop_recorder import HopRecorder
from parvis.observe.hops import QUEUE, read_hops
from parvis.service.host import Host
from real.rabbitmq.vhost import VirtualHost
from running import Listener, in_thread, recipe_message
from sample_services import Multiplier
from waiting import wait_until

pytestmark = pytest.mark.real("rabbitmq")


def test_the_queue_of_reports_is_made_and_needs_no_dead_letters(vhost: VirtualHost) -> None:
    vhost.make_queues("multiply", "results")
    with connecting(vhost.transport) as connect:
        transport = connect()
        results = Listener(transport, "results")
        host = Host(vhost.transport(), [Multiplier(Config())], observers=[HopRecorder()])
        with in_thread(host):
            transport.send(recipe_message("multiply", {"number": 2}))
            results.wait_for(1)
        reports = Listener(transport, QUEUE)
        wait_until(lambda: any(read_hops(one.body).hops for one in reports.messages), 20, "the hop")
    (hop,) = [hop for one in reports.messages for hop in read_hops(one.body).hops]
    assert (hop.node, [sent.queue for sent in hop.sent]) == (1, ["results"])
    assert vhost.queue(QUEUE)["arguments"] == {"x-queue-type": "quorum"}
