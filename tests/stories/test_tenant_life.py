"""The life of a tenant: every transition that the table holds and none besides, whatever asks for it; suspended,
working again and closed, with everybody who must know knowing it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Final, get_args
from uuid import uuid4

import pytest

from contracts.envelope import Envelope
from contracts.modules import tenancy
from contracts.modules.tenancy import ORDERS, PROVISIONING_STEPS, TRANSITIONS, TenantState, Trigger
from contracts.sdk.transport import COMMANDS_EXCHANGE
from scripts.reach import Api, Refused
from tests.stories.house import House, MovableClock, Record, Stack, until, until_now
from tests.stories.tenants import (
    audit_entries,
    edition_of,
    sign_in_of,
    subscription_of,
    tenant_of,
    through_backoff,
)
from tests.stories.understudy import fact

SUSPENDED, REINSTATED = "tenancy.TenantSuspendedV1", "tenancy.TenantReinstatedV1"
CLOSED = "tenancy.TenantDecommissionedV1"

GIVEN: Final[dict[Trigger, Record]] = {
    "begin": {},
    "complete_step": {"step": "owner"},
    "activate": {"steps": list(PROVISIONING_STEPS)},
    "fail": {"reason": "no card"},
    "suspend": {"reason": "policy"},
    "reinstate": {"reason": "settled"},
    "decommission": {"reason": "they left"},
}
LEADS_TO: Final[dict[TenantState, tuple[Trigger, ...]]] = {
    "Registered": (),
    "Provisioning": ("begin",),
    "Active": ("begin", "activate"),
    "ProvisioningFailed": ("begin", "fail"),
    "Suspended": ("begin", "activate", "suspend"),
    "Decommissioned": ("begin", "activate", "decommission"),
}
REGISTER: Final = {"name": "A tenant", "owner_email": "ann@example.org", "owner_name": "Ann"}
REFUSALS: Final[dict[tuple[TenantState, Trigger], tuple[str, str]]] = {
    ("Suspended", "suspend"): ("tenancy.TenantTransitionRefusedV1", "already_suspended"),
    # The word that its onboarding goes on again may be under way: worth another try, which is refused like the first.
    ("ProvisioningFailed", "activate"): ("tenancy.TenancyUnavailableV1", "provisioning_failed"),
}
"""Cells whose refusal is another than transition_refused."""


class Door:
    """One way to give tenancy an order; both answer (outcome's type, code or None)."""

    def __init__(self, house: House) -> None:
        self.house = house

    async def give(self, tenant: str, kind: str, data: Record) -> tuple[str | None, str | None]:
        raise NotImplementedError


class OverHttp(Door):
    """A direct command: the refusal is the run's error."""

    async def give(self, tenant: str, kind: str, data: Record) -> tuple[str | None, str | None]:
        begun = await self.house.api.post("/v1/commands", {"type": kind, "data": data}, tenant=tenant)
        ended = await self.house.until_status(begun["run_id"], "succeeded", "failed")
        return None, ended["error_code"]


class OverTheBus(Door):
    """A command as any module may send it: the refusal is its answer."""

    async def give(self, tenant: str, kind: str, data: Record) -> tuple[str | None, str | None]:
        command = Envelope(
            id=str(uuid4()),
            source="/modules/crm",
            type=kind,
            tenantid=tenant,
            time=datetime.now(UTC),
            data=data,
            subject=f"order/{uuid4()}",
        )
        await self.house.ear.send(command, exchange=COMMANDS_EXCHANGE)
        heard = await until_now(
            lambda: [event for event in self.house.ear.events(tenant=tenant) if event.causationid == command.id], bool
        )
        return heard[-1].type, heard[-1].data.get("code")


async def _bring_to(door: Door, tenant: str, state: TenantState) -> list[str]:
    """Registers the tenant and takes it there; answers the states on the way."""
    assert (await door.give(tenant, "tenancy.RegisterTenantV1", REGISTER))[1] is None
    states: list[str] = ["Registered"]
    for trigger in LEADS_TO[state]:
        assert (await door.give(tenant, _kind(trigger), GIVEN[trigger]))[1] is None
        states.append((await tenant_of(door.house, tenant)).state or "none")
    assert states[-1] == state
    return states


def _kind(trigger: Trigger) -> str:
    return tenancy.MODULE.type_of(ORDERS[trigger][0])


@pytest.mark.acceptance("H3", "H11")
@pytest.mark.parametrize("way", [OverHttp, OverTheBus])
async def test_of_every_state_and_order_the_ten_transitions_happen_and_all_others_are_refused_by_name(
    stack: Stack, way: type[Door]
) -> None:
    async with House(stack, modules=("tenancy", "audit")) as house:
        door = way(house)

        async def take(state: TenantState, trigger: Trigger) -> None:
            tenant = f"{state}-{trigger.replace('_', '-')}".lower()
            states = await _bring_to(door, tenant, state)
            kind, code = await door.give(tenant, _kind(trigger), GIVEN[trigger])
            assert code is None, (state, trigger, code)
            assert kind in (None, tenancy.MODULE.type_of(ORDERS[trigger][1]))
            await house.until_heard(tenancy.MODULE.type_of(ORDERS[trigger][1]), tenant=tenant)
            states.append(TRANSITIONS[state, trigger])
            assert (await tenant_of(house, tenant)).state == states[-1]
            told = await until(
                lambda: audit_entries(house, tenant, f"tenant/{tenant}"), lambda found: len(found) >= len(states)
            )
            assert [entry.state for entry in told] == states
            assert [entry.previous for entry in told] == [None, *states[:-1]]

        async def refuse(state: TenantState) -> None:
            tenant = f"{state}-stays".lower()
            states = await _bring_to(door, tenant, state)
            told = await until(
                lambda: audit_entries(house, tenant, f"tenant/{tenant}"), lambda found: len(found) >= len(states)
            )
            before = await tenant_of(house, tenant)
            for trigger in get_args(Trigger):
                if (state, trigger) not in TRANSITIONS:
                    expected = REFUSALS.get(
                        (state, trigger), ("tenancy.TenantTransitionRefusedV1", "transition_refused")
                    )
                    kind, code = await door.give(tenant, _kind(trigger), GIVEN[trigger])
                    assert code == expected[1], (state, trigger, code)
                    assert kind in (None, expected[0])
            again = await door.give(tenant, "tenancy.RegisterTenantV1", REGISTER)
            assert again[1] == "tenant_exists"
            assert await tenant_of(house, tenant) == before
            assert await audit_entries(house, tenant, f"tenant/{tenant}") == told
            assert [entry.state for entry in told] == states

        await asyncio.gather(
            *(take(state, trigger) for state, trigger in TRANSITIONS), *(refuse(state) for state in LEADS_TO)
        )


STEPS = {
    "subscription": "billing.CreateSubscriptionV1",
    "entitlements": "configuration.ApplyEntitlementsV1",
    "owner": "identity.InviteUserV1",
    "activation_mail": "notifications.SendNotificationV1",
    "activate": "tenancy.ActivateTenantV1",
}


@pytest.mark.acceptance("H4")
@pytest.mark.parametrize("by", ["command line", "API"])
async def test_after_remediation_a_retry_does_the_failed_step_again_and_no_other_and_the_tenant_is_active(
    stack: Stack, by: str
) -> None:
    clock = MovableClock()
    async with House(stack, clock=clock) as house:
        runs = {}
        for step, command in STEPS.items():
            tenant = f"no-{step.replace('_', '-')}"
            await house.script(tenant, command, "retryable", times=1000)
            runs[step] = await house.register(tenant)
        for step, run in runs.items():
            await through_backoff(house, clock, run, step)
            assert (await house.until_status(run, "parked"))["business_state"] == "ProvisioningFailed"
            tenant = f"no-{step.replace('_', '-')}"
            await house.until_heard("tenancy.TenantProvisioningFailedV1", tenant=tenant)
            assert (await tenant_of(house, tenant)).state == "ProvisioningFailed"
        for step, run in runs.items():
            tenant = f"no-{step.replace('_', '-')}"
            before = await house.steps(run)
            done = {name for name, found in before.items() if found["status"] == "succeeded"}
            await house.script(tenant, STEPS[step], "retryable", times=0)
            if by == "API":
                await house.api.post(f"/v1/runs/{run}/retry")
            else:
                await house.cli("runs", "retry", run)
            assert (await house.until_status(run, "succeeded"))["business_state"] == "Active"
            assert (await tenant_of(house, tenant)).state == "Active"

            after = await house.steps(run)
            assert {name: after[name] for name in done} == {name: before[name] for name in done}
            attempts = {name: len(found["attempts"]) for name, found in after.items()}
            assert attempts.pop(step) == len(before[step]["attempts"]) + 1
            assert set(attempts.values()) == {1}
            asked = [order for order in house.ear.commands(tenant=tenant) if order.subject is not None]
            orders = {order.subject for order in asked if "ScriptFault" not in order.type}
            assert orders == {found["key"] for found in after.values()}
            facts = house.ear.facts(tenant)
            assert facts["billing.SubscriptionActivatedV1"] == facts["identity.UserInvitedV1"] == 1
            assert facts["tenancy.TenantProvisionedV1"] == facts["notifications.NotificationSentV1"] == 1


async def _active(house: House, *tenants: str) -> None:
    """Onboarded, and their owners have come in."""
    runs = {tenant: await house.register(tenant) for tenant in tenants}
    for tenant, run in runs.items():
        owner = (await house.until_status(run, "succeeded"))["output"]["owner_id"]
        await house.order(tenant, "identity.ActivateUserV1", user_id=owner)
        assert (await sign_in_of(house, tenant)).allowed


async def _runs(house: House, tenant: str, workflow: str, status: str = "succeeded") -> list[Record]:
    page = await house.api.get("/v1/runs", tenant=tenant, workflow=workflow, status=status)
    return list(page["items"])


async def _until_ended(house: House, tenant: str, workflow: str, count: int = 1) -> Record:
    """The newest of so many runs of the workflow that have succeeded."""
    ended = await until(lambda: _runs(house, tenant, workflow), lambda found: len(found) >= count)
    return await house.until_status(ended[0]["run_id"], "succeeded")


async def _tried(house: House, tenant: str, kind: str, **data: Any) -> str | None:
    """Gives the order; answers the code with which it is refused."""
    begun = await house.api.post("/v1/commands", {"type": kind, "data": data}, tenant=tenant)
    return str((await house.until_status(begun["run_id"], "failed", "succeeded"))["error_code"] or "") or None


async def _mail(house: House, tenant: str, kind: str = "welcome") -> str | None:
    values = {"name": "Bob", "link": "/confirm"}
    return await _tried(
        house, tenant, "notifications.SendNotificationV1", template=kind, to="bob@example.org", data=values
    )


async def _shut(house: House, tenant: str, code: str) -> None:
    """Nobody signs in, is invited, created or activated, and nothing is sent."""
    await until(lambda: sign_in_of(house, tenant), lambda answer: answer.code == code)
    assert not (await sign_in_of(house, tenant)).allowed
    assert await _tried(house, tenant, "identity.InviteUserV1", email="new@example.org", name="New") == code
    assert await _tried(house, tenant, "identity.CreateUserV1", email="new@example.org", name="New") == code
    assert await _tried(house, tenant, "identity.ActivateUserV1", user_id="anybody") == code
    # Each module hears of it by itself.
    await until(lambda: _mail(house, tenant), lambda refused: refused == code)


async def _open(house: House, tenant: str, who: str) -> None:
    await until(lambda: sign_in_of(house, tenant), lambda answer: answer.allowed)
    assert await _tried(house, tenant, "identity.InviteUserV1", email=who, name="New") is None
    await until(lambda: _mail(house, tenant), lambda refused: refused is None)


async def _told_owner(house: House, tenant: str, subject: str) -> None:
    sink = house.host.sink
    assert sink is not None
    await until_now(
        lambda: [mail for mail in sink.mails if mail.tenant == tenant and mail.subject.endswith(subject)], bool
    )


@pytest.mark.acceptance("H6")
async def test_a_policy_suspends_a_tenant_which_is_shut_until_it_keeps_to_the_policy_again(stack: Stack) -> None:
    async with House(stack) as house:
        await _active(house, "acme", "globex")
        await house.order("acme", "tenancy.ReportViolationV1", policy="fair-use", reason="it mines coins")
        run = await _until_ended(house, "acme", "tenant-suspension")
        assert (run["business_state"], run["trigger"]["type"]) == ("Suspended", "tenancy.PolicyViolatedV1")
        suspended = await tenant_of(house, "acme")
        assert (suspended.state, suspended.holds) == ("Suspended", ["policy/fair-use"])
        await _shut(house, "acme", "tenant_suspended")
        await _told_owner(house, "acme", "is suspended")
        assert (await sign_in_of(house, "globex")).allowed
        assert await _mail(house, "globex") is None

        await house.order("acme", "tenancy.ClearViolationV1", policy="fair-use")
        run = await _until_ended(house, "acme", "tenant-reinstatement")
        assert (run["business_state"], run["output"]) == ("Active", {"active": True, "held_for": []})
        assert (await tenant_of(house, "acme")).state == "Active"
        await _open(house, "acme", "new@example.org")
        await _told_owner(house, "acme", "works again")


@pytest.mark.acceptance("H6")
async def test_a_payment_ends_the_grace_or_the_suspension_but_no_other_hold(stack: Stack) -> None:
    clock = MovableClock()
    pay = {"amount_minor": 4900, "currency": "EUR"}
    async with House(stack, clock=clock) as house:
        await _active(house, "prompt", "late")
        for tenant in ("prompt", "late"):
            await house.order(tenant, "billing.ReportPastDueV1", days=3, grace_days=7)
            waiting = await until(
                lambda tenant=tenant: _runs(house, tenant, "tenant-suspension", "waiting"),  # type: ignore[misc]
                bool,
            )
            await house.until_state(waiting[0]["run_id"], "PastDue")
        await house.order("prompt", "billing.PaySubscriptionV1", **pay)
        assert (await _until_ended(house, "prompt", "tenant-suspension"))["business_state"] == "Paid"
        left_alone = await _until_ended(house, "prompt", "tenant-reinstatement")
        assert left_alone["output"] == {"active": True, "held_for": []}

        clock.forward(days=8)
        assert (await _until_ended(house, "late", "tenant-suspension"))["business_state"] == "Suspended"
        await _shut(house, "late", "tenant_suspended")
        await house.order("late", "tenancy.ReportViolationV1", policy="fair-use", reason="it mines coins")
        assert (await _until_ended(house, "late", "tenant-suspension", 2))["output"]["cause"] == "policy/fair-use"

        await house.order("late", "billing.PaySubscriptionV1", **pay)
        paid = await _until_ended(house, "late", "tenant-reinstatement")
        assert (paid["business_state"], paid["output"]["held_for"]) == ("Suspended", ["policy/fair-use"])
        await _shut(house, "late", "tenant_suspended")
        await house.order("late", "tenancy.ClearViolationV1", policy="fair-use")
        assert (await _until_ended(house, "late", "tenant-reinstatement", 2))["business_state"] == "Active"
        await _open(house, "late", "new@example.org")

        assert house.ear.facts("prompt")[SUSPENDED] == 0
        assert (await tenant_of(house, "prompt")).state == "Active"
        assert house.ear.facts("late")[SUSPENDED] == house.ear.facts("late")[REINSTATED] == 1
        told = await audit_entries(house, "late", "tenant/late")
        assert [entry.state for entry in told] == ["Registered", "Provisioning", "Active", "Suspended", "Active"]


@pytest.mark.acceptance("H6")
async def test_an_operator_suspends_reinstates_and_closes_from_both_and_a_tenant_cannot_do_it_itself(
    stack: Stack,
) -> None:
    async with House(stack) as house:
        await _active(house, "acme", "globex")
        tokens = {tenant: await house.make_token("admin", tenant) for tenant in ("acme", "globex")}
        token = tokens["acme"]
        for path in ("/v1/tenants/acme/suspend", "/v1/tenants/acme/reinstate", "/v1/tenants/acme/close"):
            assert (await house.refused(path, {"reason": "me"}, token=token))["code"] == "forbidden"
        for workflow in ("tenant-suspension", "tenant-reinstatement", "tenant-closure", "tenant-notice"):
            refused = await house.refused(f"/v1/workflows/{workflow}/runs", {"input": {"reason": "me"}}, token=token)
            assert refused["code"] == "forbidden"
        forged = {"type": REINSTATED, "data": {"tenant": "acme", "state": "Active", "revision": 99, "reason": "me"}}
        assert (await house.refused("/v1/events", forged, token=token))["code"] == "forbidden"

        begun = await house.cli("tenants", "suspend", "acme", "--reason", "a complaint", "--key", "once")
        again = await house.cli("tenants", "suspend", "acme", "--reason", "a complaint", "--key", "once")
        assert (again["run_id"], again["duplicate"]) == (begun["run_id"], True)
        run = await house.until_status(begun["run_id"], "succeeded")
        assert (run["business_state"], run["initiator"]) == ("Suspended", "first admin")
        shown = await house.cli("tenants", "show", "acme")
        assert (shown["state"], shown["holds"], shown["edition"]) == ("Suspended", ["operator"], "standard")
        with pytest.raises(Refused, match="the tenant is suspended; this works again when it is reinstated"):
            await Api(house.session, house.url, token).get("/v1/tenants/acme")
        settle = {"type": "billing.PaySubscriptionV1", "data": {"amount_minor": 1, "currency": "EUR"}}
        assert (await house.refused("/v1/commands", settle, token=token))["code"] == "tenant_suspended"
        for tenant in ("globex", "nobody"):
            code, _, complaint = await house.cli_raw("tenants", "show", tenant)
            assert (code, "no such tenant" in complaint) == ((0, False) if tenant == "globex" else (3, True))
        await _shut(house, "acme", "tenant_suspended")
        refused_run = await house.cli("tenants", "suspend", "acme", "--reason", "a complaint")
        assert (await house.until_status(refused_run["run_id"], "failed"))["error_code"] == "already_suspended"

        begun = await house.api.post("/v1/tenants/acme/reinstate", {"reason": "it was a mistake"})
        assert (await house.until_status(begun["run_id"], "succeeded"))["business_state"] == "Active"
        await _open(house, "acme", "new@example.org")
        own = Api(house.session, house.url, token)
        assert await own.get("/v1/tenants/acme") == await house.cli("tenants", "show", "acme")
        for tenant in ("globex", "nobody"):
            with pytest.raises(Refused, match="no such"):
                await own.get(f"/v1/tenants/{tenant}")
        for path in ("cancel", "terminate", "abandon"):
            stop = await house.refused(f"/v1/runs/{run['run_id']}/{path}", {"reason": "me"}, token=token)
            assert stop["code"] == "forbidden"
        assert (await house.refused("/v1/commands", settle, token=token))["code"] == "forbidden"

        begun = await house.api.post("/v1/tenants/globex/suspend", {"reason": "they want to leave"})
        await house.until_status(begun["run_id"], "succeeded")
        for tenant, previous in (("acme", "Active"), ("globex", "Suspended")):
            begun = await house.cli("tenants", "close", tenant, "--reason", "they left")
            closed = await house.until_status(begun["run_id"], "succeeded")
            assert (closed["business_state"], closed["output"]["previous"]) == ("Closed", previous)
            assert closed["output"]["configuration"]["edition"] == "standard"
            assert (await tenant_of(house, tenant)).state == "Decommissioned"
            assert (await subscription_of(house, tenant)).live == 0
            assert await edition_of(house, tenant) is None
            await _shut(house, tenant, "tenant_closed")
            closed_to = await house.refused("/v1/events", forged, token=tokens[tenant])
            assert (closed_to["status"], closed_to["code"]) == (403, "tenant_closed")
            await _told_owner(house, tenant, "is closed")
            refused_run = await house.api.post(f"/v1/tenants/{tenant}/reinstate", {"reason": "come back"})
            ended = await house.until_status(refused_run["run_id"], "failed")
            assert ended["error_code"] == "transition_refused"
        audited = await house.api.get("/v1/audit", tenant="acme", limit=200, actor="first admin")
        begun_by_hand = [entry["stream"] for entry in audited["items"] if entry["topic"] == "run.started"]
        assert {run["run_id"], refused_run["run_id"]} & set(begun_by_hand) == {run["run_id"]}


@pytest.mark.acceptance("H6")
async def test_nobody_evades_a_suspension_by_pausing_itself(stack: Stack) -> None:
    async with House(stack) as house:
        await _active(house, "acme")
        own = Api(house.session, house.url, await house.make_token("operator", "acme"))
        await own.post("/v1/pauses", {"reason": "we know what is coming"})
        held = await house.start("direct-command", "acme", {"action": "identity.allow_sign_ins", "input": {}})
        await house.until_status(held, "queued")
        begun = await house.api.post("/v1/tenants/acme/suspend", {"reason": "a complaint"})
        assert (await house.until_status(begun["run_id"], "succeeded"))["business_state"] == "Suspended"
        assert (await tenant_of(house, "acme")).state == "Suspended"
        assert (await house.run(held) or {})["status"] == "queued"


@pytest.mark.acceptance("H6")
async def test_a_closure_that_fails_leaves_the_tenant_as_it_was(stack: Stack) -> None:
    async with House(stack) as house:
        await _active(house, "acme")
        await house.script("acme", "tenancy.DecommissionTenantV1", "irrecoverable", code="not_today")
        begun = await house.api.post("/v1/tenants/acme/close", {"reason": "they left"})
        ended = await house.until_status(begun["run_id"], "compensated")
        assert (ended["error_code"], ended["left"]) == ("not_today", [])
        assert (await tenant_of(house, "acme")).state == "Active"
        assert (await subscription_of(house, "acme")).live == 1
        assert await edition_of(house, "acme") == "standard"
        assert (await sign_in_of(house, "acme")).allowed
        assert await _mail(house, "acme") is None


@pytest.mark.acceptance("H6")
async def test_the_tenants_own_number_orders_its_facts_and_not_their_arrival(stack: Stack) -> None:
    owner = {"name": "A tenant", "owner_id": None, "owner_email": None, "owner_name": None}
    first = {"state": "Suspended", "revision": 4, "reason": "late", "cause": "past_due", **owner}
    then = {"state": "Active", "revision": 5, "reason": "paid", **owner}
    async with House(stack) as house:
        # Of tenants that nobody registered, so that these are the only facts about them.
        for tenant, facts in {
            "reversed": ((REINSTATED, then), (SUSPENDED, first)),
            "in-order": ((SUSPENDED, first), (REINSTATED, then)),
            "suspended": ((SUSPENDED, first),),
            "doubled": ((SUSPENDED, first), (REINSTATED, then), (SUSPENDED, first), (REINSTATED, then)),
        }.items():
            for kind, data in facts:
                await house.ear.send(fact(kind, {"tenant": tenant, **data}, tenant=tenant), copies=2)
            # Whoever closed it said so last, whatever arrives after.
            await house.ear.send(
                fact(CLOSED, {"tenant": tenant, "state": "Decommissioned", "revision": 9, "previous": "Active",
                              "reason": "x", **owner}, tenant=f"{tenant}-closed")
            )  # fmt: skip
            await house.ear.send(fact(kind, {"tenant": tenant, **data}, tenant=f"{tenant}-closed"))
        codes = {"reversed": None, "in-order": None, "suspended": "tenant_suspended", "doubled": None}
        for tenant, code in codes.items():
            closed = f"{tenant}-closed"
            # An order comes after the facts in the module's own queue.
            assert await _tried(house, tenant, "identity.CreateUserV1", email="b@example.org", name="Bob") == code
            assert await _mail(house, tenant) == code
            assert await _tried(house, closed, "identity.CreateUserV1", email="b@example.org", name="Bob") == (
                "tenant_closed"
            )
            assert await _mail(house, closed) == "tenant_closed"
