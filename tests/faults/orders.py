"""What the engine of the fault tests works on: orders whose parts are made and unmade by plain functions, one of them
by asking the test itself (`held`), and whose parcel is sent by a module. Imported by the engine's process and by the
tests; it starts nothing.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import orjson

from contracts.calls import ActionCall, ActionFailed, Perform, RetryPolicy
from contracts.manifest import Command, CommandModel, Event, EventModel, Module, UndoModel
from engine.plan.code import Run, saga
from tests.faults import places

ONCE = RetryPolicy(attempts=1)
PATIENT = RetryPolicy(attempts=10, delay_seconds=0.1, max_delay_seconds=1.0)


class OrderPlacedV1(EventModel):
    order_id: str
    spoiled: bool = False
    """Part 3 cannot be made: what was made is unmade."""
    held: bool = False
    """Part 2 waits for an answer of the test."""
    pieces: bool = False
    """Part 2 is made in four pieces, each of which waits for an answer of the test."""
    parcel: bool = False
    """The order ends with a command to the module `parcels`."""
    rests: float = 0.0
    """Seconds that it sleeps before its parcel."""
    patient: bool = False
    """An answer of `parcels` that was lost is asked for again after seconds."""


class SendParcelV1(CommandModel):
    order_id: str


class ParcelSentV1(EventModel):
    parcel_id: str


class RecallParcelV1(UndoModel[SendParcelV1, ParcelSentV1]):
    """Brings it back."""


class ParcelRecalledV1(EventModel):
    parcel_id: str | None = None


FAULTS = Module(name="faults", version="1.0.0", events=(Event(OrderPlacedV1, keys={"order": "/order_id"}),))
PARCELS = Module(
    name="parcels",
    version="1.0.0",
    commands=(
        Command(SendParcelV1, success=ParcelSentV1, undo="RecallParcelV1"),
        Command(RecallParcelV1, success=ParcelRecalledV1, coverage="retriable"),
    ),
)


def note(line: str, folder: Path | None = None) -> None:
    """One line in the outside world, which no restart forgets."""
    with ((folder or Path(os.environ["UNWIND_DATA_DIR"])) / "ledger").open("a") as ledger:
        ledger.write(line + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())


def make(call: ActionCall) -> dict[str, Any]:
    if call.input["spoiled"] and call.input["part"] == 3:
        raise ActionFailed("spoiled", "part 3 cannot be made", retryable=False)
    note(f"do {call.key}")
    places.reached("effect")
    return {"made": call.input["part"]}


async def make_outside(call: ActionCall) -> dict[str, Any]:
    """Made as soon as the test, which hears who is making it, says so."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["FAULTS_OUTSIDE"]))
    try:
        note(f"do {call.key}")
        writer.write(orjson.dumps({"pid": os.getpid(), "key": call.key}) + b"\n")
        await reader.readline()
    finally:
        writer.close()
    return {"made": call.input["part"]}


PIECES = 4


async def make_in_pieces(call: ActionCall) -> dict[str, Any]:
    """Goes on after the last piece that it has recorded."""
    for piece in range(call.progress or 0, PIECES):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["FAULTS_OUTSIDE"]))
        try:
            writer.write(orjson.dumps({"pid": os.getpid(), "key": f"{call.key}#{piece}"}) + b"\n")
            await reader.readline()
        finally:
            writer.close()
        note(f"piece {call.key}#{piece}")
        await call.record(piece + 1)
    return {"made": call.input["part"]}


def unmake(call: ActionCall) -> dict[str, Any]:
    note(f"undo {call.key} {orjson.dumps(call.receipt).decode()}")
    places.reached("undo")
    return {}


@saga("fault-order", version=1, on="faults.OrderPlacedV1")
async def order(run: Run, placed: dict[str, Any]) -> dict[str, Any]:
    await run.state("Making")
    for part in (1, 2, 3):
        action: Perform = make
        if part == 2 and (placed.get("held") or placed.get("pieces")):
            action = make_in_pieces if placed.get("pieces") else make_outside
        await run.step(f"part-{part}", action, undo=unmake, retry=ONCE, part=part, spoiled=placed.get("spoiled"))
    if placed.get("rests"):
        await run.sleep("rest", placed["rests"])
    if placed.get("parcel"):
        retry, limit = (PATIENT, 4.0) if placed.get("patient") else (ONCE, None)
        await run.step("parcel", "parcels.send_parcel", retry=retry, timeout_seconds=limit, order_id=placed["order_id"])
    return {"order_id": placed["order_id"]}
