"""A product of its own: a shop. Its module opens a storefront for each tenant, and reserves and ships what is ordered.

Nothing here knows the engine; `shop.json` beside it makes the product's workflows of it.
"""

from __future__ import annotations

from contracts.manifest import (
    AnswerModel,
    Command,
    CommandModel,
    Event,
    EventModel,
    FailureModel,
    Module,
    Query,
    QueryModel,
    UndoModel,
)
from contracts.sdk import Call, Database, Question, Service, Transport, Tx


class OrderPlacedV1(EventModel):
    order_id: str
    item: str


class OrderPaidV1(EventModel):
    order_id: str


class StorefrontOpenedV1(EventModel):
    address: str


class StorefrontClosedV1(EventModel):
    address: str | None = None


class StockReservedV1(EventModel):
    reservation_id: str


class StockReleasedV1(EventModel):
    reservation_id: str | None = None


class OrderShippedV1(EventModel):
    order_id: str


class ShopBusyV1(FailureModel):
    """Try again."""


class ShopRefusedV1(FailureModel):
    """No retry will help."""


class OpenStorefrontV1(CommandModel):
    name: str


class CloseStorefrontV1(UndoModel[OpenStorefrontV1, StorefrontOpenedV1]):
    pass


class ReserveStockV1(CommandModel):
    order_id: str
    item: str


class ReleaseStockV1(UndoModel[ReserveStockV1, StockReservedV1]):
    pass


class ShipOrderV1(CommandModel):
    """A parcel that has left does not come back."""

    order_id: str


class GetShopV1(QueryModel):
    pass


class ShopV1(AnswerModel):
    address: str | None = None
    reserved: int = 0


def _command(model: type[CommandModel], success: type[EventModel], undo: str | None = None) -> Command:
    return Command(
        model,
        success=success,
        failures=(ShopBusyV1,),
        irrecoverable=(ShopRefusedV1,),
        undo=undo,
        coverage="retriable" if undo is None else "compensatable",
    )


_ORDER = {"order": "/order_id"}

MODULE = Module(
    name="shop",
    version="1.0.0",
    events=(Event(OrderPlacedV1, keys=_ORDER), Event(OrderPaidV1, keys=_ORDER), Event(OrderShippedV1, keys=_ORDER)),
    commands=(
        _command(OpenStorefrontV1, StorefrontOpenedV1, undo="CloseStorefrontV1"),
        _command(CloseStorefrontV1, StorefrontClosedV1),
        _command(ReserveStockV1, StockReservedV1, undo="ReleaseStockV1"),
        _command(ReleaseStockV1, StockReleasedV1),
        Command(ShipOrderV1, success=OrderShippedV1, failures=(ShopBusyV1,), coverage="pivot"),
    ),
    queries=(Query(GetShopV1, answer=ShopV1),),
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS storefronts (tenant text PRIMARY KEY, address text NOT NULL);
CREATE TABLE IF NOT EXISTS stock (
  tenant text NOT NULL, reservation_id text NOT NULL, PRIMARY KEY (tenant, reservation_id)
);
"""


def make(transport: Transport, database: Database) -> Service:
    service = Service(MODULE, transport=transport, database=database, schemas=(SCHEMA,))
    service.handles(OpenStorefrontV1)(open_storefront)
    service.handles(CloseStorefrontV1)(close_storefront)
    service.handles(ReserveStockV1)(reserve)
    service.handles(ReleaseStockV1)(release)
    service.handles(ShipOrderV1)(ship)
    service.answers(GetShopV1)(get_shop)
    return service


async def open_storefront(command: OpenStorefrontV1, call: Call, tx: Tx) -> StorefrontOpenedV1:
    address = f"https://{call.tenant}.shop.example"
    await tx.run(
        "INSERT INTO storefronts (tenant, address) VALUES ($1, $2) ON CONFLICT DO NOTHING", call.tenant, address
    )
    return StorefrontOpenedV1(address=address)


async def close_storefront(command: CloseStorefrontV1, call: Call, tx: Tx) -> StorefrontClosedV1:
    if command.receipt is None:
        return StorefrontClosedV1()
    await tx.run("DELETE FROM storefronts WHERE tenant = $1", call.tenant)
    return StorefrontClosedV1(address=command.receipt.address)


async def reserve(command: ReserveStockV1, call: Call, tx: Tx) -> StockReservedV1:
    reservation = call.new_id("res")
    await tx.run("INSERT INTO stock (tenant, reservation_id) VALUES ($1, $2)", call.tenant, reservation)
    return StockReservedV1(reservation_id=reservation)


async def release(command: ReleaseStockV1, call: Call, tx: Tx) -> StockReleasedV1:
    if command.receipt is None:
        return StockReleasedV1()
    reservation = command.receipt.reservation_id
    await tx.run("DELETE FROM stock WHERE tenant = $1 AND reservation_id = $2", call.tenant, reservation)
    return StockReleasedV1(reservation_id=reservation)


async def ship(command: ShipOrderV1, call: Call, tx: Tx) -> OrderShippedV1:
    return OrderShippedV1(order_id=command.order_id)


async def get_shop(query: GetShopV1, question: Question, tx: Tx) -> ShopV1:
    found = await tx.row("SELECT address FROM storefronts WHERE tenant = $1", question.tenant)
    count = await tx.row("SELECT count(*) AS reserved FROM stock WHERE tenant = $1", question.tenant)
    assert count is not None
    return ShopV1(address=None if found is None else found["address"], reserved=count["reserved"])
