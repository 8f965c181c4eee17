"""A module that keeps a shelf and takes money, and the saga that ships an order with both or with neither.
`test_parcels.py` beside it plays them in worlds that fall apart."""

from typing import Any

from contracts.manifest import Command, CommandModel, Event, EventModel, FailureModel, Module, UndoModel
from contracts.sdk import Call, Database, Refused, Service, Transport, Tx
from engine.plan.code import Run, saga


class OrderedV1(EventModel):
    order_id: str
    card: str


class ReservedV1(EventModel):
    order_id: str


class ReleasedV1(EventModel):
    order_id: str


class ChargedV1(EventModel):
    order_id: str


class DeclinedV1(FailureModel):
    """No other attempt will do better."""


class ReserveV1(CommandModel):
    order_id: str


class ReleaseV1(UndoModel[ReserveV1, ReservedV1]):
    """Back from the shelf."""


class ChargeV1(CommandModel):
    order_id: str
    card: str


MODULE = Module(
    name="parcels",
    version="1.0.0",
    events=tuple(Event(model) for model in (OrderedV1, ReservedV1, ReleasedV1, ChargedV1)),
    commands=(
        Command(ReserveV1, success=ReservedV1, undo="ReleaseV1"),
        Command(ReleaseV1, success=ReleasedV1, coverage="retriable"),
        Command(ChargeV1, success=ChargedV1, irrecoverable=(DeclinedV1,), coverage="pivot"),
    ),
)
SHELF = "CREATE TABLE IF NOT EXISTS shelf (tenant text, order_id text)"


def parcels(transport: Transport, database: Database) -> Service:
    service = Service(MODULE, transport=transport, database=database, schemas=(SHELF,))

    @service.handles(ReserveV1)
    async def reserve(command: ReserveV1, call: Call, tx: Tx) -> ReservedV1:
        await tx.run("INSERT INTO shelf VALUES ($1, $2)", call.tenant, command.order_id)
        return ReservedV1(order_id=command.order_id)

    @service.handles(ReleaseV1)
    async def release(command: ReleaseV1, call: Call, tx: Tx) -> ReleasedV1:
        order_id = command.input.order_id
        await tx.run("DELETE FROM shelf WHERE tenant = $1 AND order_id = $2", call.tenant, order_id)
        return ReleasedV1(order_id=order_id)

    @service.handles(ChargeV1)
    async def charge(command: ChargeV1, call: Call, tx: Tx) -> ChargedV1:
        if command.card == "empty":
            raise Refused("declined")
        return ChargedV1(order_id=command.order_id)

    return service


@saga("shipping", version=1, on="parcels.OrderedV1")
async def shipping(run: Run, order: Any) -> None:
    await run.step("reserve", "parcels.reserve", undo="parcels.release", order_id=order["order_id"])
    await run.step("charge", "parcels.charge", order_id=order["order_id"], card=order["card"])
