"""The last source: PostgreSQL and RabbitMQ as containers, in a Compose project of its own with the images that
compose.yaml names. Used where a Docker daemon answers and neither binaries nor Debian's packages can be had. Called
by servers()."""

from __future__ import annotations

import re
import secrets
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from scripts.provision.places import Instance, free_port
from scripts.provision.postgres import startup_reply
from scripts.provision.processes import ServerFailed
from scripts.provision.rabbitmq import management_answers

_COMPOSE_FILE = Path(__file__).resolve().parents[2] / "compose.yaml"
_PROJECT = """
services:
  postgres:
    image: {postgres_image}
    environment: {{POSTGRES_USER: unwind, POSTGRES_PASSWORD: "{password}", POSTGRES_DB: postgres}}
    ports: ["127.0.0.1:{postgres_port}:5432"]
  rabbitmq:
    image: {rabbitmq_image}
    environment: {{RABBITMQ_DEFAULT_USER: unwind, RABBITMQ_DEFAULT_PASS: "{password}"}}
    ports: ["127.0.0.1:{amqp_port}:5672", "127.0.0.1:{management_port}:15672"]
"""


def image_of(service: str) -> str:
    """The pinned image of a service, so that one file says which versions we run on."""
    found = re.search(rf"image:\s*[\"']?({service}:[\w.-]+)", _COMPOSE_FILE.read_text())
    if found is None:
        raise ServerFailed(f"{_COMPOSE_FILE.name} names no image for {service}")
    return found.group(1)


class ComposeProject:
    """Both containers under one project name; taken down with their volumes."""

    def __init__(self, instance: Instance) -> None:
        self.password = secrets.token_hex(12)
        self.postgres_port, self.amqp_port, self.management_port = free_port(), free_port(), free_port()
        self._name = f"unwind-{secrets.token_hex(4)}"
        self._file = instance.folder / "compose.yaml"
        self._file.write_text(
            _PROJECT.format(
                postgres_image=image_of("postgres"),
                rabbitmq_image=image_of("rabbitmq"),
                password=self.password,
                postgres_port=self.postgres_port,
                amqp_port=self.amqp_port,
                management_port=self.management_port,
            )
        )

    def call(self, *arguments: str, timeout: float = 600) -> str:
        """One docker compose command on this project."""
        argv = ["docker", "compose", "-p", self._name, "-f", str(self._file), *arguments]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode != 0:
            raise ServerFailed(f"docker compose {arguments[0]} exited with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def down(self) -> None:
        """Remove containers, network and volumes."""
        self.call("down", "--volumes", "--timeout", "20")


class ComposeService:
    """One container of the project, with the surface of a server process."""

    origin = "Docker Compose"

    def __init__(self, project: ComposeProject, name: str, answers: Callable[[], bool]) -> None:
        self._project = project
        self._name = name
        self._answers = answers

    @property
    def running(self) -> bool:
        return self._name in self._project.call("ps", "--services", "--status", "running").split()

    def start(self) -> None:
        self._project.call("up", "-d", self._name)
        deadline = time.monotonic() + 180
        while not self._answers():
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"container {self._name}: no answer\n{self._project.call('logs', self._name)[-3000:]}"
                )
            time.sleep(0.2)

    def stop(self) -> None:
        self._project.call("stop", self._name)

    def discard(self) -> None:
        self.kill()

    def kill(self) -> None:
        self._project.call("kill", self._name)


class ComposePostgres(ComposeService):
    """PostgreSQL in a container."""

    def __init__(self, project: ComposeProject) -> None:
        super().__init__(project, "postgres", lambda: startup_reply(project.postgres_port) == b"R")

    @property
    def url(self) -> str:
        return f"postgresql://unwind:{self._project.password}@127.0.0.1:{self._project.postgres_port}/postgres"


class ComposeRabbitmq(ComposeService):
    """RabbitMQ in a container."""

    rabbitmqctl_path: Path | None = None

    def __init__(self, project: ComposeProject) -> None:
        super().__init__(project, "rabbitmq", lambda: management_answers(self.management_url))

    @property
    def url(self) -> str:
        return f"amqp://unwind:{self._project.password}@127.0.0.1:{self._project.amqp_port}/"

    @property
    def management_url(self) -> str:
        return f"http://unwind:{self._project.password}@127.0.0.1:{self._project.management_port}"

    def rabbitmqctl(self, *arguments: str, timeout: float = 60) -> str:
        return self._project.call("exec", "-T", "rabbitmq", "rabbitmqctl", *arguments, timeout=timeout)
