"""Sagas and actions of the stories, at module level so that an engine process of its own finds them again."""

from __future__ import annotations

from typing import Any

from contracts.calls import ActionCall, RetryPolicy
from engine.actions.registry import action
from engine.plan.code import Run, StepFailed, saga
from engine.sagas.direct_command import direct_command as direct_command


def explode(call: ActionCall) -> Any:
    """Fails as a programming mistake does, with what it was working on in its text."""
    raise ValueError(f"cannot work on {call.input}")


def note(call: ActionCall) -> dict[str, Any]:
    return {"noted": call.input["text"], "attempt": call.attempt}


@saga("errand", version=1)
async def errand(run: Run, order: dict[str, Any]) -> dict[str, Any]:
    """One call outside, as patiently as the order says."""
    done = await run.step(
        "call",
        "http.request",
        url=order["url"],
        json={"order": order["id"]},
        retry=RetryPolicy(attempts=order.get("attempts", 3), delay_seconds=order.get("delay", 0.2), jitter=0.0),
        timeout_seconds=order.get("limit", 30.0),
    )
    return {"status": done["status"]}


@saga("charge-and-ship", version=1)
async def charge_and_ship(run: Run, order: dict[str, Any]) -> dict[str, Any]:
    """Two calls outside, each tried once; what is charged has no undo."""
    charged = await run.step("charge", "http.request", url=order["charge"], retry=RetryPolicy(attempts=1))
    await run.step("ship", "http.request", url=order["ship"], retry=RetryPolicy(attempts=1))
    return {"charged": charged["status"]}


@saga("forgiving", version=1)
async def forgiving(run: Run, order: dict[str, Any]) -> dict[str, Any]:
    """Goes on without what it could not get."""
    try:
        await run.step("call", "http.request", url=order["url"], on_failure="continue", retry=RetryPolicy(attempts=1))
        said = "got it"
    except StepFailed as failed:
        said = str(failed.error["code"])
    noted = await run.step("note", note, text=said)
    return {"said": noted["noted"]}


@saga("workbench", version=1)
async def workbench(run: Run, order: dict[str, Any]) -> None:
    """Makes a user, takes note, and then breaks: the user is taken back."""
    await run.step("user", "identity.create_user", email=order["email"], name="Eve")
    await run.step("note", note, text="halfway")
    await run.step("break", explode, card=order["card"], retry=RetryPolicy(attempts=2, delay_seconds=0.1))


@saga("slow-signup", version=1, on="crm.SignupRequestedV1")
async def slow_signup(run: Run, signup: dict[str, Any]) -> str:
    """As slow as the company it is told to call."""
    await run.step("call", "http.request", url=signup["company"], timeout_seconds=120.0)
    return "done"


@saga("member", version=1)
async def member(run: Run, data: dict[str, Any]) -> dict[str, Any]:
    """One user, made at once or when somebody has approved it."""
    if data.get("ask"):
        await run.approve("admit", "Admit a member")
    user = await run.step("user", "identity.create_user", email=data["email"], name="Eve")
    return {"user_id": user["user_id"]}


@saga("rolling", version=1)
async def rolling(run: Run, data: dict[str, Any]) -> dict[str, Any]:
    """A loop without an end, a pass a run."""
    noted = await run.step("pass", note, text=f"pass {data['left']}")
    if data["left"]:
        raise run.continue_as({"left": data["left"] - 1})
    return {"last": noted["noted"]}


@saga("rolls", version=1)
async def rolls(run: Run, data: dict[str, Any]) -> dict[str, Any]:
    """Waits for the last of the runs that its child goes on in."""
    return dict(await run.child("roll", "rolling", {"left": 3}))


@saga("household", version=1)
async def household(run: Run, data: dict[str, Any]) -> dict[str, Any]:
    """Members as runs of their own; whoever is not wanted takes all of them away."""
    first = await run.child("first", "member", {"email": data["email"]})
    second = await run.child("second", "member", {"email": f"second-{data['email']}", "ask": True})
    if data.get("unwanted"):
        raise run.fail("unwanted")
    return {"members": [first["user_id"], second["user_id"]]}


@action("workshop.refund", permission="audit.read")
def refund(call: ActionCall) -> dict[str, Any]:
    """What an operator may not do, and an admin may."""
    return {"refunded": call.input["amount"]}


@saga("refunds", version=1, on="crm.SignupRequestedV1")
async def refunds(run: Run, order: dict[str, Any]) -> dict[str, Any]:
    """Gives money back when somebody has said so."""
    await run.approve("say", "Give it back")
    done = await run.step("refund", "workshop.refund", amount=5)
    return {"refunded": done["refunded"]}


@saga("mirrored", version=1)
async def mirrored(run: Run, data: dict[str, Any]) -> dict[str, Any]:
    """Waits for a fact by a key that other tenants have as well, and then orders one command."""
    await run.wait_for("confirmed", "identity.EmailConfirmedV1", key=("user", data["user_id"]))
    user = await run.step("user", "identity.create_user", email=data["email"], name="Eve")
    return {"user_id": user["user_id"]}
