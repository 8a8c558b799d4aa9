"""The configuration file: environments, plugins, includes, and what goes wrong."""

import logging
from pathlib import Path

import pytest

from parvis.config import Config, ConfigError

SITE = """
version: 1
broker: {plugin: stomp, host: amq1, port: 61614, username: gda, password: s3cret, prefix: zocdev}
recipes: {plugin: storage, zocalo.recipe_directory: /recipes, zocalo.go.fallback_location: /drop}
more: {plugin: storage, zocalo.go.fallback_location: /drop2, other: {deep: [1, 2]}}
environments:
  live: [broker, recipes]
  again: live
  groups: {zoo: [more, broker], plugins: recipes, bar: broker}
  default: again
"""


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZOCALO_CONFIG", "ZOCALO_DEFAULT_ENV", "PARVIS_ENVIRONMENT", "PARVIS_STOMP_HOST"):
        monkeypatch.delenv(name, raising=False)


def write(directory: Path, text: str, name: str = "site.yml") -> Path:
    file = directory / name
    file.write_text(text)
    return file


def test_without_a_file_the_local_broker_is_used():
    config = Config.load()
    assert config.path is None
    assert config.stomp.hosts == [("localhost", 61613)]
    assert (config.stomp.username, config.stomp.password, config.stomp.prefix) == (
        "admin",
        "password",
        "zocalo",
    )
    assert config == Config()


def test_file_is_found_through_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ZOCALO_CONFIG", str(write(tmp_path, SITE)))
    assert Config.load().stomp.hosts == [("amq1", 61614)]


def test_default_environment_follows_aliases(tmp_path: Path):
    config = Config.load(write(tmp_path, SITE))
    assert config.environments == ("default",)
    assert config.stomp.prefix == "zocdev"
    assert config.recipe_directory == Path("/recipes")


def test_variable_names_the_default_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ZOCALO_DEFAULT_ENV", "groups")
    assert Config.load(write(tmp_path, SITE)).environments == ("groups",)


def test_groups_go_by_name_and_plugins_last(tmp_path: Path):
    config = Config.load(write(tmp_path, SITE), ["groups"])
    assert config.fallback_location == Path("/drop")
    assert config.storage["other"] == {"deep": [1, 2]}


def test_later_environment_counts_more(tmp_path: Path):
    text = SITE + "  last: [more]\n"
    assert Config.load(write(tmp_path, text), ["live", "last"]).fallback_location == Path("/drop2")


def test_without_a_default_nothing_is_active(tmp_path: Path):
    text = "version: 1\nbroker: {plugin: stomp, host: a, port: 1, username: u, password: p, prefix: z}\n"
    config = Config.load(write(tmp_path, text))
    assert config.environments == ()
    assert config.stomp == Config().stomp


