"""Workload B's module, a process of its own as its developer would write it: the handled key, nothing for an effect,
and the answer in one commit of its own database. It prints a line when it takes deliveries and serves until SIGTERM.

python -m scripts.bench.module BUS_URL DATABASE_URL
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from contracts.sdk import Call, Service, Tx, open_database, open_transport
from engine.loop import run
from scripts.bench.workload import MODULE, HandleOrderV1, OrderHandledV1

PREFETCH: Final = 200


async def serve(bus_url: str, database_url: str) -> None:
    service = Service(
        MODULE,
        transport=open_transport(bus_url, name="bench-module"),
        database=open_database(database_url),
        prefetch=PREFETCH,
    )

    @service.handles(HandleOrderV1)
    async def handle(command: HandleOrderV1, call: Call, tx: Tx) -> OrderHandledV1:
        return OrderHandledV1(order_id=command.order_id)

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
