"""A module is asked what became of a command: it answers from its memory, then from its handler, and what it closes
stays closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from contracts.envelope import Envelope
from contracts.sdk import Asker, QueryRefused, open_database, open_transport
from tests.conformance.sdk.till import Till, question
from tests.conformance.sdk.witness import DEADLINE_SECONDS, Witness, order


@pytest.fixture
async def till(bus_url: str, database_url: str, witness: Witness) -> AsyncIterator[Till]:
    till = Till(open_transport(bus_url, name="till"), open_database(database_url))
    await till.service.start()
    yield till
    await till.service.stop()


@pytest.fixture
async def asker(witness: Witness) -> AsyncIterator[Asker]:
    asker = Asker(witness.transport, name="tester")
    yield asker
    await asker.stop()


async def fate(asker: Asker, command: Envelope, *, closing: bool = False) -> dict[str, Any]:
    assert command.subject is not None
    asked = question(command.subject, command.id, closing=closing)
    return await asker.ask_raw("till.FindChargeV1", asked, tenant="acme", deadline_seconds=10)


async def settled(till: Till, count: int) -> None:
    """Waits until the module has settled so many deliveries."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while till.service.tally["handled"] < count:  # noqa: ASYNC110 -- a counter tells nobody
            await asyncio.sleep(0.01)


async def test_what_the_module_remembers_is_answered_without_its_handler(
    till: Till, witness: Witness, asker: Asker
) -> None:
    charge = await witness.give(order("till.ChargeV1", {"amount": 5}))
    reply = await witness.reply(charge)
    assert await fate(asker, charge) == {"happened": True, "receipt": reply.data}
    refused = await witness.give(order("till.ChargeV1", {"amount": 5, "how": "refused"}))
    await witness.reply(refused)
    assert await fate(asker, refused) == {"happened": False, "receipt": None}
    assert till.asked == []


async def test_what_the_module_does_not_remember_its_handler_looks_up(
    till: Till, witness: Witness, asker: Asker
) -> None:
    lost = await witness.give(order("till.ChargeV1", {"amount": 5, "how": "lost"}, key="r/lost/1"))
    await settled(till, 1)
    assert await fate(asker, lost, closing=True) == {"happened": True, "receipt": {"charge_id": "ch_lost"}}
    unknown = order("till.ChargeV1", {"amount": 5})
    assert await fate(asker, unknown) == {"happened": False, "receipt": None}
    assert [asked.command_id for asked in till.asked] == [lost.id, unknown.id]


async def test_an_order_that_was_closed_is_refused_when_it_comes_late(
    till: Till, witness: Witness, asker: Asker
) -> None:
    late = order("till.ChargeV1", {"amount": 5})
    assert await fate(asker, late, closing=True) == {"happened": False, "receipt": None}
    await witness.give(late)
    assert (await witness.reply(late)).type == "till.CardRefusedV1"
    assert till.charges == {}


async def test_an_order_that_was_only_asked_about_is_obeyed_when_it_comes_late(
    till: Till, witness: Witness, asker: Asker
) -> None:
    late = order("till.ChargeV1", {"amount": 5})
    assert await fate(asker, late) == {"happened": False, "receipt": None}
    await witness.give(late)
    assert (await witness.reply(late)).type == "till.ChargedV1"


async def test_a_question_waits_for_the_order_that_is_being_obeyed(till: Till, witness: Witness, asker: Asker) -> None:
    till.provider.clear()
    charge = await witness.give(order("till.ChargeV1", {"amount": 5}))
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not till.ordered:  # noqa: ASYNC110 -- the handler stands at the provider
            await asyncio.sleep(0.01)
    asking = asyncio.create_task(fate(asker, charge, closing=True))
    marker = order("till.ChargeV1", {"amount": 1})
    assert await fate(asker, marker) == {"happened": False, "receipt": None}
    assert not asking.done()
    till.provider.set()
    assert (await asking)["happened"] is True


async def test_a_handler_that_cannot_tell_refuses_the_question_and_closes_nothing(
    till: Till, witness: Witness, asker: Asker
) -> None:
    till.mute = True
    charge = order("till.ChargeV1", {"amount": 5})
    with pytest.raises(QueryRefused):
        await fate(asker, charge, closing=True)
    await witness.give(charge)
    assert (await witness.reply(charge)).type == "till.ChargedV1"