def keep_transport_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activating a configuration changes these for the whole process, and with them other tests."""
    from workflows import transport
    from workflows.transport.pika_transport import PikaTransport
    from workflows.transport.stomp_transport import StompTransport

    for transport_class in (PikaTransport, StompTransport):
        monkeypatch.setattr(transport_class, "defaults", dict(transport_class.defaults))
    monkeypatch.setattr(transport, "default_transport", transport.default_transport)


@pytest.mark.parametrize(
    ("environments", "variable"),
    [([], None), (["live"], None), (["groups"], None), ([], "live"), (["live", "again"], None)],
)
def test_zocalo_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environments: list[str], variable: str | None
):
    zocalo = pytest.importorskip("zocalo.configuration", reason="zocalo is not installed")
    keep_transport_defaults(monkeypatch)
    if variable:
        monkeypatch.setenv("ZOCALO_DEFAULT_ENV", variable)
    file = write(tmp_path, SITE)
    peer = zocalo.from_file(file)
    peer.activate(environments)
    ours = Config.load(file, environments)
    assert ours.environments == peer.active_environments
    assert ours.storage == {key: value for key, value in peer.storage.items() if key != "plugin"}


def test_plugin_file_is_beside_the_configuration_and_read_when_used(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    write(tmp_path, "{plugin: storage, here: 1}", "sub/a.yml")
    file = write(
        tmp_path,
        "version: 1\na: sub/a.yml\nb: /nowhere/b.yml\nenvironments: {default: [a], broken: [a, b]}\n",
    )
    assert Config.load(file).storage == {"here": 1}
    with pytest.raises(ConfigError, match=r"'b': there is no file /nowhere/b.yml"):
        Config.load(file, ["broken"])


def test_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    write(home, "{plugin: storage, here: 2}", "a.yml")
    file = write(tmp_path, "version: 1\na: ~/a.yml\nenvironments: {default: [a]}\n")
    assert Config.load(file).storage == {"here": 2}


def test_include_is_merged_under_the_including_file(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    write(tmp_path, "{plugin: storage, from: file beside the include}", "sub/c.yml")
    write(
        tmp_path,
        "version: 1\na: {plugin: storage, a: included, b: included}\nc: c.yml\n"
        "environments: {default: [a], extra: [c]}\n",
        "sub/base.yml",
    )
    write(tmp_path, "version: 1\nb: {plugin: storage, z: 2}\n", "second.yml")
    file = write(
        tmp_path,
        "version: 1\ninclude: [sub/base.yml, second.yml]\na: {plugin: storage, a: own}\n"
        "environments: {both: [a, b, c]}\n",
    )
    assert Config.load(file).storage == {"a": "own"}
    assert Config.load(file, ["both"]).storage == {"a": "own", "z": 2, "from": "file beside the include"}


def test_every_plugin_is_typed(tmp_path: Path):
    text = """
