"""A private RabbitMQ: its own node name, cookie, epmd, ports, data and HOME, answering on the loopback only, with
the management plugin for fast virtual hosts. Used by the test suites and by fault tests, which may stop, kill and
start it again on the same ports. Its epmd is a child of ours, so nothing outlives the run."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import time
import urllib.request
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError

from scripts.provision.places import Instance, free_port
from scripts.provision.processes import ServerFailed, ServerProcess, run_as

_CONF = """
listeners.tcp.1 = 127.0.0.1:{amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
default_user = {user}
default_pass = {password}
loopback_users = none
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 1GB
raft.wal_max_size_bytes = 33554432
collect_statistics_interval = 1000
log.console = true
log.console.level = warning
log.file = false
"""

_CLUSTER = """
cluster_partition_handling = pause_minority
cluster_formation.peer_discovery_backend = classic_config
"""
_PEER = "cluster_formation.classic_config.nodes.{n} = {node}\n"


@dataclass(frozen=True, slots=True)
class RabbitmqPrograms:
    """The folder of rabbitmq-server and rabbitmqctl, the folders of erl and epmd, and extra environment."""

    sbin: Path
    erl: Path
    epmd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    origin: str = "installed"


class Epmd:
    """Erlang's port mapper: nodes find each other by it, so those of a cluster share one."""

    def __init__(self, programs: RabbitmqPrograms, instance: Instance) -> None:
        self._programs = programs
        self._process = ServerProcess(instance, "epmd", instance.folder / f"epmd-{secrets.token_hex(3)}.log")
        self.port = free_port()

    def start(self) -> None:
        if not self._process.alive:
            argv = [str(self._programs.epmd / "epmd"), "-address", "127.0.0.1", "-port", str(self.port)]
            environment = {"PATH": "/usr/bin:/bin", "HOME": "/", "LC_ALL": "C.UTF-8", **self._programs.env}
            self._process.start(argv, environment)
            self._process.await_ready(lambda: _listens(self.port), within=20)

    def kill(self) -> None:
        self._process.kill()


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the nodes of a cluster have in common."""

    password: str = field(default_factory=lambda: secrets.token_hex(12))
    cookie: str = field(default_factory=lambda: secrets.token_hex(16).upper())


class RabbitmqServer:
    """One node: a broker of its own, or with `peers`, the names of all nodes, one of a cluster."""

    def __init__(
        self,
        programs: RabbitmqPrograms,
        instance: Instance,
        *,
        name: str | None = None,
        peers: Sequence[str] = (),
        epmd: Epmd | None = None,
        shared: Secrets | None = None,
    ) -> None:
        self._programs = programs
        self._instance = instance
        shared = shared or Secrets()
        self.node = name or node_name()
        mark = self.node.partition("@")[0].removeprefix("unwind-")
        self._user, self._password, self._cookie = "unwind", shared.password, shared.cookie
        self._peers = peers
        self._room = instance.room(f"rabbitmq-{mark}")
        self._epmd, self._owns_epmd = epmd or Epmd(programs, instance), epmd is None
        self._broker = ServerProcess(instance, "RabbitMQ", instance.folder / f"rabbitmq-{mark}.log")
        self.port, self.management_port = free_port(), free_port()
        self._dist_port, self._tool_port = free_port(), free_port()
        self._write_files()
        self.rabbitmqctl_path = self._write_tool("rabbitmqctl")
        self._write_tool("rabbitmq-diagnostics")

    @property
    def url(self) -> str:
        return f"amqp://{self._user}:{self._password}@127.0.0.1:{self.port}/"

    @property
    def management_url(self) -> str:
        return f"http://{self._user}:{self._password}@127.0.0.1:{self.management_port}"

    @property
    def origin(self) -> str:
        return self._programs.origin

    @property
    def running(self) -> bool:
        return self._broker.alive

    @property
    def _env(self) -> dict[str, str]:
        room = self._room
        return {
            "PATH": f"{self._programs.erl}:{self._programs.epmd}:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(room),
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_BYTES": "0",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_BASE": str(room),
            "RABBITMQ_MNESIA_BASE": str(room / "data"),
            "RABBITMQ_LOG_BASE": str(room / "log"),
            "RABBITMQ_CONFIG_FILE": str(room / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(room / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(room / "no-environment-file"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(room / "generated"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(room / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(room / "pid"),
            # Without these the schedulers spin while idle, which on two cores costs the tests a third of a core.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"
            ),
            "RABBITMQ_CTL_DIST_PORT_MIN": str(self._tool_port),
            "RABBITMQ_CTL_DIST_PORT_MAX": str(self._tool_port + 20),
            "RUNNING_UNDER_SYSTEMD": "true",
            **self._programs.env,
        }

    def _write_files(self) -> None:
        texts = {
            "rabbitmq.conf": _CONF.format(
                amqp=self.port, management=self.management_port, user=self._user, password=self._password
            )
            + (
                _CLUSTER + "".join(_PEER.format(n=n, node=node) for n, node in enumerate(self._peers, 1))
                if self._peers
                else ""
            ),
            "advanced.config": "[].\n",
            "enabled_plugins": "[rabbitmq_management].\n",
            ".erlang.cookie": self._cookie,
        }
        for name, text in texts.items():
            path = self._room / name
            path.write_text(text)
            path.chmod(0o400 if name == ".erlang.cookie" else 0o600)
            self._instance.account.own(path)

    def _write_tool(self, name: str) -> Path:
        """A script that runs a RabbitMQ tool with this node's environment, for tests in any language and for people."""
        who = self._instance.account
        lines = ["#!/bin/sh", "cd /"]
        settings = " ".join(f"{key}={shlex.quote(value)}" for key, value in self._env.items())
        drop = "" if who.uid is None else f"setpriv --reuid={who.uid} --regid={who.gid} --clear-groups "
        lines.append(f'exec {drop}env -i {settings} {shlex.quote(str(self._programs.sbin / name))} "$@"')
        path = self._instance.folder / f"{name}-{self._room.name}"
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o700)
        return path

    def start(self) -> None:
        """Start, and return when AMQP and the management API answer."""
        self._epmd.start()
        self._broker.start([str(self._programs.sbin / "rabbitmq-server")], self._env)
        self._broker.await_ready(self._answers, within=90)

    def stop(self) -> None:
        """Orderly shutdown, epmd included unless it is shared."""
        self._broker.end(signal.SIGTERM, within=40)
        if self._owns_epmd:
            self._epmd.kill()

    def discard(self) -> None:
        """End it at once, and epmd unless it is shared; its data is about to be removed."""
        self._broker.kill()
        if self._owns_epmd:
            self._epmd.kill()

    def kill(self) -> None:
        """kill -9 of the broker and its port programs; epmd goes on, as on a machine that stays up."""
        self._broker.kill()

    def await_recorded(self, queue: str, within: float = 20) -> None:
        """Wait until a quorum queue just declared would survive a kill: RabbitMQ 3.10 notes new ones half a second
        late, and one that was killed before is listed after the restart but never answers."""
        written = f"_{queue}".encode()
        deadline = time.monotonic() + within
        while not any(written in notes.read_bytes() for notes in self._room.rglob("names.dets")):
            if time.monotonic() > deadline:
                raise ServerFailed(f"quorum queue {queue} was not recorded within {within:.0f} s; was it declared?")
            time.sleep(0.05)

    def rabbitmqctl(self, *arguments: str, timeout: float = 60) -> str:
        """Run rabbitmqctl against this node and return what it printed."""
        argv = [str(self._programs.sbin / "rabbitmqctl"), *arguments]
        return run_as(self._instance.account, argv, self._env, timeout)

    def _answers(self) -> bool:
        return _listens(self.port) and management_answers(self.management_url)


