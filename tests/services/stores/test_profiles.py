"""The stores of a site, by configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parvis.config import Config
from parvis.config.shown import settings_in_force
from parvis_services.stores.directory import DirectoryStore
from parvis_services.stores.profiles import (
    KEY,
    Role,
    S3Profile,
    StoreNotConfigured,
    Stores,
    open_store,
    profile_of,
    profiles,
    store_of,
)
from parvis_services.stores.s3 import S3Store
from parvis_services.stores.url import ObjectUrl

SECRET = "wonderful-s3cret"
LOGIN = {"access_key": "AK", "secret_key": SECRET}


def storage(**stores: Any) -> dict[str, Any]:
    return {KEY: stores}


def refusal(content: Any, role: Role = "read") -> str:
    """Why a store cannot be opened."""
    with pytest.raises(StoreNotConfigured) as caught:
        open_store("ceph", role, {KEY: {"ceph": content}})
    return str(caught.value)


def test_stores_are_opened_by_name_and_role(tmp_path: Path) -> None:
    known = storage(
        local={"directory": str(tmp_path)},
        ceph={"endpoint": "https://ceph.example.org:7480/", "read": LOGIN},
    )
    local, ceph = open_store("local", "write", known), open_store("ceph", "read", known)
    assert isinstance(local, DirectoryStore)
    assert isinstance(ceph, S3Store)
    assert (str(local.url("mx", "a")), str(ceph.url("mx", "a"))) == ("dir://local/mx/a", "s3://ceph/mx/a")
    assert set(profiles(known)) == {"local", "ceph"}


def test_store_of_an_address(tmp_path: Path) -> None:
    known = storage(local={"directory": str(tmp_path)})
    assert store_of(ObjectUrl.parse("dir://local/mx/a"), "read", known).profile == "local"
    with pytest.raises(StoreNotConfigured, match="begin with dir://"):
        store_of(ObjectUrl.parse("s3://local/mx/a"), "read", known)
    with pytest.raises(StoreNotConfigured, match=r"no store 'other' under parvis.stores; there are: local"):
        store_of(ObjectUrl.parse("dir://other/mx/a"), "read", known)


def test_each_store_is_opened_once(tmp_path: Path) -> None:
    stores = Stores("read", storage(local={"directory": str(tmp_path)}))
    first = stores.of(ObjectUrl.parse("dir://local/mx/a"))
    assert stores.of(ObjectUrl.parse("dir://local/other/b")) is first
    with pytest.raises(StoreNotConfigured):
        stores.of(ObjectUrl.parse("s3://local/mx/a"))
    stores.close()


def test_role_that_is_not_configured() -> None:
    told = refusal({"endpoint": "https://ceph:1", "write": LOGIN})
    assert "no login for the role 'read' (there are: write)" in told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("https://ceph", "either a directory or an endpoint"),
        ({"endpoint": "https://c:1", "directory": "/x"}, "either a directory or an endpoint"),
        ({"directory": "images"}, "directory: must be an absolute path"),
        ({"endpoint": "ceph:7480"}, "endpoint: must be https://HOST:PORT"),
        ({"endpoint": "https://c:1/bucket"}, "endpoint: must be https://HOST:PORT"),
        ({"endpoint": "https://c:99999"}, "endpoint: must be https://HOST:PORT"),
        ({"endpoint": f"https://AK:{SECRET}@c:1"}, "endpoint: must hold no login"),
        ({"endpoint": "http://ceph.example.org"}, "to another machine it must be https"),
        ({"endpoint": "http://127.0.0.1.example.org"}, "to another machine it must be https"),
        ({"endpoint": "http://127.0.0.1", "ca_file": "/x"}, "ca_file: there are no certificates"),
        ({"endpoint": "https://c:1", "raed": LOGIN}, "raed: Extra inputs are not permitted"),
        (
            {"endpoint": "https://c:1", "read": {"access_key": "AK"}},
            "read: give either secret_key or secret_file",
        ),
        ({"endpoint": "https://c:1", "read": {**LOGIN, "secret_file": "/x"}}, "give either"),
        (
            {"endpoint": "https://c:1", "read": {**LOGIN, "access_key": [SECRET]}},
            "read.access_key: Input should",
        ),
        (
            {"endpoint": "https://c:1", "read": {**LOGIN, "secret_key": [SECRET]}},
            "read.secret_key: Input should",
        ),
    ],
)
def test_what_cannot_be_is_refused_without_its_secrets(content: Any, told: str) -> None:
    text = refusal(content)
    assert told in text
    assert "'ceph'" in text
    assert SECRET not in text


@pytest.mark.parametrize("endpoint", ["http://localhost:1", "http://127.9.9.9:1", "http://[::1]:1"])
def test_plain_http_on_this_machine_is_fine(endpoint: str) -> None:
    assert open_store("ceph", "read", storage(ceph={"endpoint": endpoint, "read": LOGIN}))


def test_plain_http_is_possible_for_who_insists() -> None:
    content = {"endpoint": "http://ceph.example.org:7480", "insecure": True, "read": LOGIN}
    assert open_store("ceph", "read", storage(ceph=content))


@pytest.mark.parametrize("name", ["a b", "", "x/y", "ä"])
def test_names_that_no_address_can_have_are_refused(name: str) -> None:
    with pytest.raises(StoreNotConfigured, match="cannot be the name of a store"):
        profiles({KEY: {name: {"directory": "/x"}}})


def test_key_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(StoreNotConfigured, match="must be a mapping"):
        profiles({KEY: ["ceph"]})
    assert profiles({}) == {}


class TestSecretFile:
    """A secret in a file of its own."""

    def content(self, file: Path) -> dict[str, Any]:
        return {"endpoint": "https://c:1", "read": {"access_key": "AK", "secret_file": str(file)}}

    def test_it_is_read_when_the_store_is_opened(self, tmp_path: Path) -> None:
        file = tmp_path / "secret"
        file.write_text(f"{SECRET}\n")
        file.chmod(0o640)
        profile = profile_of("ceph", storage(ceph=self.content(file)))
        assert isinstance(profile, S3Profile)
        assert profile.read is not None
        assert profile.read.secret() == SECRET
        assert open_store("ceph", "read", storage(ceph=self.content(file)))

    @pytest.mark.parametrize("mode", [0o644, 0o602])
    def test_everybody_must_not_read_it(self, tmp_path: Path, mode: int) -> None:
        file = tmp_path / "secret"
        file.write_text(SECRET)
        file.chmod(mode)
        told = refusal(self.content(file))
        assert f"everybody may read or write {file}: chmod o-rwx {file}" in told
        assert SECRET not in told

    def test_it_must_be_there_and_hold_a_secret(self, tmp_path: Path) -> None:
        file = tmp_path / "secret"
        assert "cannot be read: No such file" in refusal(self.content(file))
        for text in ("", f"{SECRET} more", f"{SECRET}\nmore", "x" * 2000, "\0", "ä"):
            file.write_text(text)
            file.chmod(0o600)
            told = refusal(self.content(file))
            assert "must hold one secret and nothing else" in told
            assert SECRET not in told


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "parvis.yml"
    file.write_text(
        "version: 1\nenvironments: {default: [images]}\nimages:\n  plugin: storage\n  parvis.stores:\n"
        "    ceph:\n      endpoint: https://ceph.example.org:7480\n"
        f"      read: {{access_key: AK, secret_key: {SECRET}}}\n"
        "      write: {access_key: AK, secret_file: /etc/parvis/secret}\n"
    )
    config = Config.load(file)
    assert SECRET in config.secrets()
    (shown,) = [one.value for one in settings_in_force(config, {}) if one.name == KEY]
    assert shown["ceph"]["read"] == {"access_key": "AK", "secret_key": "***"}
    assert shown["ceph"]["write"] == {"access_key": "AK", "secret_file": "/etc/parvis/secret"}
    profile = profile_of("ceph", config.storage)
    for text in (repr(config), repr(profile), str(profile), profile.model_dump_json()):
        assert SECRET not in text
