"""Where each throw-away server comes from, in order: an address given in the environment, installed binaries,
Debian's packages unpacked into the cache, Docker Compose. UNWIND_TEST_PROVISION names one source and forbids the
others. Called by servers()."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from scripts.provision import debian, rabbitmq
from scripts.provision.places import account
from scripts.provision.postgres import PostgresPrograms
from scripts.provision.processes import ServerFailed, run_as
from scripts.provision.rabbitmq import RabbitmqPrograms

CHOICES = ("auto", "installed", "packages", "compose")

Programs = TypeVar("Programs")


class NoServers(RuntimeError):
    """None of the sources can give this server; the message lists each with its reason and the remedy."""


def choice() -> str:
    """The source the environment asks for."""
    named = os.environ.get("UNWIND_TEST_PROVISION", "auto")
    if named not in CHOICES:
        raise ValueError(f"UNWIND_TEST_PROVISION is {named!r}; it must be one of {', '.join(CHOICES)}")
    return named


def postgres_programs() -> PostgresPrograms:
    """PostgreSQL's binaries, or NoServers."""
    return _first("PostgreSQL", _installed_postgres, debian.postgres_programs)


def rabbitmq_programs() -> RabbitmqPrograms:
    """RabbitMQ's and Erlang's binaries, or NoServers."""
    return _first("RabbitMQ", rabbitmq.installed_programs, debian.rabbitmq_programs)


def promtool() -> Path:
    """Prometheus' own checker, or NoServers."""
    return _first("promtool", _installed_promtool, debian.promtool)


def faketime() -> Path:
    """The library that gives a process another time, or NoServers."""
    return _first("libfaketime", _installed_faketime, debian.faketime)


def _installed_faketime() -> Path | None:
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def _installed_promtool() -> Path | None:
    found = shutil.which("promtool")
    return None if found is None else Path(found)


def docker_answers() -> bool:
    """Is there a Docker daemon for us?"""
    if shutil.which("docker") is None:
        return False
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _first(server: str, installed: Callable[[], Programs | None], packages: Callable[[], Programs]) -> Programs:
    asked = choice()
    reasons = []
    if asked in ("auto", "installed"):
        found = installed()
        if found is not None:
            return found
        reasons.append("installed: no binaries that this user may run")
    if asked in ("auto", "packages"):
        try:
            return packages()
        except (debian.PackagesUnavailable, ServerFailed, OSError) as why:
            reasons.append(f"packages: {why}")
    raise NoServers(f"{server} cannot be had here ({'; '.join(reasons) or asked})")


def _installed_postgres() -> PostgresPrograms | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    folders += sorted(Path("/usr").glob("pgsql-*/bin"), reverse=True)
    on_path = shutil.which("postgres")
    if on_path is not None:
        folders.append(Path(on_path).resolve().parent)
    for folder in folders:
        if not (folder / "initdb").is_file():
            continue
        try:
            run_as(account(), [str(folder / "postgres"), "--version"], {"PATH": "/usr/bin:/bin"})
        except (ServerFailed, OSError):
            continue
        return PostgresPrograms(folder)
    return None


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in folder.parent.name.split(".") if part.isdigit())
