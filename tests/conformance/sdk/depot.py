"""A small module as its developer would write it, for the SDK's tests: it reserves stock. Also a process of its own:

python tests/conformance/sdk/depot.py BUS_URL DATABASE_URL [die-after-commit | die-in-handler]
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

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
from contracts.sdk import Call, Question, Refused, Retryable, Service, Transport, Tx, open_database, open_transport
from contracts.sdk.database import Database


class ReservedV1(EventModel):
    reservation_id: str
    item: str


class ReleasedV1(EventModel):
    reservation_id: str | None = None


class StockLowV1(EventModel):
    item: str


class OutOfStockV1(FailureModel):
    pass


class DepotBusyV1(FailureModel):
    pass


class ReserveV1(CommandModel):
    item: str
    quantity: int = 1


class ReleaseV1(UndoModel[ReserveV1, ReservedV1]):
    pass


class ShipV1(CommandModel):
    item: str


class ShippedV1(EventModel):
    item: str


class CountReservationsV1(QueryModel):
    item: str


class ReservationCountV1(AnswerModel):
    count: int


class StockArrivedV1(EventModel):
    item: str


SUPPLIER = Module(name="supplier", version="1.0.0", events=(Event(StockArrivedV1),))

DEPOT = Module(
    name="depot",
    version="1.0.0",
    events=(Event(StockLowV1, keys={"item": "/item"}),),
    commands=(
        Command(
            ReserveV1, success=ReservedV1, failures=(DepotBusyV1,), irrecoverable=(OutOfStockV1,), undo="ReleaseV1"
        ),
        Command(ReleaseV1, success=ReleasedV1, coverage="retriable"),
        Command(ShipV1, success=ShippedV1, failures=(DepotBusyV1,), coverage="pivot"),
    ),
    queries=(Query(CountReservationsV1, answer=ReservationCountV1),),
)

TABLES = """
CREATE TABLE IF NOT EXISTS reservations (
  tenant text NOT NULL, reservation_id text NOT NULL, item text NOT NULL, quantity integer NOT NULL,
  PRIMARY KEY (tenant, reservation_id)
);
CREATE TABLE IF NOT EXISTS effects (tenant text NOT NULL, what text NOT NULL);
"""


class Depot:
    """The module and what its test wants to steer: `hooks` run inside a handler, by item."""

    def __init__(self, transport: Transport, database: Database, **options: Any) -> None:
        self.hooks: dict[str, Callable[[Call], Any]] = {}
        self.calls: list[str] = []
        self.service = Service(DEPOT, transport=transport, database=database, schemas=(TABLES,), **options)
        self.service.handles(ReserveV1)(self.reserve)
        self.service.handles(ReleaseV1)(self.release)
        self.service.performs(ShipV1)(self.ship)
        self.service.answers(CountReservationsV1)(self.count)
        self.service.on(SUPPLIER, StockArrivedV1)(self.stock_arrived)

    async def _hook(self, item: str, call: Call) -> None:
        self.calls.append(item)
        if item in self.hooks:
            result = self.hooks[item](call)
            if result is not None:
                await result

    async def reserve(self, command: ReserveV1, call: Call, tx: Tx) -> EventModel:
        identity = call.new_id("res")
        await tx.run(
            "INSERT INTO reservations (tenant, reservation_id, item, quantity) VALUES ($1, $2, $3, $4)",
            call.tenant,
            identity,
            command.item,
            command.quantity,
        )
        await tx.run("INSERT INTO effects (tenant, what) VALUES ($1, $2)", call.tenant, f"reserve {command.item}")
        await self._hook(command.item, call)
        if command.item == "unicorn":
            raise Refused("out_of_stock", "there are none")
        if command.item == "busy":
            raise Retryable("busy", "come back later")
        if command.quantity > 5:
            call.publish(StockLowV1(item=command.item))
        return ReservedV1(reservation_id=identity, item=command.item)

    async def release(self, command: ReleaseV1, call: Call, tx: Tx) -> ReleasedV1:
        if command.receipt is None:
            return ReleasedV1()
        await tx.run(
            "DELETE FROM reservations WHERE tenant = $1 AND reservation_id = $2",
            call.tenant,
            command.receipt.reservation_id,
        )
        await tx.run("INSERT INTO effects (tenant, what) VALUES ($1, $2)", call.tenant, "release")
        return ReleasedV1(reservation_id=command.receipt.reservation_id)

    async def ship(self, command: ShipV1, call: Call) -> ShippedV1:
        await self._hook(command.item, call)
        async with self.service.database.transaction() as tx:
            await tx.run("INSERT INTO effects (tenant, what) VALUES ($1, $2)", call.tenant, f"ship {command.item}")
        return ShippedV1(item=command.item)

    async def count(self, query: CountReservationsV1, question: Question, tx: Tx) -> ReservationCountV1:
        await self._hook(query.item, None)  # type: ignore[arg-type]
        row = await tx.row(
            "SELECT count(*) AS n FROM reservations WHERE tenant = $1 AND item = $2", question.tenant, query.item
        )
        assert row is not None
        return ReservationCountV1(count=row["n"])

    async def stock_arrived(self, fact: StockArrivedV1, call: Call, tx: Tx) -> None:
        await tx.run("INSERT INTO effects (tenant, what) VALUES ($1, $2)", call.tenant, f"arrived {fact.item}")
        await self._hook(fact.item, call)

    async def effects(self, tenant: str = "acme") -> list[str]:
        async with self.service.database.transaction() as tx:
            rows = await tx.rows("SELECT what FROM effects WHERE tenant = $1", tenant)
        return [row["what"] for row in rows]


async def main(bus: str, database: str, fault: str) -> None:
    depot = Depot(open_transport(bus, name="depot"), open_database(database), relay_lease_seconds=1.0)

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if fault == "die-after-commit":
        depot.service.relay.hand_over = die  # type: ignore[method-assign, assignment]
    if fault == "die-in-handler":
        depot.hooks["poison"] = die
    announced = asyncio.create_task(_announce(depot))
    await depot.service.run()
    await announced


async def _announce(depot: Depot) -> None:
    await depot.service.until_ready()
    print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""))
