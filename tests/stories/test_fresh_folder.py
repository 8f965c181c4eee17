"""What an installation leaves on a disk, and how patiently it begins."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from contracts.problems import Unavailable
from engine.settings import load
from scripts.opening import opened_store
from tests.stories.house import House, Stack


async def test_every_database_file_is_its_owners_alone(tmp_path: Path) -> None:
    async with House(Stack("embedded", tmp_path)) as house:
        await house.until_status(await house.register("acme"), "succeeded")
        modes = await asyncio.to_thread(_modes, tmp_path)
        assert {"unwind.db", "unwind.db-wal", "bus.db", "tenancy.sqlite"} <= modes.keys()
        assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}


def _modes(folder: Path) -> dict[str, int]:
    """Of every file but the caught mails."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".eml"]
    return {path.name: path.stat().st_mode & 0o777 for path in found}


@pytest.mark.postgres
async def test_up_waits_for_a_database_that_is_still_starting(postgres_url: str, tmp_path: Path) -> None:
    real = urlsplit(postgres_url)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    settings = load(
        data_dir=tmp_path, database_url=postgres_url.replace(f"{real.hostname}:{real.port}", f"127.0.0.1:{port}")
    )
    with pytest.raises(Unavailable):
        async with opened_store(settings, migrate=True):
            raise AssertionError("there was no database to open")

    async def opened() -> None:
        async with opened_store(settings, migrate=True, wait_seconds=30) as store:
            await store.ping()

    opening = asyncio.create_task(opened())
    done, _ = await asyncio.wait((opening,), timeout=0.5)
    assert not done
    server = await asyncio.start_server(
        lambda reader, writer: _carry(reader, writer, str(real.hostname), int(real.port or 0)), "127.0.0.1", port
    )
    try:
        async with asyncio.timeout(30):
            await opening
    finally:
        server.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    there, back = await asyncio.open_connection(host, port)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
        sink.close()

    await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)
