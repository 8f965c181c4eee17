"""Every process that compose.yaml starts, with its very commands and settings, on this machine: they become ready
together, and each ends in time and with exit code 0 when it is told to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.probe import ready
from scripts.provision.places import free_port

ROOT = Path(__file__).resolve().parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


class House:
    """The processes, with the container's addresses, folders and ports replaced by this test's."""

    def __init__(self, postgres_url: str, rabbitmq_url: str, folder: Path) -> None:
        self._replaced = (
            (re.compile(r"^postgresql://.*"), postgres_url),
            (re.compile(r"^amqp://.*"), rabbitmq_url),
            (re.compile(r"^/var/lib/unwind"), str(folder)),
            (re.compile(r"^0\.0\.0\.0$"), "127.0.0.1"),
            (re.compile(r"^\$\{\w+:-([^{}]*)\}$"), r"\1"),
        )
        self._folder = folder
        self.ports = {name: free_port() for name in OURS}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("keys", "data"):
            (folder / name).mkdir(mode=0o700)

    def start(self, name: str) -> subprocess.Popen[bytes]:
        settings = {}
        for variable, value in OURS[name]["environment"].items():
            for pattern, ours in self._replaced:
                value = pattern.sub(ours, value)
            settings[variable] = value
        port = str(self.ports[name])
        environment = {k: v for k, v in os.environ.items() if not k.startswith("UNWIND_")}
        with (self._folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "scripts", *OURS[name]["command"]],
                cwd=ROOT,
                env={**environment, **settings, "UNWIND_HTTP__PORT": port, "UNWIND_HTTP__PROBE_PORT": port},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.processes[name]

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")[-3000:]


@pytest.fixture
def house(postgres_url: str, rabbitmq_url: str, tmp_path: Path) -> Iterator[House]:
    built = House(postgres_url, rabbitmq_url, tmp_path)
    yield built
    for process in built.processes.values():
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.timeout(240)
def test_every_process_becomes_ready_and_ends_when_it_is_told_to(house: House) -> None:
    assert house.start("setup").wait(90) == 0, house.log("setup")
    running = [name for name in OURS if name != "setup"]
    for name in running:
        house.start(name)
    deadline = time.monotonic() + 120
    waiting = dict.fromkeys(running, "not asked yet")
    while waiting:
        for name in list(waiting):
            assert house.processes[name].poll() is None, f"{name} ended:\n{house.log(name)}"
            objection = ready(house.ports[name])
            if objection is None:
                del waiting[name]
            else:
                waiting[name] = objection
        assert time.monotonic() < deadline, {name: (why, house.log(name)) for name, why in waiting.items()}
        time.sleep(0.1)
    for name in running:
        house.processes[name].send_signal(signal.SIGTERM)
    grace = {name: float(OURS[name]["stop_grace_period"].removesuffix("s")) for name in running}
    told = time.monotonic()
    for name in running:
        left = max(0.0, told + grace[name] - time.monotonic())
        assert house.processes[name].wait(left) == 0, f"{name}:\n{house.log(name)}"
