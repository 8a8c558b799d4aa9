"""The secret of the web page, and who may log in."""

from __future__ import annotations

import dataclasses
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from parvis.cli import main
from parvis.config import Config, ConfigError
from parvis.web.settings import SECRET_FILE, WebSettings, secret_from_file
from parvis.web.users import Users

HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b+dWRWJTmaaJObG"


def _config(directory: Path, **storage: Any) -> Config:
    return dataclasses.replace(Config(), storage={"parvis.state_directory": str(directory), **storage})


def test_a_secret_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    first = WebSettings.of(_config(tmp_path / "state"))
    again = WebSettings.of(_config(tmp_path / "state"))
    assert first.secret == again.secret
    assert len(first.secret) >= 32
    assert stat.S_IMODE((tmp_path / "state" / SECRET_FILE).stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "state").iterdir()] == [SECRET_FILE]
    assert first.key(b"session") != first.key(b"forms")
    assert first.secret not in first.key(b"session")
    assert str(first.secret) not in repr(first)


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / SECRET_FILE
    secret_from_file(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        secret_from_file(path)


def test_a_file_that_holds_no_secret_is_refused(tmp_path: Path) -> None:
    path = tmp_path / SECRET_FILE
    path.touch(mode=0o600)
    with pytest.raises(ConfigError, match="holds no secret"):
        secret_from_file(path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x" * 40)
    (tmp_path / SECRET_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot be used"):
        secret_from_file(tmp_path / SECRET_FILE)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("parvis.web.users", "ada", "must be a mapping"),
        ("parvis.web.users", {"ada": "hunter2"}, "'ada' needs the hash"),
        ("parvis.web.users", {"a\x1bda": HASH}, "cannot name a user"),
        ("parvis.web.secret", "short", "at least 32"),
    ],
)
def test_settings_that_are_no_good_say_so(tmp_path: Path, key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        WebSettings.of(_config(tmp_path, **{key: value}))
    assert "hunter2" not in str(caught.value)


def test_a_password_is_hashed_and_recognised() -> None:
    done = CliRunner().invoke(main, ["web", "password"], input="tell nobody\ntell nobody\n")
    assert done.exit_code == 0, done.output
    (hashed,) = [line for line in done.stdout.splitlines() if line.startswith("$argon2id$")]
    users = Users({"ada": hashed})
    assert users.are_right("ada", "tell nobody")
    assert not users.are_right("ada", "tell somebody")
    assert not users.are_right("bob", "tell nobody")
    assert "tell nobody" not in done.output


def test_a_session_ends_with_the_password_it_was_begun_with() -> None:
    users = Users({"ada": HASH})
    session = users.new_session("ada")
    assert users.user_of(session) == "ada"
    assert Users({"ada": HASH + "x"}).user_of(session) is None
    assert Users({}).user_of(session) is None
    assert users.user_of({**session, "since": session["since"] - 13 * 3600}) is None
    assert users.user_of({"user": "ada"}) is None
    users.end(session)
    assert users.user_of(session) is None


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    (tmp_path / "page.crt").touch()
    done = CliRunner().invoke(main, ["web", "--certificate", str(tmp_path / "page.crt")])
    assert done.exit_code == 2
    assert "go together" in done.output
