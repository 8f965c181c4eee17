"""The throw-away servers themselves: they survive what fault tests do to them, stand beside others, and leave
nothing."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import aio_pika
import asyncpg
import pytest

from scripts.provision import PostgresServer, RabbitmqServer, ServerFailed, debian, servers, sources
from scripts.provision.places import Instance, free_port, started_at, sweep

ROOT = Path(__file__).resolve().parents[2]


def processes_of(folder: Path) -> list[int]:
    """Processes whose command line or environment names the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and started_at(int(entry.name)) is not None:
            try:
                told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if os.fsencode(folder) in told and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def until(condition: Callable[[], bool], within: float = 20) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


async def test_a_killed_postgres_starts_again_on_its_port_with_what_was_committed(own_postgres: PostgresServer) -> None:
    url = own_postgres.url
    connection = await asyncpg.connect(url)
    await connection.execute("create table kept (n int); insert into kept values (7)")
    own_postgres.kill()
    assert not own_postgres.running
    with pytest.raises(OSError):
        await asyncpg.connect(url)
    own_postgres.start()
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("select n from kept") == 7
    finally:
        await connection.close()


async def fetched(url: str, queue: str, within: float = 40) -> bytes:
    """The next message; a quorum queue answers only once it has elected its leader again."""
    deadline = time.monotonic() + within
    while True:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            try:
                message = await (await channel.get_queue(queue)).get(timeout=2, fail=False)
            except (TimeoutError, aio_pika.exceptions.AMQPError):
                message = None
            if message is not None:
                return message.body
        assert time.monotonic() < deadline, f"nothing came from {queue}"


async def test_a_killed_rabbitmq_starts_again_on_its_port_with_what_was_confirmed(own_rabbitmq: RabbitmqServer) -> None:
    url = own_rabbitmq.url
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
        await channel.default_exchange.publish(aio_pika.Message(b"7", delivery_mode=2), "kept")
        own_rabbitmq.await_recorded("kept")
        own_rabbitmq.kill()
    own_rabbitmq.start()
    assert await fetched(url, "kept") == b"7"
    assert "unwind" in own_rabbitmq.rabbitmqctl("list_users")


def test_two_pairs_stand_side_by_side_and_leave_no_process_and_no_file(own_servers: None) -> None:
    with servers(rabbitmq=False, given=False) as first, servers(rabbitmq=False, given=False) as second:
        assert first.postgres_url != second.postgres_url
        folders = [pair._room().folder for pair in (first, second)]
        assert all(processes_of(folder) for folder in folders)
    assert [folder for folder in folders if folder.exists() or processes_of(folder)] == []


def test_a_pair_stands_beside_others_on_the_standard_ports_and_ends_its_epmd_too(own_servers: None) -> None:
    held = []
    for port in (5432, 5672, 4369, 15672, 25672):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()
        except OSError:
            listener.close()  # somebody else holds it, which serves as well
        else:
            held.append(listener)
    try:
        with servers(given=False) as pair:
            folder = pair._room().folder
            assert pair.postgres.running
            assert pair.rabbitmq.running
            assert len(processes_of(folder)) >= 3
    finally:
        for listener in held:
            listener.close()
    until(lambda: not processes_of(folder))
    assert not folder.exists()


def test_what_a_killed_owner_left_is_ended_by_the_next_run(own_servers: None) -> None:
    program = (
        "import sys, time\n"
        "from scripts.provision import servers\n"
        "with servers(rabbitmq=False, given=False) as pair:\n"
        "    print(pair._room().folder, flush=True)\n"
        "    time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().strip())
    owner.kill()
    owner.wait()
    assert processes_of(folder)
    sweep(folder.parent)
    until(lambda: not processes_of(folder))
    assert not folder.exists()


def test_a_running_owner_is_left_alone_by_the_sweep(own_instance: Instance) -> None:
    sweep(own_instance.folder.parent)
    assert own_instance.folder.exists()


def test_the_command_ends_its_servers_when_it_is_ended(own_servers: None, tmp_path: Path) -> None:
    env_file = tmp_path / "servers.env"
    command = [sys.executable, "-m", "scripts.provision", "up", "--env-file", str(env_file)]
    keeper = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: env_file.exists() or keeper.poll() is not None, within=90)
    (tool,) = [line.split("=", 1)[1] for line in env_file.read_text().splitlines() if "RABBITMQCTL" in line]
    folder = Path(tool).parent
    assert processes_of(folder)
    keeper.send_signal(signal.SIGTERM)
    assert keeper.wait(60) == 0
    keeper.communicate()
    assert not folder.exists()
    assert not env_file.exists()
    assert processes_of(folder) == []


def test_the_command_hands_on_the_exit_code_and_the_addresses() -> None:
    program = "import os, sys; sys.exit(7 if os.environ['UNWIND_TEST_POSTGRES_URL'] == 'postgresql://given/x' else 1)"
    given = {"UNWIND_TEST_POSTGRES_URL": "postgresql://given/x", "UNWIND_TEST_RABBITMQ_URL": "amqp://given/"}
    done = subprocess.run(
        [sys.executable, "-m", "scripts.provision", "run", "--", sys.executable, "-c", program],
        cwd=ROOT, env={**os.environ, **given}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr


def test_a_given_server_is_never_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNWIND_TEST_POSTGRES_URL", "postgresql://given/x")
    with servers(rabbitmq=False) as pair, pytest.raises(ServerFailed, match="given"):
        pair.postgres.kill()


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="Debian's packages are for Debian")
def test_debians_packages_serve_without_an_installation(own_servers: None) -> None:
    programs = debian.postgres_programs()
    assert programs.origin == "Debian package"
    instance = Instance()
    try:
        server = PostgresServer(programs, instance)
        server.start()
        try:
            assert server.running
        finally:
            server.stop()
    finally:
        instance.remove()


def test_an_unknown_source_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNWIND_TEST_PROVISION", "magic")
    with pytest.raises(ValueError, match="UNWIND_TEST_PROVISION is 'magic'"):
        sources.choice()


def test_no_port_is_handed_out_twice() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50


FILLING = """
import ctypes, os, tempfile
from pathlib import Path
from scripts.provision import disk, mounts
from scripts.provision.places import account

who = account()
if who.uid is not None:
    os.setgroups([]), os.setgid(who.gid), os.setuid(who.uid)
    ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: a change of user takes a process its own /proc
disk.prepare()
print(disk.missing())
if not disk.missing():
    with tempfile.TemporaryDirectory() as folder:
        small, more = disk.SmallDisk(Path(folder), 4, account()), Path(folder, "more")
        small.fill()
        try:
            more.write_bytes(b"1")
        except OSError as full:
            print(full.strerror)
        small.free()
        print(more.write_bytes(b"1"))
        mounts.unmount_below(Path(folder))
        print(os.listdir(folder))
"""


def filled(path: str) -> list[str]:
    """What an ordinary user's process says of a small disk, found by these programs: first why it has none."""
    done = subprocess.run(
        [sys.executable, "-c", FILLING], cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_an_ordinary_user_fills_a_small_disk_where_the_kernel_lets_him() -> None:
    why, *told = filled(os.environ["PATH"])
    if why:
        pytest.skip(why)
    assert told == ["No space left on device", "1", "[]"]


def test_who_has_no_small_disk_is_told_what_is_missing(tmp_path: Path) -> None:
    [why] = filled(str(tmp_path))
    assert why.startswith("a file system of limited size needs the right to mount: ")
    assert "unshare" in why
