"""What the plugin configurations of a configuration file say, each as one typed object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

STOMP_PORT = 61613
AMQP_PORT = 5672


class ConfigError(Exception):
    """The configuration is wrong; the text says where and what to do."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class StompSettings:
    """How to reach a STOMP broker (plugin `stomp`).

    Attributes:
        host: Name or address of the broker. Several are separated by commas, each may have a port of its
            own: `amq1,amq2:61614`; the first that answers is used.
        port: Port of those hosts that name none.
        username: Whom to log in as; empty for no log-in.
        password: The password.
        prefix: Namespace that all queues and topics are in, such as `zocalo`; empty for none.
        tls: Whether the connection is encrypted and the broker must prove who it is.
        tls_ca: File with the certificates of the authorities to trust, if not those of this machine.
    """

    host: str = "localhost"
    port: int = STOMP_PORT
    username: str = "admin"
    password: str = field(default="password", repr=False)
    prefix: str = "zocalo"
    tls: bool = False
    tls_ca: str | None = None

    @property
    def hosts(self) -> list[tuple[str, int]]:
        """The brokers to try, in order, as (host, port).

        Raises:
            ConfigError: `host` names no host, or a port is not a number from 1 to 65535.
        """
        return _hosts(self.host, self.port, "STOMP", "PARVIS_STOMP_HOST")

    def tls_context(self) -> ssl.SSLContext | None:
        """Return what checks the certificate of the broker, or None for a connection without TLS.

        Raises:
            ConfigError: The file with the authorities cannot be read.
        """
        return _tls_context(self.tls, self.tls_ca)


@dataclass(frozen=True, slots=True)
class PikaSettings:
    """How to reach RabbitMQ (plugin `pika`).

    Attributes:
        host: Name or address of the broker. Several are separated by commas, each may have a port of its
            own; they are tried in an order that chance decides.
        port: Port of those hosts that name none.
        username: Whom to log in as.
        password: The password.
        vhost: The virtual host.
        tls, tls_ca: As of `StompSettings`.
    """

    host: str = "localhost"
    port: int = AMQP_PORT
    username: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"
    tls: bool = False
    tls_ca: str | None = None

    @property
    def hosts(self) -> list[tuple[str, int]]:
        """The brokers to try, as (host, port). Raises as `StompSettings.hosts`."""
        return _hosts(self.host, self.port, "RabbitMQ", "PARVIS_RABBITMQ_HOST")

    def tls_context(self) -> ssl.SSLContext | None:
        """As `StompSettings.tls_context`."""
        return _tls_context(self.tls, self.tls_ca)


def _tls_context(wanted: bool, authorities: str | None) -> ssl.SSLContext | None:
    if not wanted:
        return None
    import ssl

    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise ConfigError(f"tls_ca: cannot use {authorities}: {error.strerror or 'malformed'}") from None


def _hosts(text: str, port: int, what: str, variable: str) -> list[tuple[str, int]]:
    hosts = [_host_and_port(entry.strip(), port, what) for entry in text.split(",") if entry.strip()]
    if not hosts:
        raise ConfigError(f"the {what} broker has no host: set host, or {variable}")
    return hosts


def _host_and_port(entry: str, default: int, what: str) -> tuple[str, int]:
    host, port = entry, str(default)
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif entry.count(":") == 1:
        host, port = entry.split(":")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"{what} broker {entry!r}: the port must be a number from 1 to 65535")
    return host, int(port)


@dataclass(frozen=True, slots=True)
class OpenTelemetrySettings:
    """Where traces are sent to (plugin `opentelemetry`); `timeout` in seconds."""

    host: str
    port: int
    timeout: int = 10


@dataclass(frozen=True, slots=True)
class GraylogSettings:
    """Where log records are sent to in GELF (plugin `graylog`).

    `protocol` is `UDP`, `TCP`, `HTTP` or `HTTPS`; zocalo itself knows the first two.
    """

    host: str
    port: int
    protocol: str

    def __post_init__(self) -> None:
        if self.protocol.upper() not in {"UDP", "TCP", "HTTP", "HTTPS"}:
            raise ValueError(f"protocol must be UDP, TCP, HTTP or HTTPS, it is {self.protocol[:20]!r}")


@dataclass(frozen=True, slots=True)
class JmxSettings:
    """How to reach ActiveMQ's Jolokia interface (plugin `jmx`)."""

    host: str
    port: int
    base_url: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RabbitMQAPISettings:
    """How to reach RabbitMQ's HTTP interface (plugin `rabbitmqapi`). `base_url` may be a comma list."""

    base_url: str
    username: str
    password: str = field(repr=False)
    vhost: str = "/"


@dataclass(frozen=True, slots=True)
class SlurmSettings:
    """How to reach Slurm's REST interface (plugins `slurm` and `iris`).

    `user_token` is a token, or the name of a file that holds one.
    """

    url: str
    api_version: str | None = None
    user: str | None = None
    user_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """How mail is sent (plugin `smtp`); `sender` is the key `from`."""

    host: str
    port: int
    sender: str


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """Which transport is used where none is named (plugin `transport`)."""

    default: str


@dataclass(frozen=True, slots=True)
class IspybSettings:
    """Where the metadata database is (plugin `ispyb`): an SQLAlchemy address."""

    url: str = field(repr=False)
