"""What the engine's own worlds do: a module whose effects can be counted, and sagas that use every kind of step.

An order's event says how its run goes: which steps fail and how often, whether it waits for a payment, sleeps, or is
given up half-way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from contracts import run_events as ev
from contracts.calls import ActionCall, RetryPolicy
from contracts.manifest import Command, CommandModel, Event, EventModel, FailureModel, Module, UndoModel
from contracts.sdk import Call, Refused, Retryable, Service, Tx
from contracts.sdk.database import Database
from contracts.sdk.transport import Transport
from engine.plan.code import Run, saga
from scripts.simulation.chance import Chance
from scripts.simulation.checks import one_effect_each
from scripts.simulation.play import Ended, Play, Runs, Sent


class OrderPlacedV1(EventModel):
    """`fates` says of each of its reservations: ok, refused, or how many attempts are busy first."""

    order_id: str
    fates: list[str]
    waits: bool = False
    naps: bool = False
    together: bool = False
    helped: str = ""
    """The fate of what another run reserves for this one; empty: nobody helps."""


class OrderPaidV1(EventModel):
    order_id: str


class SoldOutV1(FailureModel):
    """No attempt will ever succeed."""


class BusyV1(FailureModel):
    """Another attempt may succeed."""


class ReservedV1(EventModel):
    order_id: str
    part: int


class ReleasedV1(EventModel):
    order_id: str


class ReserveV1(CommandModel):
    order_id: str
    part: int
    fate: str


class ReleaseV1(UndoModel[ReserveV1, ReservedV1]):
    """Gives a reservation back."""


TENANTS: Final = ("acme", "globex")
ORDERS: Final = (1, 3)
_KEYS: Final = {"order": "/order_id"}
MODULE: Final = Module(
    name="stock",
    version="1.0.0",
    events=tuple(Event(model, keys=_KEYS) for model in (OrderPlacedV1, OrderPaidV1, ReservedV1, ReleasedV1)),
    commands=(
        Command(
            ReserveV1, success=ReservedV1, failures=(BusyV1,), irrecoverable=(SoldOutV1,), undo="ReleaseV1",
            timeout_seconds=3.0, retry=RetryPolicy(attempts=6, delay_seconds=0.3, jitter=0),
        ),
        Command(
            ReleaseV1, success=ReleasedV1, failures=(BusyV1,), coverage="retriable", timeout_seconds=3.0,
            retry=RetryPolicy(attempts=40, delay_seconds=0.3, max_delay_seconds=4.0, jitter=0),
        ),
    ),
)  # fmt: skip
PLACED: Final = "stock.OrderPlacedV1"
PAID: Final = "stock.OrderPaidV1"
RESERVE: Final = "stock.ReserveV1"

EFFECTS: Final = """
CREATE TABLE IF NOT EXISTS effects (
  place integer PRIMARY KEY,
  key text NOT NULL,
  done text NOT NULL,
  order_id text NOT NULL,
  part integer NOT NULL
);
CREATE TABLE IF NOT EXISTS busy (key text PRIMARY KEY, times integer NOT NULL);
"""


def make_module(transport: Transport, database: Database, busy: dict[str, int]) -> Service:
    """The module. `busy` outlives its processes: how often each order was refused for a while."""
    service = Service(
        MODULE, transport=transport, database=database, schemas=(EFFECTS,), relay_lease_seconds=2.0, drain_seconds=1.0
    )

    @service.handles(ReserveV1)
    async def reserve(command: ReserveV1, call: Call, tx: Tx) -> ReservedV1:
        if command.fate == "refused":
            raise Refused("sold_out")
        order = f"{call.tenant}/{command.order_id}/{command.part}"
        if command.fate.isdigit() and busy.get(order, 0) < int(command.fate):
            busy[order] = busy.get(order, 0) + 1
            raise Retryable("busy")
        await _effect(tx, call.key, "do", command.order_id, command.part)
        return ReservedV1(order_id=command.order_id, part=command.part)

    @service.handles(ReleaseV1)
    async def release(command: ReleaseV1, call: Call, tx: Tx) -> ReleasedV1:
        if command.receipt is not None:
            await _effect(tx, call.key, "undo", command.input.order_id, command.input.part)
        return ReleasedV1(order_id=command.input.order_id)

    return service


async def _effect(tx: Tx, key: str, done: str, order: str, part: int) -> None:
    await tx.run("INSERT INTO effects (key, done, order_id, part) VALUES ($1, $2, $3, $4)", key, done, order, part)


def place_orders(chance: Chance) -> Iterator[Sent]:
    """One to three orders, some of them with a payment, which may come before anybody waits for it."""
    for number in range(chance.number(*ORDERS)):
        tenant, order_id = chance.pick(TENANTS), f"o-{number}"
        placed = OrderPlacedV1(
            order_id=order_id,
            fates=[chance.pick(("ok", "ok", "ok", "1", "2", "refused")) for _ in range(chance.number(1, 3))],
            waits=chance.below(0.4),
            naps=chance.below(0.3),
            together=chance.below(0.4),
            helped=chance.pick(("", "", "", "ok", "1", "refused")),
        )
        events: list[EventModel] = [placed]
        if placed.waits and chance.below(0.7):
            events.append(OrderPaidV1(order_id=order_id))
            if chance.below(0.3):
                events.reverse()
        yield from (Sent(event, tenant, order_id) for event in events)


JOTTED: Final[list[tuple[str, str]]] = []
"""What local actions did, as (key, what): attempted at least once, always under the same key."""


def jot(call: ActionCall) -> dict[str, Any]:
    JOTTED.append((call.key, "do"))
    return {"line": call.key}


def unjot(call: ActionCall) -> None:
    JOTTED.append((call.key, "undo"))


PIECES: Final = 3


async def jot_in_pieces(call: ActionCall) -> dict[str, Any]:
    """Goes on after the last piece that it has recorded."""
    for piece in range(call.progress or 0, PIECES):
        await call.record(piece + 1)
    return {"line": call.key}


@saga("order", version=1, on=PLACED)
async def order(run: Run, placed: Any) -> Any:
    await run.step("jot", jot, undo=unjot)
    if placed["naps"]:
        await run.sleep("nap", 0.8)
    if placed["waits"]:
        paid = await run.wait_for("paid", PAID, key=("order", placed["order_id"]), timeout_seconds=1.5)
        if paid is None:
            return "unpaid"
    if placed["helped"]:
        await run.child("help", "helper", {"order_id": placed["order_id"], "fate": placed["helped"]})
    parts = [
        run.step(f"reserve-{part}", "stock.reserve", order_id=placed["order_id"], part=part, fate=fate)
        for part, fate in enumerate(placed["fates"])
    ]
    if placed["together"]:
        await run.gather(*parts)
    else:
        for part in parts:
            await part
    await run.step("jot-again", jot, undo=unjot)
    return "placed"


@saga("helper", version=1)
async def helper(run: Run, given: Any) -> Any:
    """A child: one reservation, beyond those of the order itself."""
    return await run.step("reserve", "stock.reserve", order_id=given["order_id"], part=9, fate=given["fate"])


@saga("echo", version=1, on=PLACED)
async def echo(run: Run, placed: Any) -> Any:
    line = await run.step("jot", jot_in_pieces, undo=None)
    if placed["naps"] and "again" not in placed:
        raise run.continue_as({**placed, "again": True})
    return line


SAGAS: Final = (order, helper, echo)


def laws(runs: Runs, ended: Ended) -> list[str]:
    """One effect per key in the module's ledger, and none left of a run that unwound; each piece of a long step is
    recorded once, by whoever has the step.
    """
    found = []
    for (_, run), log in runs.items():
        pieces = [event.progress for event in log if isinstance(event, ev.StepProgressed)]
        if pieces != list(range(1, len(pieces) + 1)):
            found.append(f"H: the step of run {run} recorded its pieces as {pieces}")
    rows = ended.rows(MODULE.name, "SELECT key, done FROM effects ORDER BY place")
    effects = [(row["key"], row["done"]) for row in rows]
    return found + one_effect_each(effects, runs)


BUSY: Final[dict[str, int]] = {}
"""How often each order was refused for a while, which outlives the module's processes."""


def _forget() -> None:
    JOTTED.clear()
    BUSY.clear()


PLAY: Final = Play(
    sagas=SAGAS,
    services=(lambda transport, database: make_module(transport, database, BUSY),),
    events=place_orders,
    begin=_forget,
    laws=laws,
)
