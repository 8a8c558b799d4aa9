"""`parvis config`: everything that is wrong, and what is in force, without a secret."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from documents import ROOT
from parvis.cli import main
from parvis.config.storage_keys import KEYS
from parvis.config.variables import VARIABLES
from parvis.transport.embedded import BrokerThread, Settings

SECRETS = ("s3cr3t", "t0psecret", "argon2hash", "jwt-token", "d33p")
BROKER = {
    "plugin": "stomp",
    "host": "localhost",
    "port": 61613,
    "username": "zocalo",
    "password": "s3cr3t",
    "prefix": "zocalo",
}


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    for name in (
        "ZOCALO_CONFIG",
        "ZOCALO_DEFAULT_ENV",
        "PARVIS_ENVIRONMENT",
        "ISPYB_CREDENTIALS",
        *VARIABLES,
    ):
        monkeypatch.delenv(name, raising=False)
    return CliRunner()


def written(directory: Path, content: dict[str, Any], mode: int = 0o600) -> Path:
    """A configuration file with a broker, and whatever else, all of it in force."""
    plugins = {"broker": BROKER, **content}
    plugins = {name: value for name, value in plugins.items() if value is not None}
    environments = plugins.pop("environments", {"default": list(plugins)})
    file = directory / "site.yml"
    file.write_text(yaml.safe_dump({"version": 1, **plugins, "environments": environments}))
    file.chmod(mode)
    return file


def check(runner: CliRunner, file: Path, *words: str) -> tuple[int, list[tuple[str, str, str]]]:
    """The exit code, and level, place and text of each remark."""
    result = runner.invoke(main, ["config", "check", str(file), "--json", *words])
    assert not any(secret in result.output for secret in SECRETS)
    remarks = json.loads(result.stdout)["remarks"]
    return result.exit_code, [(one["level"], one["where"], one["message"]) for one in remarks]


def test_nothing_is_wrong(runner: CliRunner, tmp_path: Path) -> None:
    file = written(tmp_path, {"places": {"plugin": "storage", "zocalo.recipe_directory": str(tmp_path)}})
    result = runner.invoke(main, ["config", "check"], env={"ZOCALO_CONFIG": str(file)})
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"File          {file} (from ZOCALO_CONFIG)",
        "Environment   default (in force): broker, places",
        "Plugin        broker: stomp",
        "Plugin        places: storage",
        "Storage keys  zocalo.recipe_directory",
        "ok      nothing is wrong",
    ]


@pytest.mark.parametrize(
    ("content", "level", "where", "message"),
    [
        (
            {"broker": BROKER | {"hots": "x"}},
            "warning",
            "broker",
            "'hots' is not a key of this plugin; did you",
        ),
        ({"broker": BROKER | {"port": "no"}}, "error", "broker", "port: must be a whole number"),
        (
            {"broker": BROKER | {"password": 1}},
            "error",
            "broker",
            "password: must be text; put quotes around",
        ),
        ({"m": {"plugin": "smpt"}}, "error", "m", "there is no plugin 'smpt'; did you mean 'smtp'?"),
        ({"m": {"plugin": "dlstbx"}}, "note", "m", "is not ours and not installed here"),
        (
            {"s": {"plugin": "storage", "parvis.records.dyas": 1}},
            "warning",
            "s",
            "mean 'parvis.records.days'?",
        ),
        (
            {"s": {"plugin": "storage", "zocalo.recipe_directroy": "/"}},
            "note",
            "s",
            "'zocalo.recipe_directory'?",
        ),
        ({"s": {"plugin": "storage", "parvis.records.days": "many"}}, "error", "s", "must be a number"),
        ({"s": {"plugin": "storage", "parvis.metrics.port": 99999}}, "error", "s", "must be a port"),
        ({"s": {"plugin": "storage", "parvis.health.limits": [1]}}, "error", "s", "must be a mapping"),
        (
            {"s": {"plugin": "storage", "zocalo.recipe_directory": "/none"}},
            "warning",
            "s",
            "no directory /none",
        ),
        ({"db": "secrets/db.yml"}, "error", "db", "there is no file"),
        ({"environments": {"default": ["broke"]}}, "error", "environments", "did you mean 'broker'?"),
        ({"environments": {"live": ["broker"]}}, "warning", "environments", "no environment is in force"),
        (
            {"environment": {"plugin": "storage"}, "environments": {"default": ["broker"]}},
            *("warning", "environment", "it is in no environment; did you mean 'environments'?"),
        ),
        (
            {"broker": BROKER | {"host": "nobody.invalid"}},
            "error",
            "broker",
            "'nobody.invalid' does not resolve",
        ),
        (
            {"db": {"plugin": "ispyb", "url": "mysql://u:t0psecret@db.invalid/i"}},
            "error",
            "ispyb",
            "'db.invalid'",
        ),
        (
            {"broker": BROKER | {"tls_ca": "/none/ca.pem"}},
            "error",
            "broker",
            "tls_ca: /none/ca.pem cannot be read",
        ),
        (
            {"sl": {"plugin": "slurm", "url": "http://localhost", "user_token": "/none/t"}},
            *("error", "sl", "user_token: /none/t cannot be read"),
        ),
    ],
)
def test_what_is_wrong_is_told(
    runner: CliRunner, tmp_path: Path, content: dict[str, Any], level: str, where: str, message: str
) -> None:
    code, remarks = check(runner, written(tmp_path, content))
    (found,) = [one for one in remarks if message in one[2]]
    assert found[:2] == (level, where)
    assert code == (1 if any(one[0] == "error" for one in remarks) else 0)


def test_all_is_told_at_once_the_worst_first(runner: CliRunner, tmp_path: Path) -> None:
    places = {"plugin": "storage", "parvis.record.days": 1, "parvis.records.hops": "often"}
    file = written(
        tmp_path, {"m": {"plugin": "smtp", "host": "localhost"}, "places": places, "x": {"plugin": "y"}}
    )
    code, remarks = check(runner, file)
    assert code == 1
    assert [one[0] for one in remarks] == ["error", "error", "warning", "note"]
    assert ("error", "places", "parvis.records.hops must be true or false") in remarks


@pytest.mark.parametrize("text", ["version: 2", "[1]", "a: [", "version: 1\nx: {}"])
def test_what_is_no_configuration(runner: CliRunner, tmp_path: Path, text: str) -> None:
    file = tmp_path / "site.yml"
    file.write_text(text)
    code, remarks = check(runner, file)
    assert code == 1
    assert [one[0] for one in remarks] == ["error"]


def test_secrets_that_everybody_may_read(runner: CliRunner, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("jwt-token")
    slurm = {"plugin": "slurm", "url": "http://localhost", "user_token": str(token)}
    file = written(tmp_path, {"sl": slurm}, mode=0o644)
    token.chmod(0o604)
    _, remarks = check(runner, file)
    assert [(level, where) for level, where, _ in remarks] == [("warning", "sl"), ("warning", "")]
    assert remarks[1][2] == (f"everybody may read {file}, which holds secrets (broker): chmod o-rwx {file}")
    token.chmod(0o600)
    file.chmod(0o640)
    assert check(runner, file) == (0, [])
    # What everybody knows is no secret.
    file = written(tmp_path, {"broker": BROKER | {"password": "guest"}}, mode=0o644)
    assert check(runner, file) == (0, [])


def test_variables(runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = tmp_path / "ispyb.cfg"
    credentials.touch(0o644)
    monkeypatch.setenv("PARVIS_STOMP_HOTS", "amq")
    monkeypatch.setenv("PARVIS_FOR_THE_BIRDS", "1")
    monkeypatch.setenv("ISPYB_CREDENTIALS", str(credentials))
    code, remarks = check(runner, written(tmp_path, {}))
    assert code == 0
    assert [text for _, where, text in remarks if where == "variables"] == [
        "Parvis knows no variable PARVIS_STOMP_HOTS; did you mean PARVIS_STOMP_HOST?",
        f"ISPYB_CREDENTIALS: everybody may read {credentials}: chmod o-rwx {credentials}",
    ]
    credentials.unlink()
    assert check(runner, written(tmp_path, {}))[0] == 1


def test_a_file_that_only_others_may_read_harms_only_where_it_is_in_force(
    runner: CliRunner, tmp_path: Path
) -> None:
    content = {"db": "private.yml", "environments": {"default": ["broker"], "live": ["broker", "db"]}}
    file = written(tmp_path, content)
    assert [one[0] for one in check(runner, file)[1]] == ["warning"]
    assert [one[0] for one in check(runner, file, "-e", "live")[1]] == ["error"]


def test_connect(runner: CliRunner, tmp_path: Path) -> None:
    settings = Settings(login="zocalo", passcode="s3cr3t")
    with BrokerThread(settings=settings) as broker:
        file = written(tmp_path, {"broker": BROKER | {"port": broker.port}})
        words = ["config", "check", str(file), "--connect"]
        result = runner.invoke(main, words)
        assert result.exit_code == 0
        assert "ok      broker: localhost" in result.stdout
        assert "skipped database: no database is configured" in result.stdout
        result = runner.invoke(main, words, env={"PARVIS_STOMP_PASSWORD": "t0psecret"})
    assert result.exit_code == 1
    assert "error   broker: " in result.stdout
    assert "Mend the host, the user name or the password." in result.stdout
    assert not any(secret in result.output for secret in SECRETS)


def test_without_a_file(runner: CliRunner) -> None:
    result = runner.invoke(main, ["config", "check"])
    assert result.exit_code == 0
    assert result.stdout.startswith("There is no configuration file")
    assert runner.invoke(main, ["config", "check", "/nowhere.yml"]).exit_code == 2


class TestShow:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return written(
            tmp_path,
            {
                "db": {"plugin": "ispyb", "url": "mysql+pymysql://u:t0ps@ecret@db.example.org/ispyb"},
                "sl": {"plugin": "slurm", "url": "http://localhost", "user_token": "jwt-token"},
                "theirs": {"plugin": "dlstbx", "nested": {"password": "d33p"}},
                "s": {
                    "plugin": "storage",
                    "parvis.web.users": {"me": "argon2hash"},
                    "parvis.graylog.token": "d33p",
                    "parvis.external_queues": ["gda.*"],
                },
            },
        )

    @staticmethod
    def show(runner: CliRunner, *words: str, **env: str) -> Result:
        result = runner.invoke(main, ["config", "show", *words], env=env)
        assert result.exit_code == 0, result.output
        assert not any(secret in result.output for secret in (*SECRETS, "t0ps", "ecret@"))
        return result

    def test_values_and_where_they_come_from(self, runner: CliRunner, file: Path) -> None:
        words = ("--json", "--stomp-prfx", "zocdev")
        variables = {
            "ZOCALO_CONFIG": str(file),
            "PARVIS_STOMP_HOST": "elsewhere",
            "PARVIS_STOMP_PREFIX": "no",
        }
        content = json.loads(self.show(runner, *words, **variables).stdout)
        rows = {row["name"]: (row["value"], row["source"]) for row in content["settings"]}
        assert rows["stomp.host"] == ("elsewhere", "variable PARVIS_STOMP_HOST")
        assert rows["stomp.prefix"] == ("zocdev", "option --stomp-prfx")
        assert rows["stomp.port"] == (61613, f"{file} (broker)")
        assert rows["stomp.tls"] == (False, "default")
        assert rows["stomp.password"] == ("***", f"{file} (broker)")
        assert rows["ispyb.url"] == ("mysql+pymysql://u:***@db.example.org/ispyb", f"{file} (db)")
        assert rows["slurm.user_token"][0] == "***"
        assert rows["dlstbx.nested"][0] == {"password": "***"}
        assert rows["parvis.web.users"][0] == {"me": "***"}
        assert rows["parvis.external_queues"][0] == ["gda.*"]
        assert content["environments"] == ["default"]

    def test_for_people(self, runner: CliRunner, file: Path) -> None:
        lines = self.show(runner, ZOCALO_CONFIG=str(file)).stdout.splitlines()
        assert lines[0] == f"File          {file}"
        assert ["stomp.password", "***", str(file), "(broker)"] in [line.split() for line in lines]

    def test_the_last_of_a_kind_counts(self, runner: CliRunner, tmp_path: Path) -> None:
        second = {
            "plugin": "stomp",
            **{key: BROKER[key] for key in BROKER if key != "plugin"},
            "prefix": "second",
        }
        file = written(tmp_path, {"broker": BROKER | {"tls": True}, "second": second})
        content = json.loads(self.show(runner, "--json", ZOCALO_CONFIG=str(file)).stdout)
        rows = {row["name"]: (row["value"], row["source"]) for row in content["settings"]}
        assert rows["stomp.prefix"] == ("second", f"{file} (second)")
        assert rows["stomp.tls"] == (False, "default")

    def test_without_a_file_the_defaults(self, runner: CliRunner) -> None:
        lines = [line.split() for line in self.show(runner).stdout.splitlines()]
        assert ["stomp.host", "localhost", "default"] in lines


def test_the_keys_that_are_documented_are_known() -> None:
    reference = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    rows = re.findall(r"^\| (`(?:parvis|zocalo)\..*?) \|", reference, re.MULTILINE)
    documented = {key for row in rows for key in re.findall(r"`([^`]+)`", row)}
    assert len(documented) > 30
    assert documented <= KEYS.keys()
