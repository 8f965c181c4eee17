"""A command is obeyed once per key: effect, memory and answer are one commit, on every bus and database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

from contracts.sdk import Call, Early
from tests.conformance.sdk.depot import Depot
from tests.conformance.sdk.witness import Witness, fact, order


async def test_a_command_delivered_ten_times_has_one_effect_and_one_answer(depot: Depot, witness: Witness) -> None:
    command = await witness.give(order("depot.ReserveV1", {"item": "apple"}), copies=10)
    await witness.reply(command, 10)
    assert await depot.effects() == ["reserve apple"]
    assert depot.calls == ["apple"]
    replies = witness.replies(command)
    assert {reply.to_json() for reply in replies} == {replies[0].to_json()}
    assert replies[0].type == "depot.ReservedV1"


async def test_an_answer_inherits_the_story_of_its_command(depot: Depot, witness: Witness) -> None:
    command = await witness.give(order("depot.ReserveV1", {"item": "apple"}))
    reply = await witness.reply(command)
    assert (reply.source, reply.tenantid, reply.correlationid) == ("/modules/depot", "acme", "story-1")
    assert (reply.causationid, reply.traceparent) == (command.id, command.traceparent)


async def test_processes_of_one_module_compete_and_obey_each_key_once(
    depot: Depot, witness: Witness, make_depot: Callable[..., Depot]
) -> None:
    second = make_depot()
    await second.service.start()
    commands = [order("depot.ReserveV1", {"item": f"item-{number}"}) for number in range(10)]
    for command in commands:
        await witness.give(command, copies=4)
    for command in commands:
        await witness.reply(command, 4)
    assert sorted(await depot.effects()) == sorted(f"reserve item-{number}" for number in range(10))
    for command in commands:
        assert len({reply.to_json() for reply in witness.replies(command)}) == 1


async def test_the_same_key_of_two_tenants_is_two_orders(depot: Depot, witness: Witness) -> None:
    ours = order("depot.ReserveV1", {"item": "apple"}, key="run/step/1", tenant="acme")
    theirs = order("depot.ReserveV1", {"item": "pear"}, key="run/step/1", tenant="globex")
    await witness.give(ours)
    await witness.give(theirs)
    await witness.until(lambda: len(witness.heard) == 2)
    assert await depot.effects("acme") == ["reserve apple"]
    assert await depot.effects("globex") == ["reserve pear"]


async def test_an_irrecoverable_failure_is_remembered_and_leaves_no_effect(depot: Depot, witness: Witness) -> None:
    command = await witness.give(order("depot.ReserveV1", {"item": "unicorn"}), copies=3)
    await witness.reply(command, 3)
    assert depot.calls == ["unicorn"]
    assert await depot.effects() == []
    assert {(reply.type, reply.id) for reply in witness.replies(command)} == {
        ("depot.OutOfStockV1", witness.replies(command)[0].id)
    }
    assert witness.replies(command)[0].data == {
        "code": "out_of_stock",
        "message": "there are none",
        "put_off_seconds": None,
    }


async def test_a_retryable_failure_is_rolled_back_and_not_remembered(depot: Depot, witness: Witness) -> None:
    command = order("depot.ReserveV1", {"item": "busy"})
    await witness.give(command)
    first = await witness.reply(command, 1)
    await witness.give(command)
    second = await witness.reply(command, 2)
    assert (first.type, second.type) == ("depot.DepotBusyV1", "depot.DepotBusyV1")
    assert first.id != second.id
    assert depot.calls == ["busy", "busy"]
    assert await depot.effects() == []


async def test_a_command_that_overtook_its_fact_is_obeyed_once_the_fact_has_come(
    depot: Depot, witness: Witness
) -> None:
    overtook = asyncio.Event()

    def follows_the_fact(call: Call) -> None:
        overtook.set()
        if "delivery" not in depot.calls:
            raise Early("not_here", "the delivery is under way")

    depot.hooks["apple"] = follows_the_fact
    command = await witness.give(order("depot.ReserveV1", {"item": "apple"}))
    await asyncio.wait_for(overtook.wait(), 10)
    arrived = fact("/modules/supplier", "supplier.StockArrivedV1", {"item": "delivery"})
    await witness.give_raw(arrived.type, arrived.to_json(), exchange="unwind.events")
    reply = await witness.reply(command)
    assert reply.type == "depot.ReservedV1"
    assert await depot.effects() == ["arrived delivery", "reserve apple"]


async def test_a_command_whose_fact_never_comes_fails_and_is_not_remembered(depot: Depot, witness: Witness) -> None:
    def early(call: Call) -> None:
        raise Early("not_here", "the delivery is under way")

    depot.hooks["apple"] = early
    command = await witness.give(order("depot.ReserveV1", {"item": "apple"}))
    reply = await witness.reply(command)
    assert (reply.type, reply.data["code"]) == ("depot.DepotBusyV1", "not_here")
    assert depot.calls == ["apple"] * 4
    assert await depot.effects() == []


async def test_facts_of_a_command_are_sent_before_its_answer_under_ids_that_never_change(
    depot: Depot, witness: Witness
) -> None:
    command = await witness.give(order("depot.ReserveV1", {"item": "apple", "quantity": 9}))
    await witness.reply(command, 2)
    low, reserved = witness.replies(command)
    assert (low.type, reserved.type) == ("depot.StockLowV1", "depot.ReservedV1")
    assert low.time <= reserved.time
    assert UUID(low.id).version == UUID(reserved.id).version == 5


async def test_an_undo_gets_the_receipt_this_module_remembers_when_nobody_else_does(
    depot: Depot, witness: Witness
) -> None:
    do = await witness.give(order("depot.ReserveV1", {"item": "apple"}, key="run/step/1"))
    reserved = await witness.reply(do)
    undo = order("depot.ReleaseV1", {"input": {"item": "apple"}, "receipt": None}, key="run/step/1/undo")
    await witness.give(undo, copies=2)
    await witness.reply(undo, 2)
    assert witness.replies(undo)[0].data == {"reservation_id": reserved.data["reservation_id"]}
    assert await depot.effects() == ["reserve apple", "release"]


async def test_an_undo_that_comes_first_succeeds_with_nothing_and_refuses_the_late_order(
    depot: Depot, witness: Witness
) -> None:
    undo = await witness.give(order("depot.ReleaseV1", {"input": {"item": "apple"}}, key="run/step/1/undo"))
    assert (await witness.reply(undo)).data == {"reservation_id": None}
    late = await witness.give(order("depot.ReserveV1", {"item": "apple"}, key="run/step/1"))
    refused = await witness.reply(late)
    assert (refused.type, refused.data["code"]) == ("depot.OutOfStockV1", "undone_before_done")
    assert await depot.effects() == []
    assert depot.calls == []


async def test_an_undo_of_an_order_that_failed_for_good_has_nothing_to_undo(depot: Depot, witness: Witness) -> None:
    do = await witness.give(order("depot.ReserveV1", {"item": "unicorn"}, key="run/step/1"))
    await witness.reply(do)
    undo = await witness.give(order("depot.ReleaseV1", {"input": {"item": "unicorn"}}, key="run/step/1/undo"))
    assert (await witness.reply(undo)).data == {"reservation_id": None}
    await witness.give(do)
    assert (await witness.reply(do, 2)).data["code"] == "out_of_stock"


async def test_a_key_used_for_another_order_becomes_a_dead_letter_and_has_no_effect(
    depot: Depot, witness: Witness
) -> None:
    first = await witness.give(order("depot.ReserveV1", {"item": "apple"}, key="run/step/1"))
    await witness.reply(first)
    other = await witness.give(order("depot.ReserveV1", {"item": "pear"}, key="run/step/1"))
    await witness.until(lambda: len(witness.dead) == 1)
    assert witness.dead[0].body == other.to_json()
    assert await depot.effects() == ["reserve apple"]


async def test_an_effect_outside_the_database_is_done_once_for_copies_of_one_order(
    depot: Depot, witness: Witness
) -> None:
    command = await witness.give(order("depot.ShipV1", {"item": "crate"}), copies=5)
    await witness.reply(command, 5)
    assert await depot.effects() == ["ship crate"]
    assert len({reply.id for reply in witness.replies(command)}) == 1


async def test_a_fact_is_taken_in_once_per_event_id(depot: Depot, witness: Witness) -> None:
    arrived = fact("/modules/supplier", "supplier.StockArrivedV1", {"item": "apple"})
    for _ in range(10):
        await witness.give_raw(arrived.type, arrived.to_json(), exchange="unwind.events")
    again = fact("/modules/supplier", "supplier.StockArrivedV1", {"item": "pear"})
    await witness.give_raw(again.type, again.to_json(), exchange="unwind.events")
    await _until_handled(depot, 11)
    assert sorted(await depot.effects()) == ["arrived apple", "arrived pear"]


async def test_a_fact_of_a_false_source_becomes_a_dead_letter(depot: Depot, witness: Witness) -> None:
    forged = fact("/modules/mallory", "supplier.StockArrivedV1", {"item": "apple"})
    await witness.give_raw(forged.type, forged.to_json(), exchange="unwind.events")
    await witness.until(lambda: len(witness.dead) == 1)
    assert await depot.effects() == []


async def test_what_cannot_be_read_becomes_a_dead_letter_byte_for_byte(depot: Depot, witness: Witness) -> None:
    garbage = b'{"specversion": "1.0", "id": '
    misfit = order("depot.ReserveV1", {"item": 7})
    extra = order("depot.ReserveV1", {"item": "apple", "colour": "red"})
    await witness.give_raw("depot.ReserveV1", garbage)
    await witness.give(misfit)
    await witness.give(extra)
    await witness.give_raw("depot.ReserveV1", order("depot.VanishV1", {}).to_json())
    await witness.until(lambda: len(witness.dead) == 4)
    bodies = {delivery.body for delivery in witness.dead}
    assert {garbage, misfit.to_json(), extra.to_json()} < bodies
    good = await witness.give(order("depot.ReserveV1", {"item": "apple"}))
    assert (await witness.reply(good)).type == "depot.ReservedV1"


async def test_a_handler_that_always_fails_is_given_up_and_its_neighbours_are_served(
    witness: Witness, make_depot: Callable[..., Depot]
) -> None:
    depot = make_depot(max_attempts=2)
    depot.hooks["broken"] = _raise
    await depot.service.start()
    poison = await witness.give(order("depot.ReserveV1", {"item": "broken"}))
    neighbour = await witness.give(order("depot.ReserveV1", {"item": "apple"}))
    await witness.reply(neighbour)
    await witness.until(lambda: len(witness.dead) == 1)
    assert witness.dead[0].body == poison.to_json()
    assert depot.calls.count("broken") == 2
    assert await depot.effects() == ["reserve apple"]


async def test_a_handler_that_fails_once_is_tried_again_in_place(depot: Depot, witness: Witness) -> None:
    failures = iter([True])

    def fail_once(call: Call) -> None:
        if next(failures, False):
            _raise(call)

    depot.hooks["apple"] = fail_once
    command = await witness.give(order("depot.ReserveV1", {"item": "apple"}))
    assert (await witness.reply(command)).type == "depot.ReservedV1"
    assert await depot.effects() == ["reserve apple"]


def _raise(call: Call) -> None:
    raise RuntimeError("a bug in the handler")


async def _until_handled(depot: Depot, count: int) -> None:
    async with asyncio.timeout(20.0):
        while depot.service.tally["handled"] < count:  # noqa: ASYNC110 -- counted by the service, which tells nobody
            await asyncio.sleep(0.01)
