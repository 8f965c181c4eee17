"""A trip is booked everywhere or nowhere. Twenty lines; `test_booking.py` beside it tests them under virtual time."""

from typing import Any

from engine.plan.code import Run, saga


@saga("booking", version=1, on="travel.TripOrderedV1", timeout_seconds=3 * 24 * 3600)
async def booking(run: Run, trip: dict[str, Any]) -> dict[str, Any]:
    flight, hotel = await run.gather(
        run.step("flight", "flights.book", undo="flights.cancel", route=trip["route"]),
        run.step("hotel", "hotels.book", undo="hotels.cancel", city=trip["city"]),
    )
    if flight["price"] + hotel["price"] > trip["budget"]:
        answer = await run.approve("over-budget", "This trip costs more than planned", timeout_seconds=24 * 3600)
        if not answer["approved"]:
            raise run.fail("too_expensive")
    await run.step("payment", "payments.charge", undo="payments.refund", amount=flight["price"] + hotel["price"])
    await run.state("Booked")
    return {"flight": flight["id"], "hotel": hotel["id"]}
