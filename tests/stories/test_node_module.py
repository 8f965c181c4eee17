"""A module in another language, written from the wire page alone: it keeps the promises that the SDK keeps."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from contracts.sdk import open_transport
from engine.plan.code import Run, saga
from tests.conformance.sdk.witness import DEADLINE_SECONDS, Witness, order
from tests.node import tool
from tests.stories.house import House, Stack
from tests.stories.node_module.contract import LABELS

HERE = Path(__file__).parent / "node_module"

Started = Callable[[], AbstractAsyncContextManager[asyncio.subprocess.Process]]


@pytest.fixture(scope="session")
def installed(node_folder: Callable[[Path], Path]) -> Path:
    """The module's folder with its locked dependencies."""
    return node_folder(HERE)


@pytest.fixture
async def start(installed: Path, rabbitmq_url: str, tmp_path: Path) -> Started:
    @asynccontextmanager
    async def started() -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            tool("node"),
            "module.js",
            cwd=installed,
            env={**os.environ, "AMQP_URL": rabbitmq_url, "JOURNAL": str(tmp_path / "journal.jsonl")},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(DEADLINE_SECONDS):
                assert await process.stdout.readline() == b"ready\n"
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    return started


@pytest.fixture
async def witness(rabbitmq_url: str) -> AsyncIterator[Witness]:
    witness = Witness(open_transport(rabbitmq_url, name="witness"))
    await witness.start()
    yield witness
    await witness.stop()


PARCEL = {"order_id": "ord_1", "weight_grams": 900}


async def test_it_obeys_a_redelivered_command_once_and_answers_with_the_same_bytes(
    start: Started, witness: Witness
) -> None:
    async with start():
        command = await witness.give(order("labels.PrintLabelV1", PARCEL), copies=10)
        await witness.reply(command, 10)
    replies = witness.replies(command)
    assert {reply.to_json() for reply in replies} == {replies[0].to_json()}
    assert (replies[0].type, replies[0].source) == ("labels.LabelPrintedV1", "/modules/labels")
    assert (replies[0].correlationid, replies[0].traceparent) == (command.correlationid, command.traceparent)


async def test_it_remembers_what_it_did_when_it_was_killed_and_started_again(start: Started, witness: Witness) -> None:
    command = order("labels.PrintLabelV1", PARCEL)
    async with start() as process:
        await witness.give(command)
        first = await witness.reply(command)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    await witness.give(command)
    async with start():
        assert (await witness.reply(command, 2)).to_json() == first.to_json()


async def test_it_forgets_what_may_be_tried_again_and_remembers_what_may_not(start: Started, witness: Witness) -> None:
    async with start():
        jammed = await witness.give(order("labels.PrintLabelV1", {"order_id": "jam_1", "weight_grams": 1}))
        assert (await witness.reply(jammed)).type == "labels.PrinterJammedV1"
        await witness.give(jammed)
        assert (await witness.reply(jammed, 2)).type == "labels.LabelPrintedV1"
        heavy = await witness.give(order("labels.PrintLabelV1", {"order_id": "o", "weight_grams": 40_000}), copies=2)
        await witness.reply(heavy, 2)
    assert {(reply.type, reply.id) for reply in witness.replies(heavy)} == {
        ("labels.LabelRefusedV1", witness.replies(heavy)[0].id)
    }


async def test_it_undoes_by_the_key_and_leaves_a_tombstone_for_what_it_never_saw(
    start: Started, witness: Witness
) -> None:
    async with start():
        do = await witness.give(order("labels.PrintLabelV1", PARCEL, key="run/a/1"))
        printed = await witness.reply(do)
        undo = await witness.give(order("labels.VoidLabelV1", {"input": PARCEL, "receipt": None}, key="run/a/1/undo"))
        assert (await witness.reply(undo)).data == {"label_id": printed.data["label_id"]}
        early = await witness.give(order("labels.VoidLabelV1", {"input": PARCEL, "receipt": None}, key="run/b/1/undo"))
        assert (await witness.reply(early)).data == {"label_id": None}
        late = await witness.give(order("labels.PrintLabelV1", PARCEL, key="run/b/1"))
        assert (await witness.reply(late)).data["code"] == "undone_before_done"


async def test_it_rejects_what_it_cannot_read_into_the_dead_letters(start: Started, witness: Witness) -> None:
    async with start():
        await witness.give_raw("labels.PrintLabelV1", b"{not json")
        misfit = await witness.give(order("labels.PrintLabelV1", {"order_id": 7}))
        await witness.until(lambda: len(witness.dead) == 2)
        assert {delivery.body for delivery in witness.dead} == {b"{not json", misfit.to_json()}
        good = await witness.give(order("labels.PrintLabelV1", PARCEL))
        assert (await witness.reply(good)).type == "labels.LabelPrintedV1"


async def test_it_ends_well_on_sigterm(start: Started, witness: Witness) -> None:
    async with start() as process:
        command = await witness.give(order("labels.PrintLabelV1", PARCEL))
        await witness.reply(command)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await process.wait() == 0


@saga("parcel", version=1, on_failure="compensate")
async def parcel(run: Run, order: dict[str, Any]) -> dict[str, Any]:
    label: dict[str, Any] = await run.step(
        "label", "labels.print_label", order_id=order["order_id"], weight_grams=order["weight_grams"]
    )
    if order.get("changed_mind"):
        raise run.fail("changed_mind", "the customer does not want it any more")
    return label


@pytest.mark.parametrize(
    ("parcel_order", "status", "label"),
    [
        ({"order_id": "ord_1", "weight_grams": 900}, "succeeded", ("succeeded", "none", 1)),
        ({"order_id": "jam_1", "weight_grams": 900}, "succeeded", ("succeeded", "none", 2)),
        ({"order_id": "ord_2", "weight_grams": 900, "changed_mind": True}, "compensated", ("succeeded", "done", 1)),
        ({"order_id": "ord_3", "weight_grams": 40_000}, "failed", ("failed", "none", 1)),
    ],
    ids=["done", "done at the second try", "undone", "refused for good"],
)
async def test_it_takes_part_in_runs(
    start: Started,
    rabbitmq_url: str,
    tmp_path: Path,
    parcel_order: dict[str, Any],
    status: str,
    label: tuple[str, str, int],
) -> None:
    stack = Stack("node", tmp_path, bus_url=rabbitmq_url)
    async with House(stack, sagas=[parcel], modules=(), contracts=[LABELS]) as house, start():
        run = await house.start("parcel", "acme", parcel_order)
        await house.until_status(run, status)
        step = (await house.steps(run))["label"]
        assert (step["status"], step["undo"]["status"], len(step["attempts"])) == label
        voided = house.ear.events("labels.LabelVoidedV1", tenant="acme")
        assert len(voided) == (1 if label[1] == "done" else 0)
