"""The promises of the shared fixtures: each test has a database and a virtual host of its own, empty at its start."""

from __future__ import annotations

from urllib.parse import urlsplit

import aio_pika
import asyncpg
import pytest


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_gets_an_empty_database(postgres_url: str, turn: int) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        assert await connection.fetchval("select count(*) from pg_tables where schemaname = 'public'") == 0
        await connection.execute("create table seen (turn int)")
        assert await connection.fetchval("select current_database()") == urlsplit(postgres_url).path[1:]
    finally:
        await connection.close()


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_gets_an_empty_virtual_host(rabbitmq_url: str, turn: int) -> None:
    async with await aio_pika.connect(rabbitmq_url) as connection:
        channel = await connection.channel()
        with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
            await channel.declare_queue("seen", passive=True)
        channel = await connection.channel()
        await channel.declare_queue("seen", durable=True, arguments={"x-queue-type": "quorum"})
