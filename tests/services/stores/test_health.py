"""The health check of image stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from health_checks import check, levels
from parvis.config import Config
from parvis.observe.health import Finding
from parvis_services.stores.profiles import KEY
from real.ceph import Ceph
from real.daemon import free_ports


def found(**stores: Any) -> list[Finding]:
    return check("image-stores", Config(storage={KEY: stores}))


def test_nothing_to_look_at() -> None:
    (finding,) = check("image-stores", Config())
    assert finding.level == "skipped"


def test_directories(tmp_path: Path) -> None:
    findings = found(there={"directory": str(tmp_path)}, away={"directory": str(tmp_path / "not")})
    assert levels(findings) == {"there": "ok", "away": "error"}
    assert "mounted" in findings[0].message


def test_configuration_that_cannot_be(tmp_path: Path) -> None:
    findings = found(
        good={"directory": str(tmp_path)}, bad={"directory": "images"}, dumb={"endpoint": "https://c"}
    )
    assert levels(findings) == {"good": "ok", "bad": "error", "dumb": "warning"}


@pytest.mark.real("ceph")
def test_gateway_that_knows_us_or_not(ceph: Ceph, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    secret = ceph.keys["read"][1]
    wrong = {"access_key": ceph.keys["read"][0], "secret_key": f"{secret}x"}
    missing = {"access_key": "AK", "secret_file": str(tmp_path / "none")}
    findings = found(
        good=ceph.profile(),
        bad=ceph.profile(read=wrong, write=missing, manage=None),
        away=ceph.profile(endpoint=f"http://127.0.0.1:{port}", read=None, manage=None),
    )
    assert levels(findings) == {
        "good (read)": "ok",
        "good (write)": "ok",
        "good (manage)": "ok",
        "bad (read)": "error",
        "bad (write)": "warning",
        "away (write)": "error",
    }
    assert secret not in repr(findings)
