"""Servers somebody else runs, named in the environment: used as they are, never started, stopped or killed. Called
by servers()."""

from __future__ import annotations

import os
import subprocess

from scripts.provision.processes import ServerFailed


class _Given:
    origin = "given"
    running = True

    def __init__(self, url: str) -> None:
        self.url = url

    def start(self) -> None:
        raise ServerFailed("this server was given by its address; a fault test needs servers(given=False)")

    stop = kill = discard = start


class GivenPostgres(_Given):
    """PostgreSQL at UNWIND_TEST_POSTGRES_URL."""


class GivenRabbitmq(_Given):
    """RabbitMQ at UNWIND_TEST_RABBITMQ_URL, its management API at UNWIND_TEST_RABBITMQ_MGMT, its tool at
    UNWIND_TEST_RABBITMQCTL."""

    @property
    def management_url(self) -> str:
        return os.environ.get("UNWIND_TEST_RABBITMQ_MGMT", "")

    @property
    def rabbitmqctl_path(self) -> str | None:
        return os.environ.get("UNWIND_TEST_RABBITMQCTL")

    def rabbitmqctl(self, *arguments: str, timeout: float = 60) -> str:
        if self.rabbitmqctl_path is None:
            raise ServerFailed("UNWIND_TEST_RABBITMQCTL names no rabbitmqctl for the given broker")
        done = subprocess.run(
            [self.rabbitmqctl_path, *arguments], capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode != 0:
            raise ServerFailed(f"rabbitmqctl exited with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout
