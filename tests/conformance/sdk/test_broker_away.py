"""A module whose broker is away at the start, dies in the middle, and comes back: it waits, and nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from contracts.sdk import open_database, open_transport
from contracts.sdk.topology import module_queue
from scripts.provision import RabbitmqServer
from tests.conformance.sdk.depot import Depot, StockLowV1
from tests.conformance.sdk.witness import Witness, order


@pytest.mark.timeout(180)
async def test_a_broker_that_is_killed_loses_no_command_and_no_fact(
    own_rabbitmq: RabbitmqServer, tmp_path: Path
) -> None:
    witness = Witness(open_transport(own_rabbitmq.url, name="witness"))
    await witness.start()
    await asyncio.to_thread(own_rabbitmq.stop)

    depot = Depot(open_transport(own_rabbitmq.url, name="depot"), open_database(f"sqlite://{tmp_path / 'depot.db'}"))
    starting = asyncio.create_task(depot.service.start())
    try:
        done, _ = await asyncio.wait((starting,), timeout=0.5)
        assert not done
        await asyncio.to_thread(own_rabbitmq.start)
        async with asyncio.timeout(60):
            await starting

        began, finish = asyncio.Event(), asyncio.Event()

        async def hold(_: object) -> None:
            began.set()
            await finish.wait()

        depot.hooks["apple"] = hold
        await _until_ready(witness)
        command = await witness.give(order("depot.ReserveV1", {"item": "apple"}))
        async with asyncio.timeout(30):
            await began.wait()
        for queue in (module_queue("depot"), "witness.events"):
            await asyncio.to_thread(own_rabbitmq.await_recorded, queue)
        await asyncio.to_thread(own_rabbitmq.kill)
        finish.set()
        event_id = await depot.service.publish(StockLowV1(item="pear"), tenant="acme")
        assert not depot.service.ready

        await asyncio.to_thread(own_rabbitmq.start)
        async with asyncio.timeout(60):
            await witness.until(
                lambda: bool(witness.replies(command)) and any(event.id == event_id for event in witness.heard)
            )
        assert {reply.type for reply in witness.replies(command)} == {"depot.ReservedV1"}
        assert len({reply.id for reply in witness.replies(command)}) == 1
        assert await depot.effects() == ["reserve apple"]
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await depot.service.stop()
        await witness.stop()


async def _until_ready(witness: Witness) -> None:
    async with asyncio.timeout(60):
        while not witness.transport.ready:  # noqa: ASYNC110 -- the transport tells nobody
            await asyncio.sleep(0.05)
