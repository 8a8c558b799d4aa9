"""The transport that a configuration makes."""

import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from parvis.config import Config, ConfigError, PikaSettings, StompSettings
from parvis.transport.base import Disconnected, TransportError
from parvis.transport.embedded.thread import BrokerThread
from real.rabbitmq.vhost import VirtualHost


def test_transport_reaches_the_broker():
    with BrokerThread() as broker:
        transport = Config(stomp=StompSettings(broker.host, broker.port, prefix="zocdev")).transport()
        assert not transport.is_connected
        transport.connect(timeout=10)
        assert transport.is_connected
        assert transport.namespace == "zocdev"
        transport.disconnect()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (StompSettings(prefix="no good"), "STOMP: 'no good'"),
        (StompSettings(username="a\nb"), "line ends"),
        (StompSettings(host=""), "no host"),
        (StompSettings(tls=True, tls_ca="/nowhere.pem"), "cannot use /nowhere.pem: No such file"),
    ],
)
def test_senseless_settings_are_errors(settings: StompSettings, says: str):
    with pytest.raises(ConfigError, match=says):
        Config(stomp=settings).transport()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key of a server called localhost, in one file."""
    directory = tmp_path_factory.mktemp("tls")
    key, pem = directory / "key.pem", directory / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(pem)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    both = directory / "both.pem"
    both.write_text(key.read_text() + pem.read_text())
    return both


def serve_once(server: socket.socket, certificate: Path) -> threading.Thread:
    """Log one client in, over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve() -> None:
        raw, _ = server.accept()
        try:
            with context.wrap_socket(raw, server_side=True) as connection:
                connection.recv(65536)
                connection.sendall(b"CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0")
                connection.recv(65536)
        except OSError:
            raw.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_tls_with_an_authority_of_the_site(certificate: Path):
    with socket.create_server(("localhost", 0)) as server:
        thread = serve_once(server, certificate)
        port = server.getsockname()[1]
        transport = Config(
            stomp=StompSettings("localhost", port, tls=True, tls_ca=str(certificate))
        ).transport()
        transport.connect(timeout=10)
        assert transport.is_connected
        server.close()
    thread.join(0)


def test_tls_without_a_known_authority_is_refused(certificate: Path):
    with socket.create_server(("localhost", 0)) as server:
        serve_once(server, certificate)
        transport = Config(stomp=StompSettings("localhost", server.getsockname()[1], tls=True)).transport()
        with pytest.raises(TransportError, match="certificate") as error:
            transport.connect(timeout=10)
        assert not isinstance(error.value, Disconnected)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (PikaSettings(host=""), "the RabbitMQ broker has no host"),
        (PikaSettings(host="rabbit:x"), "RabbitMQ broker 'rabbit:x': the port"),
        (PikaSettings(password="a\0b"), "RabbitMQ: .*NULs"),
        (PikaSettings(tls=True, tls_ca="/nowhere.pem"), "cannot use /nowhere.pem"),
    ],
)
def test_senseless_settings_of_rabbitmq_are_errors(settings: PikaSettings, says: str):
    with pytest.raises(ConfigError, match=says):
        Config(pika=settings, transport_default="PikaTransport").transport()


@pytest.mark.real("rabbitmq")
def test_variables_lead_to_rabbitmq(vhost: VirtualHost, monkeypatch: pytest.MonkeyPatch):
    for name, value in vhost.environment().items():
        monkeypatch.setenv(name, value)
    config = Config.load()
    assert config.broker_hosts == f"127.0.0.1:{vhost.server.port}"
    transport = config.transport()
    transport.connect(10)
    assert transport.namespace == ""
    transport.disconnect()


def test_one_host_of_several():
    config = Config(pika=PikaSettings(host="one,two:5673"), transport_default="PikaTransport")
    assert config.broker_hosts == "one:5672, two:5673"
    assert config.at("two", 5673).broker_hosts == "two:5673"
    assert Config().at("::1", 1).stomp.hosts == [("::1", 1)]
