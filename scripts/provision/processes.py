"""One server process in a group of its own: started as the instance's account, ended for certain, its log shown
when it fails. Not a supervisor: it restarts nothing. Called by postgres.py and rabbitmq.py."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from scripts.provision.places import Account, Instance, kill_tree


class ServerFailed(RuntimeError):
    """A throw-away server did not start or did not answer; the message carries the end of its log."""


def run_as(who: Account, argv: Sequence[str], env: Mapping[str, str], timeout: float = 60) -> str:
    """Run a command to its end as the account and return its output."""
    done = subprocess.run(
        list(argv), env=dict(env), cwd="/", user=who.uid, group=who.gid, extra_groups=None if who.uid is None else [],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ServerFailed(f"{Path(argv[0]).name} exited with {done.returncode}:\n{done.stdout[-3000:]}")
    return done.stdout


class ServerProcess:
    """A process group that belongs to an instance."""

    def __init__(self, instance: Instance, name: str, log: Path) -> None:
        self._instance = instance
        self._name = name
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Start it; the caller waits for readiness with `await_ready`."""
        if self.alive:
            raise ServerFailed(f"{self._name} runs already; stop it first")
        who = self._instance.account
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                list(argv), env=dict(env), cwd="/", user=who.uid, group=who.gid,
                extra_groups=None if who.uid is None else [], stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._instance.remember(self._process.pid)

    def await_ready(self, ready: Callable[[], bool], within: float) -> None:
        """Wait until the server answers; raise with its log when it ends or stays silent."""
        deadline = time.monotonic() + within
        while not ready():
            if not self.alive:
                raise ServerFailed(f"{self._name} ended while starting:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self._name} did not answer within {within:.0f} s:\n{self.log_tail()}")
            time.sleep(0.05)

    def end(self, first: signal.Signals, within: float = 20) -> None:
        """Signal the process, give it time, then kill the whole group; returns when it is gone."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(first)
            with suppress(subprocess.TimeoutExpired):
                process.wait(within)
        kill_tree(process.pid)
        process.wait(10)
        self._instance.forget(process.pid)
        self._process = None

    def kill(self) -> None:
        """kill -9 of the server and everything below it; returns when it is gone."""
        process = self._process
        if process is None:
            return
        kill_tree(process.pid)
        process.wait(10)
        self._instance.forget(process.pid)
        self._process = None

    def log_tail(self) -> str:
        with suppress(OSError):
            return self._log.read_text(errors="replace")[-4000:]
        return "(no log)"
