"""The module of chaos, a process of its own, on a SQLite file that keeps every effect it ever had. It prints a line
when it takes deliveries and serves until SIGTERM.

python -m scripts.chaos.module BUS_URL DATABASE_FILE
"""

from __future__ import annotations

import asyncio
import sys

from contracts.sdk import open_database, open_transport
from engine.loop import run
from scripts.simulation.workload import make_module


async def serve(bus_url: str, file: str) -> None:
    service = make_module(open_transport(bus_url, name="stock"), open_database(f"sqlite:///{file.lstrip('/')}"), {})

    async def tell() -> None:
        await service.until_ready()
        print("ready", flush=True)

    telling = asyncio.create_task(tell())
    try:
        await service.run()
    finally:
        telling.cancel()


if __name__ == "__main__":
    run(serve(*sys.argv[1:3]))