version: 1
rabbit: {plugin: pika, host: "r1,r2", port: 5672, username: u, password: p, vhost: zocalo}
trn: {plugin: transport, default: StompTransport}
otel: {plugin: opentelemetry, host: t, port: 4318}
grey: {plugin: graylog, protocol: UDP, host: g, port: 12201}
jmx: {plugin: jmx, host: j, port: 8161, base_url: api/jolokia, username: u, password: p}
api: {plugin: rabbitmqapi, base_url: "http://r1:15672/api", username: u, password: p}
slurm: {plugin: slurm, url: "http://s", user_token: t0ken, user: gda, api_version: v0.0.40}
iris: {plugin: iris, url: "http://i"}
mail: {plugin: smtp, host: m, port: 25, from: zocalo@example.com}
db: {plugin: ispyb, url: "sqlite:///x.db"}
logs: {plugin: logging, version: 1, loggers: {parvis: {level: DEBUG}}}
environments: {default: [rabbit, trn, otel, grey, jmx, api, slurm, iris, mail, db, logs]}
"""
    config = Config.load(write(tmp_path, text))
    assert config.pika
    assert config.pika.host == "r1,r2"
    assert config.transport_default == "StompTransport"
    assert config.opentelemetry
    assert config.opentelemetry.timeout == 10
    assert config.graylog
    assert config.graylog.port == 12201
    assert config.jmx
    assert config.jmx.base_url == "api/jolokia"
    assert config.rabbitmqapi
    assert config.rabbitmqapi.vhost == "/"
    assert config.slurm
    assert config.slurm.user == "gda"
    assert config.iris
    assert config.iris.url == "http://i"
    assert config.smtp
    assert config.smtp.sender == "zocalo@example.com"
    assert config.ispyb_url == "sqlite:///x.db"
    assert config.logging == {"version": 1, "loggers": {"parvis": {"level": "DEBUG"}}}


@pytest.mark.parametrize("key", ["parvis.ispyb_url", "zocalo.ispyb_url"])
def test_database_may_stand_in_the_storage(tmp_path: Path, key: str):
    text = f"version: 1\ns: {{plugin: storage, {key}: 'sqlite:///y.db'}}\nenvironments: {{default: [s]}}\n"
    assert Config.load(write(tmp_path, text)).ispyb_url == "sqlite:///y.db"


def broken(body: str) -> str:
    return f"version: 1\nenvironments: {{default: [st]}}\nst: {body}\n"


STOMP = "{plugin: stomp, host: h, port: 1, username: u, password: s3cret, prefix: z}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1", "'version: 1' is missing"),
        ("version: 2", "version 2 is not known"),
        ("version: true", "version True is not known"),
        ("- 1", "starts with 'version: 1'"),
        ("version: 1\nx: [", "line 2: not YAML"),
        ("version: 1\nx: 12", "x: must be a plugin configuration"),
        ("version: 1\nx: {a: 1}", "x: says not which plugin it is for"),
        ("version: 1\nenvironments: [a]", "environments must map"),
        ("version: 1\nenvironments: {default: 7}", "'default' must be the name of another one"),
        ("version: 1\nenvironments: {default: nix}", "'nix' is not defined \\(alias 'default'\\)"),
        ("version: 1\nenvironments: {default: a, a: default}", "alias of itself: default -> a"),
        ("version: 1\nenvironments: {default: [brokr]}\nbroker: " + STOMP, "did you mean 'broker'"),
        ("version: 1\ninclude: {a: 1}", "include must be a file name"),
        ("version: 1\ninclude: site.yml", "includes itself"),
        ("version: 1\ninclude: other.yml", "there is no file .*other.yml"),
        (broken(STOMP.replace("port: 1", "port: abc")), r"st \(plugin stomp\): port: must be a whole number"),
        (broken(STOMP.replace(", prefix: z", "")), "prefix missing"),
        (broken(STOMP.replace("username: u", "username: 12")), "username: must be text; put quotes"),
        (broken("{plugin: graylog, host: h, port: 1, protocol: ICMP}"), r"\): protocol must be UDP, TCP"),
        (broken("{plugin: smtp, host: h, port: 1}"), "from: missing"),
        (broken("{plugin: ispyb}"), "url: missing"),
    ],
)
def test_errors_say_where_and_what(tmp_path: Path, text: str, says: str):
    file = write(tmp_path, text)
    with pytest.raises(ConfigError, match=says) as error:
        Config.load(file)
    assert str(tmp_path) in str(error.value)
    assert "s3cret" not in str(error.value)


def test_unknown_environment_names_those_there_are(tmp_path: Path):
    with pytest.raises(
        ConfigError, match=r"'lve' is not defined; did you mean 'live'\?; there are: again, default"
    ):
        Config.load(write(tmp_path, SITE), ["lve"])


def test_environment_without_a_file_is_an_error():
    with pytest.raises(ConfigError, match="set ZOCALO_CONFIG"):
        Config.load(environments=["live"])


def test_unknown_plugin_and_unknown_key_are_warnings(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    text = (
        "version: 1\nx: {plugin: nonesuch}\n"
        "st: {plugin: stomp, host: h, port: '1', username: u, password: p, prefix: z, usrname: s3cret}\n"
        "environments: {default: [x, st]}\n"
    )
    with caplog.at_level(logging.WARNING):
        config = Config.load(write(tmp_path, text))
    assert config.stomp.port == 1
    assert config.foreign == {}
    assert "plugin 'nonesuch' is not installed" in caplog.text
    assert "'usrname' is not a key of this plugin; did you mean 'username'?" in caplog.text
    assert "s3cret" not in caplog.text


def test_secrets_are_not_shown(tmp_path: Path):
    text = """
version: 1
a: {plugin: stomp, host: h, port: 1, username: u, password: s3cret, prefix: z}
b: {plugin: pika, host: h, port: 1, username: u, password: s3cret, vhost: z}
c: {plugin: jmx, host: h, port: 1, base_url: u, username: u, password: s3cret}
d: {plugin: rabbitmqapi, base_url: u, username: u, password: s3cret}
e: {plugin: slurm, url: u, user_token: s3cret}
f: {plugin: ispyb, url: "mysql://u:s3cret@h/db"}
environments: {default: [a, b, c, d, e, f]}
"""
    assert "s3cret" not in repr(Config.load(write(tmp_path, text)))
