"""What became of an event, as an operator is told: what it started, woke or answered, and why another did nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from contracts.envelope import Envelope
from scripts.reach import Refused
from tests.stories.house import House, Record, Stack, until

SIGNUP = {"signup_id": "s-1", "email": "bob@customer.example", "name": "Bob"}


async def explained(house: House, event: str, tenant: str = "acme", **more: Any) -> Record:
    try:
        found: Record = await house.api.get(f"/v1/events/{event}/explain", tenant=tenant, **more)
    except Refused as refused:
        if refused.document["status"] != 404:
            raise
        return {"type": None}  # it has not come yet
    return found


def fact(kind: str, ident: str, **data: Any) -> Envelope:
    module = kind.partition(".")[0]
    return Envelope(
        id=ident,
        source=f"/modules/{module}",
        type=kind,
        tenantid="acme",
        time=datetime(2030, 1, 1, tzinfo=UTC),
        data=data,
    )


async def test_an_event_tells_what_it_started_woke_or_answered_and_why_it_did_nothing(stack: Stack) -> None:
    async with House(stack) as house:
        await house.ear.send(fact("crm.SignupRequestedV1", "signup-1", **SIGNUP), copies=2)
        page = await until(lambda: house.api.get("/v1/runs", tenant="acme"), lambda found: bool(found["items"]))
        run = page["items"][0]["run_id"]
        await house.until_state(run, "AwaitingConfirmation")

        told = await explained(house, "signup-1")
        [start] = told["starts"]
        assert (start["workflow"], start["run_id"], told["woke"], told["answered"]) == (
            "customer-onboarding", run, [], None,
        )  # fmt: skip
        assert told["sentence"] == f"It started run {run} of customer-onboarding."
        assert told["received_at"] is not None

        [made] = house.ear.events("identity.UserCreatedV1", tenant="acme")
        told = await explained(house, made.id)
        assert told["answered"] == {"run_id": run, "step": "create-account", "undo": False}
        assert told["sentence"].endswith(f"It answered step 'create-account' of run {run}.")

        account = made.data["user_id"]
        await house.order("acme", "identity.ConfirmEmailV1", user_id=account)
        await house.until_state(run, "AwaitingPayment")
        [confirmed] = house.ear.events("identity.EmailConfirmedV1", tenant="acme")
        told = await explained(house, confirmed.id)
        assert [(one["run_id"], one["wait"]) for one in told["woke"]] == [(run, "mail-confirmed")]
        assert f"It woke run {run}, which waited in 'mail-confirmed'." in told["sentence"]

        # Nobody waits for a second confirmation; a changed body under a known id; what was never sent; by hand.
        again = fact("identity.EmailConfirmedV1", "again", **confirmed.data)
        await house.ear.send(again)
        told = await until(lambda: explained(house, "again"), lambda one: one["type"] is not None)
        assert told["starts"] == told["woke"] == []
        assert told["sentence"] == (
            "It started nothing: no workflow here is started by identity.EmailConfirmedV1. "
            "No run was waiting for it by its user, email."
        )
        await house.ear.send(fact("crm.SignupRequestedV1", "signup-1", **{**SIGNUP, "name": "Eve"}))
        letter = await house.until_letter(reason="duplicate_mismatch")
        told = await explained(house, "signup-1", source="/modules/crm")
        assert told["dead_letters"] == [{"id": letter["id"], "reason": "duplicate_mismatch", "state": "dead"}]
        await house.ear.send_raw("crm.SignupRequestedV1", fact("crm.SignupRequestedV1", "empty").to_json())
        await house.until_letter(event_id="empty")
        told = await explained(house, "empty")
        assert told["sentence"] == "It became a dead letter (payload_invalid): nothing was started or woken by it."
        for tenant, event in (("acme", "never"), ("globex", "signup-1")):
            code, _, complaint = await house.cli_raw("explain-event", event, "--tenant", tenant)
            assert code == 3
            assert "never came, or came before the journal begins" in complaint

        by_hand = await house.start("direct-command", "acme", {"type": "crm.NoSuchV1", "data": {}}, key="by-hand")
        begun = f"It started run {by_hand} of direct-command."
        await until(lambda: explained(house, "manual%2Fby-hand"), lambda one: one["sentence"] == begun)

        shown = await house.cli("explain-event", "signup-1", "--tenant", "acme")
        assert shown["sentence"] == f"It started run {run} of customer-onboarding."
