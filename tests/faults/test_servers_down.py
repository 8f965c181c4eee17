"""The database or the broker is away: at the start the engine waits for it, or ends and names it; in the middle it
stays up, keeps what it has in hand, and goes on where it was. Servers are the test's own.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.bus.topology import queues
from scripts.provision import PostgresServer, RabbitmqServer
from tests.faults.site import PARTS, Site, until_now

IMPATIENT = {"UNWIND_TIMEOUTS__START_SECONDS": "1"}


def _sound(site: Site, runs: list[dict[str, object]], count: int) -> None:
    """Every order was made, and nothing twice."""
    assert [run["status"] for run in runs] == ["succeeded"] * count
    assert site.repeated() == []
    assert len(site.ledger()) >= count * len(PARTS)


@pytest.mark.timeout(110)
async def test_while_the_database_is_away_the_engine_keeps_what_it_has_in_hand(
    own_postgres: PostgresServer, rabbitmq_url: str, tmp_path: Path
) -> None:
    async with Site.over(tmp_path, {"UNWIND_DATABASE_URL": own_postgres.url, "UNWIND_BUS_URL": rabbitmq_url}) as site:
        engine = await site.engine()
        await site.place("o-1", held=True)
        effect = await site.effect()

        await asyncio.to_thread(own_postgres.kill)
        effect.answer()  # what came of it cannot be recorded yet
        await site.place("o-2", "o-3", "o-4")
        await engine.until_check("database", ok=False)

        # One that starts now and is told not to wait says what is missing.
        hasty = await site.launch(**IMPATIENT)
        assert await hasty.ended() != 0
        assert "PostgreSQL does not answer" in hasty.said.read_text()
        # One that may wait, waits.
        patient = await site.launch()

        await asyncio.to_thread(own_postgres.start)
        await engine.until_check("database", ok=True)
        _sound(site, await site.until_ended(4), 4)
        await patient.until_ready()
        await engine.stop()
        site.front = patient
        await site.place("o-5")
        _sound(site, await site.until_ended(5), 5)


@pytest.mark.timeout(110)
async def test_while_the_broker_is_away_runs_go_on_and_their_commands_wait_in_the_outbox(
    postgres_url: str, own_rabbitmq: RabbitmqServer, tmp_path: Path
) -> None:
    servers = {"UNWIND_DATABASE_URL": postgres_url, "UNWIND_BUS_URL": own_rabbitmq.url}
    async with Site.over(tmp_path, servers) as site, site.parcels() as module:
        engine = await site.engine()
        for queue in (queues.intake, queues.replies, queues.unrouted, queues.dead, "parcels.commands.v1"):
            await asyncio.to_thread(own_rabbitmq.await_recorded, queue)
        await site.place("o-1", held=True, parcel=True)
        effect = await site.effect()

        await asyncio.to_thread(own_rabbitmq.kill)
        effect.answer()
        await until_now(lambda: site.keys("do"), lambda made: set(made) == set(PARTS))
        await engine.until_check("bus", ok=False)
        assert site.keys("parcel") == {}

        hasty = await site.launch(**IMPATIENT)
        assert await hasty.ended() != 0
        assert "RabbitMQ" in hasty.said.read_text()
        patient = await site.launch()

        await asyncio.to_thread(own_rabbitmq.start)
        _sound(site, await site.until_ended(), 1)
        assert site.keys("parcel") == {"parcel/1": 1}
        await patient.until_ready()
        await until_now(lambda: module.ready, bool)
        await engine.stop()
        site.front = patient
        await site.place("o-2", parcel=True)
        _sound(site, await site.until_ended(2), 2)
        assert site.keys("parcel") == {"parcel/1": 2}
