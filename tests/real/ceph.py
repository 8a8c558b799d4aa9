"""A Ceph object gateway for tests: installed where that is possible, and all of it in memory."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from real import packages
from real.daemon import Starter, end, free_ports, make_certificates, wait_for_start
from real.packages import skipping_if_unavailable

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
PACKAGES = ("ceph-mon", "ceph-osd", "radosgw", "ceph-common")
DAY = 2
"""Seconds that a day of a lifecycle rule lasts."""

USERS = {"manage": "manager", "write": "writer", "read": "reader"}
"""By role, the user who has it."""

_PORTS = 4
_CONFIGURATION = """
[global]
fsid = {fsid}
mon_initial_members = a
mon_host = [v2:127.0.0.1:{ports[0]},v1:127.0.0.1:{ports[1]}]
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
# The machine is alone with itself, and who starts this runs all of it.
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = {directory}
admin_socket = {directory}/$name.asok
log_file = {directory}/$name.log
log_to_stderr = false
mon_cluster_log_file = {directory}/cluster.log
mon_data = {directory}/mon
mon_data_avail_warn = 1
mon_data_avail_crit = 1
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 1000
# Else whatever makes a pool waits for a second.
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
osd_data = {directory}/osd
osd_objectstore = memstore
memstore_device_bytes = {memory}
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_class_load_list = *
osd_class_default_list = *
osd_memory_target = 939524096
# A gateway that was killed holds up the next one for so long: it is still told of changes.
osd_client_watch_timeout = 3
[osd]
# An address of its own, so that its ports are nobody else's.
public_addr = {osd_address}
cluster_addr = {osd_address}
[client.rgw.a]
# Alone, the gateway asks for an encrypted connection to the monitor, which there is not without log-ins.
ms_mon_client_mode = crc
rgw_data = {directory}/rgw
# Without the last, each small answer takes 40 ms.
rgw_frontends = beast endpoint=127.0.0.1:{ports[2]} ssl_endpoint=127.0.0.1:{ports[3]} \
ssl_certificate={directory}/server.pem ssl_private_key={directory}/server.key tcp_nodelay=1
rgw_thread_pool_size = 64
objecter_tick_interval = 1
rgw_enable_usage_log = false
rgw_relaxed_s3_bucket_names = true
rgw_lc_debug_interval = {day}
rgw_gc_obj_min_wait = 5
rgw_gc_processor_period = 10
rgw_enable_apis = s3, admin
"""


def install() -> None:
    """Install Ceph if it is not there.

    Raises:
        Unavailable: It cannot be installed.
    """
    packages.install(lambda: all(map(shutil.which, PROGRAMS)), *PACKAGES)


def _made_up_keys() -> dict[str, tuple[str, str]]:
    return {role: (secrets.token_hex(10).upper(), secrets.token_urlsafe(30)) for role in USERS}


@dataclass
class Ceph:
    """A cluster of one monitor, one store in memory and one gateway, on loopback.

    It has three users: one who owns buckets, and may do all; one who may write and one who may read where the
    policy of a bucket says so.

    Attributes:
        directory: Where all of it is.
        memory: Bytes that it can hold.
        keys: By role (`manage`, `write`, `read`), the access key and the secret of its user.
    """

    directory: Path
    memory: int = 1 << 30
    keys: dict[str, tuple[str, str]] = field(default_factory=_made_up_keys, repr=False)
    _ports: list[int] = field(default_factory=lambda: free_ports(_PORTS))
    _starter: Starter = field(default_factory=Starter, repr=False)
    _gateway: subprocess.Popen[bytes] | None = None
    _others: list[subprocess.Popen[bytes]] = field(default_factory=list[subprocess.Popen[bytes]])

    @property
    def port(self) -> int:
        """Where the gateway listens."""
        return self._ports[2]

    @property
    def endpoint(self) -> str:
        """The address of the gateway."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_endpoint(self) -> str:
        """The address of the gateway with TLS, by a certificate of `ca_file`."""
        return f"https://127.0.0.1:{self._ports[3]}"

    @property
    def ca_file(self) -> Path:
        """The certificate of the authority that vouches for the gateway."""
        return self.directory / "ca.pem"

    def profile(self, **more: Any) -> dict[str, Any]:
        """The gateway as `parvis.stores` has it, with a login for every role; `more` counts more."""
        logins = {
            role: {"access_key": key, "secret_key": secret} for role, (key, secret) in self.keys.items()
        }
        return {"endpoint": self.endpoint, **logins, **more}

    def start(self) -> None:
        """Start all of it and wait until the gateway answers."""
        make_certificates(self.directory)
        identity, osd = str(uuid.uuid4()), str(uuid.uuid4())
        configuration = _CONFIGURATION.format(
            fsid=identity,
            directory=self.directory,
            ports=self._ports,
            osd_address="127." + ".".join(str(1 + secrets.randbelow(250)) for _ in range(3)),
            memory=self.memory,
            day=DAY,
        )
        (self.directory / "ceph.conf").write_text(configuration)
        for name in ("mon", "osd", "rgw"):
            (self.directory / name).mkdir()
        monitors = str(self.directory / "monmap")
        addresses = f"[v2:127.0.0.1:{self._ports[0]},v1:127.0.0.1:{self._ports[1]}]"
        self.run("monmaptool", "--create", "--fsid", identity, "--addv", "a", addresses, monitors)
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors)
        self._start("ceph-mon", "-f", "-i", "a")
        self.run("ceph", "--connect-timeout", "60", "osd", "new", osd, "0")
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._start("ceph-osd", "-f", "-i", "0")
        self.start_gateway()
        with ThreadPoolExecutor() as threads:
            list(threads.map(self._make_user, USERS))

    def run(self, *command: str) -> str:
        """Run a program of Ceph on this cluster, and give what it prints.

        Raises:
            RuntimeError: It failed.
        """
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=False, timeout=120
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[:3])} failed: {done.stderr[-1000:]}")
        return done.stdout

    def make_user(self) -> dict[str, str]:
        """Make a user who has nothing to do with the others; return a login as `parvis.stores` has it."""
        user, secret = secrets.token_hex(8), secrets.token_urlsafe(30)
        self._create_user(user, (user, secret))
        return {"access_key": user, "secret_key": secret}

    def set_quota(self, bucket: str, size: int) -> None:
        """Let a bucket hold no more than so many bytes."""
        of = ("--quota-scope=bucket", f"--bucket={bucket}")
        self.run("radosgw-admin", "quota", "set", *of, f"--max-size={size}")
        self.run("radosgw-admin", "quota", "enable", *of)

    def start_gateway(self) -> None:
        """Start the gateway and wait until it answers."""
        self._gateway = self._starter.start(
            ["radosgw", "-f", "-n", "client.rgw.a"], self._log("radosgw"), self._environment
        )
        wait_for_start("radosgw", self._gateway, self._answers, self._log("radosgw"))

    def stop_gateway(self) -> None:
        """Stop the gateway; what is stored stays."""
        gateway, self._gateway = self._gateway, None
        if gateway is not None:
            end(gateway, signal.SIGKILL)  # asked nicely it takes five seconds

    @contextlib.contextmanager
    def frozen_gateway(self) -> Iterator[None]:
        """Have the gateway take connections and say nothing."""
        assert self._gateway is not None
        self._gateway.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._gateway.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stop all of it and wait until it has ended. Nothing is kept."""
        self.stop_gateway()
        while self._others:
            end(self._others.pop(), signal.SIGKILL)

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "CEPH_CONF": str(self.directory / "ceph.conf")}

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.out"

    def _start(self, program: str, *arguments: str) -> None:
        process = self._starter.start([program, *arguments], self._log(program), self._environment)
        self._others.append(process)

    def _make_user(self, role: str) -> None:
        # Only who manages may make buckets.
        self._create_user(USERS[role], self.keys[role], *(() if role == "manage" else ("--max-buckets=-1",)))

    def _create_user(self, user: str, keys: tuple[str, str], *more: str) -> None:
        login = (f"--access-key={keys[0]}", f"--secret-key={keys[1]}")
        self.run("radosgw-admin", "user", "create", f"--uid={user}", f"--display-name={user}", *login, *more)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5):
            return True
        return False


@contextlib.contextmanager
def running(directory: Path, memory: int = 1 << 30) -> Iterator[Ceph]:
    """A cluster that runs until the end.

    Args:
        directory: An empty one for it.
        memory: Bytes that it can hold.

    Raises:
        Unavailable: Ceph cannot be installed.
    """
    install()
    cluster = Ceph(directory, memory)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """A Ceph object gateway of this test session's own; whoever stops the gateway starts it again."""
    with skipping_if_unavailable(), running(tmp_path_factory.mktemp("ceph")) as cluster:
        yield cluster
