"""The reference of the configuration says what is so."""

import re
from pathlib import Path

import pytest

from parvis.config import VARIABLES, Config
from parvis.config.plugins import PLUGINS

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


@pytest.fixture(scope="module")
def text() -> str:
    return REFERENCE.read_text()


def test_example_works(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("ZOCALO_DEFAULT_ENV", "PARVIS_ENVIRONMENT", *VARIABLES):
        monkeypatch.delenv(name, raising=False)
    example = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert example is not None
    file = tmp_path / "site.yml"
    file.write_text(example[1])
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "database.yml").write_text("{plugin: ispyb, url: 'sqlite:///x.db'}")
    live, test = Config.load(file), Config.load(file, ["test"])
    assert (live.stomp.prefix, live.ispyb_url) == ("zocalo", "sqlite:///x.db")
    assert (test.stomp.prefix, test.ispyb_url) == ("zocdev", None)
    assert live.storage == test.storage


@pytest.mark.parametrize("name", [*VARIABLES, *PLUGINS, "storage", "logging"])
def test_everything_is_named(text: str, name: str):
    assert f"`{name}`" in text
