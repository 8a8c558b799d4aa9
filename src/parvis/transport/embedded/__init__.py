"""A small STOMP broker for one machine, tests and demonstrations."""

from parvis.transport.embedded.journal import JournalError
from parvis.transport.embedded.server import Broker, BrokerError
from parvis.transport.embedded.settings import Settings
from parvis.transport.embedded.statistics import DestinationStatistics
from parvis.transport.embedded.thread import BrokerThread

__all__ = ["Broker", "BrokerError", "BrokerThread", "DestinationStatistics", "JournalError", "Settings"]
