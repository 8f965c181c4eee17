"""Publishing, questions, and what a module does when it is told to stop, is killed, or finds its database away."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from contracts.problems import PayloadInvalid
from contracts.sdk import Asker, Call, QueryRefused, QueryTimedOut, open_database, open_transport, outbox, sqlite
from tests.conformance.sdk import depot as depot_module
from tests.conformance.sdk.depot import DEPOT, CountReservationsV1, Depot, ReservationCountV1, ShippedV1, StockLowV1
from tests.conformance.sdk.witness import DEADLINE_SECONDS, Witness, order


async def test_a_published_fact_is_heard_under_the_id_it_was_given(depot: Depot, witness: Witness) -> None:
    event_id = await depot.service.publish(StockLowV1(item="apple"), tenant="acme", subject="apple")
    await witness.until(lambda: len(witness.heard) == 1)
    heard = witness.heard[0]
    assert (heard.id, heard.type, heard.subject) == (event_id, "depot.StockLowV1", "apple")
    assert heard.data == {"item": "apple"}


async def test_a_fact_published_in_a_transaction_is_heard_only_if_it_commits(depot: Depot, witness: Witness) -> None:
    async def publish_and_fail() -> None:
        async with depot.service.database.transaction() as tx:
            await depot.service.publish(StockLowV1(item="lost"), tenant="acme", tx=tx)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await publish_and_fail()
    async with depot.service.database.transaction() as tx:
        await depot.service.publish(StockLowV1(item="kept"), tenant="acme", tx=tx)
    await witness.until(lambda: len(witness.heard) == 1)
    assert witness.heard[0].data == {"item": "kept"}
    async with asyncio.timeout(DEADLINE_SECONDS):
        # Heard first, confirmed and deleted a moment later.
        while await depot.service.outbox.count():  # noqa: ASYNC110 -- a deleted row tells nobody
            await asyncio.sleep(0)


async def test_only_declared_facts_can_be_published(depot: Depot) -> None:
    class StrangeV1(StockLowV1):
        pass

    with pytest.raises(Exception, match="declares no such event"):
        await depot.service.publish(StrangeV1(item="apple"), tenant="acme")


async def test_an_answer_nobody_is_bound_for_is_kept_and_sent_when_somebody_is(
    bus_url: str, make_depot: Callable[..., Depot], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "UNROUTED_SECONDS", 0.2)
    depot = make_depot()
    await depot.service.start()
    event_id = await depot.service.publish(StockLowV1(item="apple"), tenant="acme")
    async with asyncio.timeout(DEADLINE_SECONDS):
        while depot.service.tally["unroutable"] == 0:  # noqa: ASYNC110 -- a counter tells nobody
            await asyncio.sleep(0.01)
    assert await depot.service.outbox.count() == 1
    witness = Witness(open_transport(bus_url, name="late-witness"))
    await witness.start()
    try:
        await witness.until(lambda: len(witness.heard) == 1)
        assert witness.heard[0].id == event_id
    finally:
        await witness.stop()


async def test_a_question_is_answered(depot: Depot, witness: Witness) -> None:
    await witness.reply(await witness.give(order("depot.ReserveV1", {"item": "apple"})))
    async with _asker(witness) as asker:
        answers = await asyncio.gather(
            *(
                asker.ask(DEPOT, CountReservationsV1(item=item), ReservationCountV1, tenant="acme", deadline_seconds=10)
                for item in ("apple", "pear")
            )
        )
    assert [answer.count for answer in answers] == [1, 0]


async def test_a_question_nobody_answers_in_time_says_so(depot: Depot, witness: Witness) -> None:
    never = asyncio.Event()
    depot.hooks["apple"] = lambda call: never.wait()
    async with _asker(witness) as asker:
        with pytest.raises(QueryTimedOut, match=r"no answer within 0.3 s"):
            await asker.ask(
                DEPOT, CountReservationsV1(item="apple"), ReservationCountV1, tenant="acme", deadline_seconds=0.3
            )
        never.set()
        later = await asker.ask(
            DEPOT, CountReservationsV1(item="apple"), ReservationCountV1, tenant="acme", deadline_seconds=10
        )
    assert later.count == 0


async def test_a_question_to_a_module_that_is_not_there_fails_before_its_deadline(witness: Witness) -> None:
    async with _asker(witness) as asker, asyncio.timeout(5):
        with pytest.raises(QueryTimedOut, match="no module listens"):
            await asker.ask_raw("nobody.AskV1", {}, tenant="acme", deadline_seconds=30)


async def test_a_question_that_does_not_fit_is_refused_with_the_reason(depot: Depot, witness: Witness) -> None:
    async with _asker(witness) as asker:
        with pytest.raises(QueryRefused, match="item") as refused:
            await asker.ask_raw("depot.CountReservationsV1", {"item": 7}, tenant="acme", deadline_seconds=10)
    assert refused.value.context["reason"] == PayloadInvalid.code


async def test_stopping_finishes_what_is_in_hand_and_takes_nothing_new(
    depot: Depot, witness: Witness, make_depot: Callable[..., Depot]
) -> None:
    began, finish = asyncio.Event(), asyncio.Event()

    async def hold(call: Call) -> None:
        began.set()
        await finish.wait()

    depot.hooks["crate"] = hold
    held = await witness.give(order("depot.ShipV1", {"item": "crate"}))
    async with asyncio.timeout(DEADLINE_SECONDS):
        await began.wait()
    stopping = asyncio.create_task(depot.service.stop())
    await asyncio.sleep(0)
    assert not depot.service.ready
    later = await witness.give(order("depot.ReserveV1", {"item": "apple"}))
    finish.set()
    await stopping
    assert (await witness.reply(held)).type == f"depot.{ShippedV1.__name__}"
    assert witness.replies(later) == []
    second = make_depot()
    await second.service.start()
    assert (await witness.reply(later)).type == "depot.ReservedV1"
    assert sorted(await second.effects()) == ["reserve apple", "ship crate"]


async def test_stopping_twice_and_before_starting_is_fine(make_depot: Callable[..., Depot], witness: Witness) -> None:
    idle = make_depot()
    await idle.service.stop()
    await idle.service.stop()


async def test_sigterm_drains_a_process_and_it_ends_well(bus_url: str, database_url: str, witness: Witness) -> None:
    async with _process(bus_url, database_url) as process:
        command = await witness.give(order("depot.ReserveV1", {"item": "apple"}))
        await witness.reply(command)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await process.wait() == 0


async def test_a_process_killed_between_commit_and_answer_answers_when_it_comes_back(
    bus_url: str, database_url: str, witness: Witness, make_depot: Callable[..., Depot]
) -> None:
    async with _process(bus_url, database_url, "die-after-commit") as process:
        command = await witness.give(order("depot.ReserveV1", {"item": "apple"}))
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await process.wait() == -signal.SIGKILL
    assert witness.replies(command) == []
    survivor = make_depot(relay_lease_seconds=1.0)
    await survivor.service.start()
    assert (await witness.reply(command)).type == "depot.ReservedV1"
    assert await survivor.effects() == ["reserve apple"]
    assert len({reply.id for reply in witness.replies(command)}) == 1


async def test_a_message_that_kills_the_process_each_time_is_given_up_and_its_neighbours_live(
    tmp_path: Path,
) -> None:
    bus, database = f"embedded://{tmp_path / 'bus.db'}", f"sqlite://{tmp_path / 'depot.db'}"
    witness = Witness(open_transport(bus, name="witness"))
    await witness.start()
    try:
        poison = order("depot.ReserveV1", {"item": "poison"})
        neighbours = [order("depot.ReserveV1", {"item": f"item-{number}"}) for number in range(5)]
        async with _process(bus, database, "die-in-handler") as first:
            await witness.give(poison)
            async with asyncio.timeout(DEADLINE_SECONDS):
                assert await first.wait() == -signal.SIGKILL
        for neighbour in neighbours:
            await witness.give(neighbour)
        deaths = 1
        while not witness.dead and deaths < 10:
            async with _process(bus, database, "die-in-handler", wait=False) as process:
                ended = asyncio.create_task(process.wait())
                given_up = asyncio.create_task(witness.until(lambda: len(witness.dead) == 1))
                await asyncio.wait((ended, given_up), return_when=asyncio.FIRST_COMPLETED)
                if given_up.done():
                    for neighbour in neighbours:
                        await witness.reply(neighbour)
                else:
                    deaths += 1
                    given_up.cancel()
                ended.cancel()
                await asyncio.gather(ended, given_up, return_exceptions=True)
        assert [delivery.body for delivery in witness.dead] == [poison.to_json()]
        assert deaths == 6
        for neighbour in neighbours:
            assert {reply.type for reply in witness.replies(neighbour)} == {"depot.ReservedV1"}
    finally:
        await witness.stop()


async def test_a_locked_database_is_waited_for_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    bus, path = f"embedded://{tmp_path / 'bus.db'}", tmp_path / "depot.db"
    witness = Witness(open_transport(bus, name="witness"))
    await witness.start()
    depot = Depot(open_transport(bus), open_database(f"sqlite://{path}"))
    await depot.service.start()
    lock = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        # On a thread: a transaction of the module's own that is open just now needs this loop to end.
        await asyncio.to_thread(lock.execute, "BEGIN IMMEDIATE")
        command = await witness.give(order("depot.ReserveV1", {"item": "apple"}))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while "waits for the database" not in caplog.text:  # noqa: ASYNC110 -- a log line tells nobody
                await asyncio.sleep(0.01)
        assert witness.replies(command) == []
        lock.execute("COMMIT")
        assert (await witness.reply(command)).type == "depot.ReservedV1"
        assert await depot.effects() == ["reserve apple"]
    finally:
        lock.close()
        await depot.service.stop()
        await witness.stop()


@pytest.mark.postgres
async def test_a_database_that_drops_every_session_is_waited_for_and_nothing_is_lost(
    tmp_path: Path, postgres_url: str
) -> None:
    import asyncpg

    bus = f"embedded://{tmp_path / 'bus.db'}"
    witness = Witness(open_transport(bus, name="witness"))
    await witness.start()
    depot = Depot(open_transport(bus), open_database(f"{postgres_url}?schema=depot"))
    await depot.service.start()
    began, finish, hits = asyncio.Event(), asyncio.Event(), iter([True])

    async def hold_once(call: Call) -> None:
        if next(hits, False):
            began.set()
            await finish.wait()

    depot.hooks["apple"] = hold_once
    operator = await asyncpg.connect(postgres_url)
    try:
        command = await witness.give(order("depot.ReserveV1", {"item": "apple"}))
        async with asyncio.timeout(DEADLINE_SECONDS):
            await began.wait()
        await operator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        finish.set()
        assert (await witness.reply(command)).type == "depot.ReservedV1"
        assert await depot.effects() == ["reserve apple"]
    finally:
        await operator.close()
        await depot.service.stop()
        await witness.stop()


async def test_a_module_starts_before_its_database_and_serves_when_that_comes(tmp_path: Path) -> None:
    folder = tmp_path / "not-there-yet"
    folder.write_text("a file where the database's folder must be")
    bus = f"embedded://{tmp_path / 'bus.db'}"
    depot = Depot(open_transport(bus), open_database(f"sqlite://{folder}/depot.db"))
    starting = asyncio.create_task(depot.service.start())
    try:
        done, _ = await asyncio.wait((starting,), timeout=0.3)
        assert not done
        folder.unlink()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await starting
        assert depot.service.ready
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await depot.service.stop()


@asynccontextmanager
async def _asker(witness: Witness) -> AsyncIterator[Asker]:
    asker = Asker(witness.transport, name="tester")
    yield asker
    await asker.stop()


@asynccontextmanager
async def _process(
    bus_url: str, database_url: str, fault: str = "", *, wait: bool = True
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(depot_module.__file__)),
        bus_url,
        database_url,
        fault,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        if wait:
            assert process.stdout is not None
            async with asyncio.timeout(DEADLINE_SECONDS):
                assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
