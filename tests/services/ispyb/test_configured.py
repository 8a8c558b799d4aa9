"""The database and the rules of the site, as a configuration names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parvis.config import Config
from parvis_services.ispyb.configured import configured_database, configured_site
from parvis_services.ispyb.errors import BadDatabaseUrl

CREDENTIALS = """\
[ispyb_mariadb_sp]
user = other
[ispyb_sqlalchemy]
username = reader
password = hunter2@%/:x
host = ispyb.example.org
port = 3307
database = ispyb_build
"""


def test_the_configured_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISPYB_CREDENTIALS", "/nowhere")
    assert str(configured_database(Config(ispyb_url="sqlite:////x/y.db"))) == "sqlite:////x/y.db"


def test_nothing_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ISPYB_CREDENTIALS", raising=False)
    assert configured_database(Config()) is None


def test_a_credentials_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ispyb.cfg"
    path.write_text(CREDENTIALS)
    monkeypatch.setenv("ISPYB_CREDENTIALS", str(path))
    database = configured_database(Config())
    assert database is not None
    assert str(database) == "mysql+pymysql://reader:***@ispyb.example.org:3307/ispyb_build"
    assert database.engine.url.password == "hunter2@%/:x"


@pytest.mark.parametrize(
    "text", ["", "[ispyb]\nuser=x", "[ispyb_sqlalchemy]\nusername=hunter2", "hunter2", "\xff"]
)
def test_a_credentials_file_that_is_no_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    path = tmp_path / "ispyb.cfg"
    path.write_text(text, encoding="latin-1")
    monkeypatch.setenv("ISPYB_CREDENTIALS", str(path))
    with pytest.raises(BadDatabaseUrl, match="ISPYB_CREDENTIALS") as caught:
        configured_database(Config())
    assert "hunter2" not in str(caught.value)


def test_a_credentials_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISPYB_CREDENTIALS", "/nowhere/ispyb.cfg")
    with pytest.raises(BadDatabaseUrl, match=r"/nowhere/ispyb\.cfg cannot be read: No such file"):
        configured_database(Config())


def test_the_rules_of_the_site() -> None:
    rules: dict[str, Any] = {"working": "scratch", "unrelated": ["/data/mx"]}
    site = configured_site(Config(storage={"parvis.ispyb_site": rules}))
    assert (site.working, site.unrelated, site.results) == ("scratch", ("/data/mx",), "processed")
    assert configured_site(Config()).working == "tmp/zocalo"


@pytest.mark.parametrize("rules", [{"working": "/tmp"}, {"nonsense": 1}, "text"])
def test_rules_that_are_no_good(rules: Any) -> None:
    with pytest.raises(BadDatabaseUrl, match=r"parvis\.ispyb_site in the configuration"):
        configured_site(Config(storage={"parvis.ispyb_site": rules}))