def node_name(number: int | None = None, mark: str | None = None) -> str:
    """A name that no other node has; `number` is its place in the cluster of this mark."""
    mark = mark or secrets.token_hex(3)
    return f"unwind-{mark}@localhost" if number is None else f"unwind-{mark}-{number}@localhost"


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return True
    except OSError:
        return False


def management_request(base_url: str, method: str, path: str, body: object = None, timeout: float = 10) -> object:
    """One call of the management API; the URL carries user and password. Raises OSError when it fails."""
    scheme, _, rest = base_url.partition("://")
    credentials, _, place = rest.rpartition("@")
    request = urllib.request.Request(f"{scheme}://{place.rstrip('/')}{path}", method=method)
    request.add_header("Authorization", "Basic " + b64encode(credentials.encode()).decode())
    request.add_header("Content-Type", "application/json")
    payload = None if body is None else json.dumps(body).encode()
    # Brokers answer on the loopback; a proxy named in the environment must not see these calls.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, data=payload, timeout=timeout) as reply:
        text = reply.read()
    return json.loads(text) if text else None


def management_answers(base_url: str) -> bool:
    """Does the management API answer us? It opens after the AMQP listener."""
    try:
        reply = management_request(base_url, "GET", "/api/overview")
    except OSError:
        return False
    return isinstance(reply, dict) and "rabbitmq_version" in reply


def alarms(base_url: str) -> set[str]:
    """What the broker is short of, `memory` or `disk`, and therefore takes no message. Raises OSError when it does not
    answer."""
    try:
        management_request(base_url, "GET", "/api/health/checks/alarms")
    except HTTPError as refused:
        if refused.code != 503:
            raise
        # 3.10 calls the disk `disk space`.
        return {alarm["resource"].partition(" ")[0] for alarm in json.load(refused)["alarms"]}
    return set()


def installed_programs() -> RabbitmqPrograms | None:
    """RabbitMQ as a package manager installed it; its wrappers that insist on root are stepped around."""
    erl = shutil.which("erl")
    if erl is None:
        return None
    erl_bin = Path(erl).resolve().parent
    epmds = [Path(found).resolve() for found in (shutil.which("epmd"),) if found]
    epmds += sorted(erl_bin.parent.glob("erts-*/bin/epmd")) + sorted(Path("/usr/lib/erlang").glob("erts-*/bin/epmd"))
    folders = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"), reverse=True)
    server = shutil.which("rabbitmq-server")
    if server is not None:
        folders.append(Path(server).resolve().parent)
    for sbin in folders:
        if epmds and all(os.access(sbin / tool, os.X_OK) for tool in ("rabbitmq-server", "rabbitmqctl")):
            return RabbitmqPrograms(sbin, Path(erl).parent, epmds[0].parent)
    return None
