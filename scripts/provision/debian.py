"""PostgreSQL, RabbitMQ, promtool and libfaketime out of Debian's packages without installing anything: apt with a state
of its own resolves and downloads, dpkg -x unpacks into the cache. Needs neither root nor services, and touches no state
of the machine. Called by sources.py."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from scripts.provision.places import account, cache_folder
from scripts.provision.postgres import PostgresPrograms
from scripts.provision.processes import run_as
from scripts.provision.rabbitmq import RabbitmqPrograms

_APT = """
Dir::State "{home}/state";
Dir::State::status "{home}/status";
Dir::Cache "{home}/cache";
Debug::NoLocking "1";
APT::Sandbox::User "root";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Acquire::Retries "2";
Acquire::Languages "none";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Update::Pre-Invoke;
#clear DPkg::Post-Invoke;
"""
# Maintainer-script helpers, the JIT compiler, service plumbing: dependencies of an installation, not of the programs.
_UNUSED = re.compile(
    r"^(adduser|cron|cron-daemon.*|debconf|fonts-.*|init-system-helpers|libfile-.*-perl|libjs-.*|libjson-.*|libllvm.*|libnumber-.*-perl|"
    r"libpopt0|libtext-.*-perl|libwrap0|libz3-.*|locales|logrotate|lsb-base|openssl|perl.*|libperl.*|"
    r"postgresql(-client)?-common|postgresql|procps|python3.*|libpython3.*|sensible-utils|socat|ssl-cert|"
    r"sysvinit-utils|ucf|usrmerge|usr-is-merged)$"
)
_WANTED = re.compile(r"^(erlang|rabbitmq|postgresql|libpq5|prometheus|libfaketime)")


class PackagesUnavailable(RuntimeError):
    """Debian's packages cannot be had here: no apt, no network, or another kind of system."""


def _call(argv: list[str], cwd: Path) -> str:
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    env |= {
        name: value for name, value in os.environ.items() if name.lower() in {"http_proxy", "https_proxy", "no_proxy"}
    }
    done = subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PackagesUnavailable(f"{' '.join(argv[:4])} exited with {done.returncode}: {done.stderr.strip()[-800:]}")
    return done.stdout


def _installed() -> set[str]:
    listing = _call(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}\n"], Path("/"))
    return {line.split()[0] for line in listing.splitlines() if line.rstrip().endswith(" ii")}


def _resolve(apt: list[str], package: str, home: Path) -> list[str]:
    """The packages to unpack: the whole closure against an empty system, less what this machine has anyway."""
    plan = _call([*apt, "-s", "--no-install-recommends", "install", package], home)
    names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    here = _installed()
    return [n for n in names if not _UNUSED.match(n) and (_WANTED.match(n) or n not in here)]


def unpack(package: str) -> Path:
    """Download and unpack one server with its dependencies into the cache; done once, safe to call from several
    runs."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise PackagesUnavailable("this is not a Debian system: apt-get or dpkg is missing")
    packages = cache_folder() / "packages"
    packages.mkdir(mode=0o755, exist_ok=True)
    target = packages / package
    with (packages / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            return target
        home = packages / f".{package}-{secrets.token_hex(4)}"
        try:
            for part in ("state/lists/partial", "cache/archives/partial", "debs", "root"):
                (home / part).mkdir(parents=True)
            home.chmod(0o755)
            (home / "status").touch()
            (home / "apt.conf").write_text(_APT.format(home=home))
            apt = ["apt-get", "-c", str(home / "apt.conf"), "-q"]
            _update(apt, home)
            names = _resolve(apt, package, home)
            if not names:
                raise PackagesUnavailable(f"apt knows no package {package}")
            _call([*apt, "download", *names], home / "debs")
            for deb in sorted((home / "debs").glob("*.deb")):
                _call(["dpkg", "-x", str(deb), str(home / "root")], home)
            (home / "root").chmod(0o755)
            (home / "root").rename(target)
        finally:
            shutil.rmtree(home, ignore_errors=True)
    return target


def _update(apt: list[str], home: Path) -> None:
    # A third-party source that does not answer must not stop us: what counts is whether the packages are found after
    # it.
    try:
        _call([*apt, "update"], home)
    except PackagesUnavailable:
        if not any((home / "state" / "lists").glob("*Packages*")):
            raise


def _library_path(root: Path) -> Mapping[str, str]:
    folders = [f for base in ("usr/lib", "lib") for f in (root / base).glob("*-linux-*") if f.is_dir()]
    return {"LD_LIBRARY_PATH": os.pathsep.join(map(str, folders))} if folders else {}


def postgres_programs() -> PostgresPrograms:
    """PostgreSQL of this Debian release, unpacked."""
    root = unpack("postgresql")
    for found in sorted((root / "usr/lib/postgresql").glob("*/bin"), reverse=True):
        programs = PostgresPrograms(found, _library_path(root), "Debian package")
        run_as(account(), [str(found / "postgres"), "--version"], {**programs.env, "PATH": "/usr/bin:/bin"})
        return programs
    raise PackagesUnavailable(f"no PostgreSQL binaries under {root}; remove the folder to download anew")


def rabbitmq_programs() -> RabbitmqPrograms:
    """RabbitMQ and Erlang of this Debian release, unpacked, with an `erl` that knows where it now lies."""
    root = unpack("rabbitmq-server")
    erts = sorted((root / "usr/lib/erlang").glob("erts-*"))
    sbin = sorted((root / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"))
    if not erts or not sbin:
        raise PackagesUnavailable(f"no RabbitMQ or Erlang under {root}; remove the folder to download anew")
    wrappers = root / "unwind-bin"
    _write_erl(wrappers, root / "usr/lib/erlang", erts[-1] / "bin")
    return RabbitmqPrograms(sbin[-1], wrappers, erts[-1] / "bin", _library_path(root), "Debian package")


def promtool() -> Path:
    """The program that checks rules and pages of Prometheus, unpacked."""
    found = unpack("prometheus") / "usr/bin/promtool"
    if not found.is_file():
        raise PackagesUnavailable(f"no promtool at {found}; remove the folder to download anew")
    return found


def faketime() -> Path:
    """The library that gives a process another time when it is preloaded, unpacked."""
    root = unpack("libfaketime")
    for found in root.glob("usr/lib/*/faketime/libfaketimeMT.so.1"):
        return found
    raise PackagesUnavailable(f"no libfaketimeMT.so.1 under {root}; remove the folder to download anew")


def _write_erl(folder: Path, erlang: Path, binaries: Path) -> None:
    # Debian's erl has /usr/lib/erlang written into it.
    text = (
        f"#!/bin/sh\nROOTDIR='{erlang}'\nBINDIR='{binaries}'\nEMU=beam\nPROGNAME=erl\n"
        'export ROOTDIR BINDIR EMU PROGNAME\nexec "$BINDIR/erlexec" ${1+"$@"}\n'
    )
    path = folder / "erl"
    if path.is_file() and path.read_text() == text:
        return
    folder.mkdir(mode=0o755, exist_ok=True)
    draft = folder / f"erl.{secrets.token_hex(4)}"
    draft.write_text(text)
    draft.chmod(0o755)
    draft.rename(path)
