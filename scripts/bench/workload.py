"""What measured runs are, as a module's developer would declare them. Workload A: a trigger event of about 400 bytes
and a saga of five no-op local steps. B: the same with five commands to a module. D: a saga that waits for its payment.
Loaded by the measured engine (`scripts.bench.engine`) and by the load generators (`scripts.bench.load`,
`scripts.bench.waiting`)."""

from __future__ import annotations

from typing import Any, Final

from contracts.calls import ActionCall
from contracts.manifest import Command, CommandModel, Event, EventModel, Message, Module
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


class OrderHeldV1(EventModel):
    """An order that waits for its payment, at most so long."""

    order_id: str
    seconds: float


class OrderPaidV1(EventModel):
    order_id: str


class OrderShippedV1(OrderPlacedV1):
    """An order whose steps another process does."""


class HandleOrderV1(CommandModel):
    order_id: str
    step: int


class OrderHandledV1(EventModel):
    order_id: str


_KEYS: Final = {"order": "/order_id"}
MODULE: Final = Module(
    name="bench",
    version="1.0.0",
    events=tuple(
        Event(model, keys=_KEYS) for model in (OrderPlacedV1, OrderHeldV1, OrderPaidV1, OrderShippedV1, OrderHandledV1)
    ),
    commands=(Command(HandleOrderV1, success=OrderHandledV1, coverage="retriable", ambiguous="park"),),
)
TRIGGER: Final = "bench.OrderPlacedV1"
HELD: Final = "bench.OrderHeldV1"
PAID: Final = "bench.OrderPaidV1"
SHIPPED: Final = "bench.OrderShippedV1"


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


@saga("bench-held", version=1, on=HELD)
async def hold_order(run: Run, held: Any) -> Any:
    paid = await run.wait_for("paid", PAID, key=("order", held["order_id"]), timeout_seconds=held["seconds"])
    return "lapsed" if paid is None else "paid"


@saga("bench-remote", version=1, on=SHIPPED)
async def ship_order(run: Run, placed: Any) -> Any:
    receipt = None
    for number in range(STEPS):
        receipt = await run.step(
            f"step-{number}", "bench.handle_order", undo=None, order_id=placed["order_id"], step=number
        )
    return receipt


SAGAS: Final = (place_order, hold_order, ship_order)
