"""What all tests share: the servers that some need."""

import os
import signal
from pathlib import Path

from real.activemq.fixture import activemq
from real.mariadb import mariadb, mariadb_url
from real.rabbitmq.fixture import rabbitmq, vhost

__all__ = ["activemq", "mariadb", "mariadb_url", "rabbitmq", "vhost"]

# Processes that tests start find the services of tests there.
os.environ["PYTHONPATH"] = str(Path(__file__).parent)

# Whoever starts the tests in the background may have SIGINT ignored, and all that the tests start with it.
signal.signal(signal.SIGINT, signal.default_int_handler)
