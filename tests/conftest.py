"""What all tests share: the servers that some need."""

from real.mariadb import mariadb, mariadb_url

__all__ = ["mariadb", "mariadb_url"]
