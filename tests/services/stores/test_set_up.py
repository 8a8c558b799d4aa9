"""What the guide to setting an object store up tells people to type, on a Ceph that nobody has set up."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from documents import ROOT, blocks
from parvis_services.stores.profiles import KEY, open_store
from parvis_services.stores.store import AccessDenied, StoreFull
from real.ceph import Ceph

pytestmark = pytest.mark.real("ceph")

GUIDE = ROOT / "docs" / "how-to" / "set-up-an-object-store.md"
BUCKET = "mx-i04"


def commands(program: str) -> list[list[str]]:
    """The commands of a program that the guide has, in order."""
    text = "\n".join(block.text for block in blocks(GUIDE) if block.language == "sh")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith(f"{program} ")]


@pytest.fixture
def configuration(ceph: Ceph, tmp_path: Path) -> Iterator[Path]:
    """The configuration of the guide, with the users that it makes, for this Ceph."""
    (given,) = [yaml.safe_load(block.text) for block in blocks(GUIDE) if block.language == "yaml"]
    (profile,) = given["images"][KEY].values()
    users = [command for command in commands("radosgw-admin") if command[1:3] == ["user", "create"]]
    for command in users:
        made = json.loads(ceph.run(*command))
        role = made["user_id"].removeprefix("parvis-")
        (keys,) = made["keys"]
        file = tmp_path / f"store-{role}"
        file.touch(0o640)
        file.write_text(keys["secret_key"])
        assert profile[role] == {
            "access_key": f"ACCESS-KEY-OF-{role.upper()}",
            "secret_file": f"/etc/parvis/{file.name}",
        }
        profile[role] = {"access_key": keys["access_key"], "secret_file": str(file)}
    profile |= {"endpoint": ceph.tls_endpoint, "ca_file": str(ceph.ca_file)}
    file = tmp_path / "parvis.yml"
    file.write_text(json.dumps({"version": 1, "environments": {"default": ["images"]}, **given}))
    yield file
    for command in users:
        ceph.run("radosgw-admin", "user", "rm", command[3], "--purge-data")


def parvis(configuration: Path, *arguments: str) -> str:
    """Run a command; give what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "parvis", *arguments],
        env={"ZOCALO_CONFIG": str(configuration), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_what_the_guide_says_works(ceph: Ceph, configuration: Path) -> None:
    health, policy = (command[1:] for command in commands("parvis")[:2])
    checked = parvis(configuration, *health)
    assert all(f"ceph ({role})" in checked for role in ("read", "write", "manage"))
    (printed,) = [json.loads(block.text) for block in blocks(GUIDE) if block.language == "json"]
    assert json.loads(parvis(configuration, *policy)) == printed
    storage = yaml.safe_load(configuration.read_text())["images"]
    reader, writer = open_store("ceph", "read", storage), open_store("ceph", "write", storage)
    writer.put(BUCKET, "test/1/1/000001", b"counts")
    assert reader.get(BUCKET, "test/1/1/000001").data == b"counts"
    for refused in (writer.get, writer.stat, lambda *at: reader.put(at[0], at[1], b"", replace=True)):
        with pytest.raises(AccessDenied):
            refused(BUCKET, "test/1/1/000001")
    for command in commands("radosgw-admin"):
        if command[1] == "quota":
            ceph.run(*command)
            ceph.run(*(word.replace("2T", "100K") for word in command))
    with pytest.raises(StoreFull):
        writer.put(BUCKET, "test/1/1/000002", bytes(200_000))
    open_store("ceph", "manage", storage).expire(BUCKET, 30)
    (rules, _) = (command for command in commands("radosgw-admin") if command[1] == "lc")
    assert f":{BUCKET}:" in ceph.run(*rules)
