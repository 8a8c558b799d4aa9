"""Variables, options, and handing a configuration to another process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from parvis.config import Config, ConfigError, StompSettings
from parvis.config.settings import OpenTelemetrySettings

pytestmark = pytest.mark.usefixtures("unconfigured")

SITE = """
version: 1
broker: {plugin: stomp, host: amq1, port: 61614, username: gda, password: fromfile, prefix: zocdev}
dirs: {plugin: storage, zocalo.recipe_directory: /file/recipes, parvis.ispyb_url: "sqlite:///file.db"}
environments: {default: [broker], dirs: [dirs]}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    file = tmp_path / "site.yml"
    file.write_text(SITE)
    return file


def test_variables_count_more_than_the_file(site: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in {
        "PARVIS_STOMP_HOST": "other",
        "PARVIS_STOMP_PORT": "7",
        "PARVIS_STOMP_PREFIX": "mine",
        "PARVIS_ISPYB_URL": "sqlite:///env.db",
        "PARVIS_RECIPE_DIRECTORY": "/env/recipes",
        "PARVIS_FALLBACK_LOCATION": "/env/drop",
        "PARVIS_LOGBOOK_LOCATION": "/env/log",
        "PARVIS_ENVIRONMENT": "default, dirs",
    }.items():
        monkeypatch.setenv(name, value)
    config = Config.load(site)
    assert config.environments == ("default", "dirs")
    assert config.stomp == StompSettings("other", 7, "gda", "fromfile", "mine")
    assert config.ispyb_url == "sqlite:///env.db"
    assert config.recipe_directory == Path("/env/recipes")
    assert config.fallback_location == Path("/env/drop")
    assert config.logbook_location == Path("/env/log")


def test_options_count_more_than_variables(site: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARVIS_STOMP_HOST", "variable")
    monkeypatch.setenv("PARVIS_ENVIRONMENT", "nonesuch")
    config = Config.load(site, ["default"], {"PARVIS_STOMP_HOST": "option"})
    assert config.stomp.host == "option"
    assert config.environments == ("default",)


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1", ""])
def test_bad_port_is_an_error(port: str):
    with pytest.raises(ConfigError, match="PARVIS_STOMP_PORT"):
        Config.load(overrides={"PARVIS_STOMP_PORT": port})


def test_another_process_loads_the_same(site: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARVIS_STOMP_PASSWORD", "s3cret")
    config = Config.load(site, ["default", "dirs"], {"PARVIS_STOMP_HOST": "option"})
    monkeypatch.delenv("PARVIS_STOMP_PASSWORD")
    child = (
        "from parvis.config import Config; c = Config.load(); print(c); print(c.stomp.password, c.ispyb_url)"
    )
    out = subprocess.run(
        [sys.executable, "-c", child],
        env=os.environ | config.to_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.splitlines() == [repr(config), f"s3cret {config.ispyb_url}"]


def test_default_locations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    config = Config()
    assert config.fallback_location == tmp_path / "parvis" / "dropfiles"
    assert config.logbook_location is None
    assert config.recipe_directory.name in {"recipes", "_recipes"}


@pytest.mark.parametrize(
    ("host", "hosts"),
    [
        ("amq1", [("amq1", 61613)]),
        ("amq1, amq2:61614", [("amq1", 61613), ("amq2", 61614)]),
        ("[::1]:5,fe80::1,[::2]", [("::1", 5), ("fe80::1", 61613), ("::2", 61613)]),
    ],
)
def test_several_brokers(host: str, hosts: list[tuple[str, int]]):
    assert StompSettings(host).hosts == hosts


@pytest.mark.parametrize("host", ["", ",", "a:b", "a:0", "a:70000"])
def test_bad_brokers(host: str):
    with pytest.raises(ConfigError):
        _ = StompSettings(host).hosts


PLUGIN = '''
class Cupboard:
    """A plugin of somebody else's."""

    @staticmethod
    def activate(configuration, config_object):
        if configuration.get("fail"):
            raise RuntimeError("s3cret")
        return {"door": configuration["door"], "prefix": config_object.stomp.prefix}


class Plain:
    @staticmethod
    def activate(configuration):
        return configuration["door"]
'''


@pytest.fixture
def _cupboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "packages"
    information = package / "cupboard-1.0.dist-info"
    information.mkdir(parents=True)
    (package / "cupboard.py").write_text(PLUGIN)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: cupboard\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[zocalo.configuration.plugins]\ncupboard = cupboard:Cupboard\nplain = cupboard:Plain\n"
    )
    monkeypatch.syspath_prepend(str(package))


@pytest.mark.usefixtures("_cupboard")
def test_plugins_of_others_are_activated_on_request(tmp_path: Path):
    file = tmp_path / "site.yml"
    file.write_text(
        "version: 1\na: {plugin: cupboard, door: 3}\nb: {plugin: plain, door: 4}\n"
        "c: {plugin: cupboard, fail: true}\nenvironments: {default: [a, b], bad: [c]}\n"
    )
    config = Config.load(file)
    assert config.activate_foreign() == {"a": {"door": 3, "prefix": "zocalo"}, "b": 4}
    with pytest.raises(ConfigError, match=r"c \(plugin cupboard\): the plugin failed: RuntimeError") as error:
        Config.load(file, ["bad"]).activate_foreign()
    assert "s3cret" not in str(error.value)


def test_plugins_of_zocalo_can_be_activated_as_foreign(tmp_path: Path):
    pytest.importorskip("zocalo")
    from parvis.config.document import PluginConfiguration
    from parvis.config.plugins import activate_foreign

    content = {"plugin": "opentelemetry", "host": "h", "port": 1}
    value = activate_foreign(PluginConfiguration("o", tmp_path, content), Config())
    assert value["endpoint"] == "https://h:1/v1/traces"
    assert OpenTelemetrySettings("h", 1).timeout == value["timeout"]
