"""Small sagas, each for one thing a run can do."""

from __future__ import annotations

from typing import Any

from engine.plan.code import Run, StepFailed, saga
from tests.pure.run.telling import ONCE, THRICE, do, undo_it


@saga("three", version=1)
async def three(run: Run, data: Any) -> Any:
    for name in ("one", "two", "three"):
        await run.step(name, do, undo=undo_it, retry=ONCE)
    return "all done"


@saga("abreast", version=1)
async def abreast(run: Run, data: Any) -> Any:
    await run.gather(run.step("left", do, undo=undo_it, retry=THRICE), run.step("right", do, undo=undo_it, retry=ONCE))
    await run.step("last", do, undo=undo_it, retry=ONCE)


@saga("stubborn", version=1)
async def stubborn(run: Run, data: Any) -> Any:
    return await run.step("try", do, undo=undo_it, retry=THRICE, timeout_seconds=10)


@saga("patient", version=1, on_failure="park", parked_state="Stuck")
async def patient(run: Run, data: Any) -> Any:
    await run.state("Working")
    await run.step("before", do, undo=undo_it)
    answer = await run.step("try", do, undo=undo_it, retry=ONCE)
    await run.state("Ready")
    return answer


@saga("pair", version=1, on_failure="park")
async def pair(run: Run, data: Any) -> Any:
    await run.gather(_chain(run, "a"), _chain(run, "b"))


async def _chain(run: Run, name: str) -> None:
    await run.step(f"{name}1", do, undo=undo_it, retry=ONCE)
    await run.step(f"{name}2", do, undo=undo_it, retry=ONCE)


@saga("lenient", version=1)
async def lenient(run: Run, data: Any) -> Any:
    await run.step("before", do, undo=undo_it)
    try:
        return await run.step("try", do, undo=undo_it, retry=ONCE, on_failure="continue")
    except StepFailed as failed:
        return {"instead": failed.error["code"]}


@saga("timed", version=1, timeout_seconds=60)
async def timed(run: Run, data: Any) -> Any:
    await run.step("before", do, undo=undo_it)
    await run.wait_for("paid", "billing.PaidV1", key=("order", "7"))


@saga("timed-parking", version=1, timeout_seconds=60, on_failure="park")
async def timed_parking(run: Run, data: Any) -> Any:
    await run.step("before", do, undo=undo_it, retry=ONCE)
    await run.wait_for("paid", "billing.PaidV1", key=("order", "7"))
    return "paid"


@saga("waiting", version=1)
async def waiting(run: Run, data: Any) -> Any:
    return await run.wait_for("paid", "billing.PaidV1", key=("order", 7), timeout_seconds=60)


@saga("looping", version=1)
async def looping(run: Run, data: Any) -> Any:
    return [await run.wait_for("tick", "clock.TickedV1", key=("clock", "c")) for _ in range(3)]


@saga("approving", version=1)
async def approving(run: Run, data: Any) -> Any:
    return await run.approve("check", "Look at it", role="boss", context={"amount": 5}, timeout_seconds=60)


@saga("sleepy", version=1)
async def sleepy(run: Run, data: Any) -> Any:
    await run.sleep("nap", 60)
    return await run.step("after", do)


@saga("long-way", version=1)
async def long_way(run: Run, data: Any) -> Any:
    """Something of everything that a rerun can be told."""
    number = await run.uuid("number")
    await run.step("one", do, undo=undo_it, retry=ONCE, number=number)
    paid = await run.wait_for("paid", "billing.PaidV1", key=("order", "1"), timeout_seconds=60)
    answer = await run.approve("check", "Look at it", timeout_seconds=60)
    if not answer["approved"]:
        raise run.fail("refused")
    await run.sleep("nap", 60)
    two = await run.step("two", do, undo=undo_it, retry=ONCE, paid=paid)
    await run.step("three", do, undo=undo_it, retry=ONCE, two=two)
    return "arrived"


@saga("rolling", version=1)
async def rolling(run: Run, data: Any) -> Any:
    """A loop without an end, a pass a run."""
    await run.step("pass", do, undo=undo_it, retry=ONCE)
    if data["left"]:
        raise run.continue_as({**data, "left": data["left"] - 1})
    return "rolled"


@saga("parental", version=1)
async def parental(run: Run, data: Any) -> Any:
    grown = await run.child("child", "three", {"email": "ann@example.org"})
    return await run.step("after", do, undo=undo_it, retry=ONCE, grown=grown)


@saga("values", version=1)
async def values(run: Run, data: Any) -> Any:
    first = [await run.now(), await run.uuid(), await run.random()]
    await run.step("one", do)
    return [*first, await run.now(), await run.uuid(), await run.random()]


@saga("personal", version=1, attributes={"email": "/email"})
async def personal(run: Run, data: Any) -> Any:
    account = await run.step("account", do, undo=undo_it, retry=ONCE, email=data["email"], plan=data["plan"])
    await run.wait_for("confirmed", "identity.ConfirmedV1", key=("mail", data["email"]))
    answer = await run.approve("check", "Look", context={"who": data["email"]})
    return {"told": f"dear {data['email']}", "account": account, "by": answer["by"]}


@saga("blunt", version=1)
async def blunt(run: Run, data: Any) -> Any:
    await run.step("one", do, retry=ONCE, on_failure="park")
    raise run.fail("unwanted", f"{data['email']} is not wanted")


@saga("everything", version=1, timeout_seconds=3600, on_failure="park", parked_state="Stuck")
async def everything(run: Run, data: Any) -> Any:
    """A bit of everything, small enough to search all of its states."""
    await run.state("Begun")
    try:
        await run.step("soft", do, undo=undo_it, retry=ONCE, on_failure="continue")
    except StepFailed:
        await run.sleep("nap", 5)
    await run.gather(
        run.step("hard", do, undo=undo_it, retry=THRICE),
        run.wait_for("fact", "billing.PaidV1", key=("order", "1"), timeout_seconds=30),
    )
    answer = await run.approve("check", "Look", timeout_seconds=30)
    if not answer["approved"]:
        raise run.fail("refused")
    await run.step("last", do, undo=undo_it, retry=ONCE, on_failure="compensate")
    return "done"
