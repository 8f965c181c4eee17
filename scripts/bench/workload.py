"""Workload A: what every measured run is. A trigger event of about 400 bytes and a saga of five no-op local steps, as
a module's developer would declare them. Loaded by the measured engine (`scripts.bench.engine`) and by the load
generator (`scripts.bench.load`)."""

from __future__ import annotations

from typing import Any, Final

from contracts.calls import ActionCall
from contracts.manifest import Event, EventModel, Message, Module
from engine.plan.code import Run, saga

STEPS: Final = 5
EVENTS_PER_RUN: Final = 2 + 2 * STEPS
TENANT: Final = "bench"


class OrderLine(Message):
    sku: str
    qty: int
    price: float


class OrderPlacedV1(EventModel):
    order_id: str
    customer: str
    items: list[OrderLine]
    note: str


MODULE: Final = Module(name="bench", version="1.0.0", events=(Event(OrderPlacedV1, keys={"order": "/order_id"}),))
TRIGGER: Final = "bench.OrderPlacedV1"


def order(number: int) -> dict[str, Any]:
    """The data of one trigger event."""
    items = [{"sku": f"sku-{line}", "qty": line, "price": 19.99} for line in range(5)]
    return {"order_id": f"o-{number:08}", "customer": "c-42", "items": items, "note": "x" * 120}


def handle_order(call: ActionCall) -> dict[str, Any]:
    """The no-op step: it answers a receipt and does nothing."""
    return {"ok": True, "order_id": call.input["order"]["order_id"]}


@saga("bench-order", version=1, on=TRIGGER)
async def place_order(run: Run, placed: Any) -> Any:
    receipt = None
    for number in range(STEPS):
        receipt = await run.step(f"step-{number}", handle_order, undo=None, order=placed)
    return receipt


SAGAS: Final = (place_order,)
