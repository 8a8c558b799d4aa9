"""What all tests share: the servers that some need."""

from real.activemq.fixture import activemq
from real.mariadb import mariadb, mariadb_url

__all__ = ["activemq", "mariadb", "mariadb_url"]
