"""A tenant is onboarded: from the request to Active, its steps in any order, each effect once, every move audited."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from itertools import permutations
from uuid import UUID, uuid5

import pytest

from contracts.envelope import Envelope
from tests.stories.house import House, MovableClock, Record, Stack, until
from tests.stories.tenants import (
    audit_entries,
    edition_of,
    sign_in_of,
    subscription_of,
    tenant_of,
    through_backoff,
)
from tests.stories.understudy import asked, play, success

NAMED = (
    "tenancy.TenantRegisteredV1",
    "tenancy.TenantProvisioningStartedV1",
    "billing.SubscriptionActivatedV1",
    "configuration.EntitlementsAppliedV1",
    "identity.UserInvitedV1",
    "notifications.NotificationSentV1",
    "tenancy.TenantProvisionedV1",
)
FOLLOWS = {
    "tenancy.TenantProvisioningStartedV1": ("tenancy.TenantRegisteredV1",),
    "billing.SubscriptionActivatedV1": ("tenancy.TenantProvisioningStartedV1",),
    "configuration.EntitlementsAppliedV1": ("billing.SubscriptionActivatedV1",),
    "identity.UserInvitedV1": ("tenancy.TenantProvisioningStartedV1",),
    "notifications.NotificationSentV1": ("identity.UserInvitedV1",),
    "tenancy.TenantProvisionedV1": ("configuration.EntitlementsAppliedV1", "notifications.NotificationSentV1"),
}
AUDITED = "audit.AuditEntryRecordedV1"
TRANSITIONS = 6
"""Of a tenant that becomes Active, and of its run: Registered, Provisioning, Active."""

STEPS = {
    "subscription": "billing.CreateSubscriptionV1",
    "entitlements": "configuration.ApplyEntitlementsV1",
    "owner": "identity.InviteUserV1",
    "activation_mail": "notifications.SendNotificationV1",
}
ORDERS = [
    order
    for order in permutations(STEPS)
    if order.index("subscription") < order.index("entitlements")
    and order.index("owner") < order.index("activation_mail")
]
"""Every order in which the steps can complete: entitlements need a subscription, the mail needs an owner."""


@pytest.mark.acceptance("H1", "H12")
async def test_every_named_event_is_on_the_bus_once_and_after_its_cause_with_everything_in_processes_of_its_own(
    stack: Stack,
) -> None:
    async with House(stack, roles=("web", "projector"), separate_modules=True) as house:
        await house.process("intake", "worker", "timer", "janitor", "relay")
        run = await house.register("acme")
        ended = await house.until_status(run, "succeeded")
        assert ended["business_state"] == "Active"
        await house.until_heard(AUDITED, tenant="acme", count=TRANSITIONS)

        heard = house.ear.events(tenant="acme")
        kinds = [event.type for event in heard]
        assert {kind: kinds.count(kind) for kind in NAMED} == dict.fromkeys(NAMED, 1)
        for kind, before in FOLLOWS.items():
            assert all(kinds.index(cause) < kinds.index(kind) for cause in before), kinds
        assert len({event.id for event in heard if event.type == AUDITED}) == kinds.count(AUDITED) == TRANSITIONS
        await _story_has_no_orphans(house, run, heard)


async def _story_has_no_orphans(house: House, run: str, heard: Sequence[Envelope]) -> None:
    """From the request to the last mail: one root, and everything on the bus is caused by something in the story."""
    found = await house.run(run)
    assert found is not None
    story = found["correlation_id"]
    of_tenant = await house.api.get("/v1/runs", tenant="acme")
    assert [one["correlation_id"] for one in of_tenant["items"]] == [story]
    assert {event.correlationid for event in heard} == {story}
    tree = await house.api.get(f"/v1/causation/{story.replace('/', '%2F')}", tenant="acme")
    assert (tree["runs"], len(tree["roots"])) == (1, 1)
    root = tree["roots"][0]
    assert root["kind"] == "request"
    assert [child["run_id"] for child in root["children"]] == [run]
    orders = {node["id"]: node["name"] for node in root["children"][0]["children"] if node["kind"] == "step"}
    commands = house.ear.commands(tenant="acme")
    assert orders.keys() == {command.id for command in commands}
    assert "notifications.send_notification" in orders.values()
    known = orders.keys() | {event.id for event in heard}
    known |= {str(uuid5(UUID(run), str(number))) for number in range(1, found["version"] + 1)}
    assert [message.type for message in (*commands, *heard) if message.causationid not in known] == []


@pytest.mark.acceptance("H2")
async def test_a_tenant_becomes_active_in_every_order_of_its_steps_and_never_while_one_is_missing(stack: Stack) -> None:
    async with House(stack, modules=("tenancy", "audit")) as house:
        whole = {f"whole-{number}": order for number, order in enumerate(ORDERS)}
        lacking = {f"lacking-{step.replace('_', '-')}": step for step in STEPS}
        for tenant in (*whole, *lacking):
            await house.register(tenant)

        async def complete(tenant: str, order: Sequence[str]) -> None:
            for step in order:
                await play(house, STEPS[step], tenant)
                # The next step completes only when this one is in the log.
                await until(partial(_step, house, tenant, step), lambda seen: seen["status"] == "succeeded")

        async def leave_out(tenant: str, missing: str) -> None:
            await complete(tenant, [step for step in ORDERS[0] if step not in (missing, _needs(missing))])

        await asyncio.gather(
            *(complete(tenant, order) for tenant, order in whole.items()),
            *(leave_out(tenant, missing) for tenant, missing in lacking.items()),
        )
        for tenant in whole:
            await house.until_heard("tenancy.TenantProvisionedV1", tenant=tenant)
        for tenant, missing in lacking.items():
            await until(partial(_step, house, tenant, missing), lambda seen: seen["status"] == "open")
            assert house.ear.commands("tenancy.ActivateTenantV1", tenant=tenant) == []
            assert (await tenant_of(house, tenant)).state == "Provisioning"
        assert len(house.ear.events("tenancy.TenantProvisionedV1")) == len(ORDERS)


def _needs(step: str) -> str | None:
    return {"subscription": "entitlements", "owner": "activation_mail"}.get(step)


async def _step(house: House, tenant: str, step: str) -> Record:
    page = await house.api.get("/v1/runs", tenant=tenant, workflow="tenant-onboarding")
    if not page["items"]:
        return {"status": "none"}
    return (await house.steps(page["items"][0]["run_id"])).get(step, {"status": "none"})


@pytest.mark.acceptance("H7")
async def test_ten_copies_and_ten_redeliveries_of_everything_make_one_subscription(stack: Stack) -> None:
    async with House(stack) as house:
        runs = await asyncio.gather(*(house.register("acme") for _ in range(10)))
        assert len(set(runs)) == 1
        before = await house.until_status(runs[0], "succeeded")
        await house.until_heard(AUDITED, tenant="acme", count=TRANSITIONS)
        facts = house.ear.facts("acme")
        said = list(house.ear.messages)
        for message in said:
            await house.ear.send_raw(message.routing_key, message.body, exchange=message.exchange, copies=10)
        # An order after the copies, to every module: when it is done the copies before it in the queue are too.
        for module in ("billing", "identity", "configuration", "notifications", "tenancy", "audit"):
            command = {"command": "NoSuchV1", "mode": "silent"}
            begun = await house.api.post(
                "/v1/commands", {"type": f"{module}.ScriptFaultV1", "data": command}, tenant="another"
            )
            await house.until_status(begun["run_id"], "failed")
        copies = len([message for message in said if message.exchange == "unwind.events"]) * 10
        await until(lambda: _duplicates(house), lambda seen: seen >= copies)

        assert house.ear.facts("acme") == facts
        assert (await subscription_of(house, "acme")).live == 1
        after = await house.run(runs[0])
        assert after is not None
        assert after["version"] == before["version"]
        page = await house.api.get("/v1/runs", tenant="acme", workflow="tenant-onboarding")
        assert len(page["items"]) == 1
        assert house.host.sink is not None
        assert list(house.host.sink.count_by_id.values()) == [1]


async def _duplicates(house: House) -> float:
    async with house.session.get(f"{house.url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("unwind_deliveries_total{") and 'result="duplicate"' in line
    )


FAILING = {
    "subscription": "billing.CreateSubscriptionV1",
    "entitlements": "configuration.ApplyEntitlementsV1",
    "owner": "identity.InviteUserV1",
    "activation_mail": "notifications.SendNotificationV1",
    "activate": "tenancy.ActivateTenantV1",
}


@pytest.mark.acceptance("H8")
async def test_whichever_step_fails_for_good_the_others_are_undone_newest_first(stack: Stack) -> None:
    async with House(stack) as house:

        async def fail(step: str) -> None:
            tenant = f"no-{step.replace('_', '-')}"
            await house.script(tenant, FAILING[step], "irrecoverable")
            run = await house.register(tenant)
            ended = await house.until_status(run, "compensated")
            assert ended["left"] == []
            timeline = await house.timeline(run)
            done = [
                entry["event"]["step"]
                for entry in timeline
                if entry["topic"] == "step.succeeded" and entry["event"]["step"] not in ("register", "activation_mail")
            ]
            undone = [entry["event"]["step"] for entry in timeline if entry["topic"] == "undo.succeeded"]
            assert undone == done[::-1], step
            assert undone[-1] == "begin"
            assert (await tenant_of(house, tenant)).state == "ProvisioningFailed"
            assert (await subscription_of(house, tenant)).live == 0
            assert not (await sign_in_of(house, tenant)).allowed
            assert await edition_of(house, tenant) is None
            assert house.ear.facts(tenant)["tenancy.TenantProvisioningFailedV1"] == 1

        await asyncio.gather(*(fail(step) for step in FAILING))


@pytest.mark.acceptance("H8")
async def test_a_tenant_that_cannot_even_be_registered_or_begun_has_nothing_to_undo_and_has_failed(
    stack: Stack,
) -> None:
    first = {"unknown": "tenancy.RegisterTenantV1", "registered": "tenancy.BeginProvisioningV1"}
    async with House(stack) as house:
        for tenant, command in first.items():
            await house.script(tenant, command, "irrecoverable", code="not_today")
            run = await house.register(tenant)
            ended = await house.until_status(run, "failed")
            assert (ended["error_code"], ended["undone"], ended["left"]) == ("not_today", 0, [])
            ordered = {order.type for order in house.ear.commands(tenant=tenant)}
            assert ordered == {"tenancy.ScriptFaultV1", "tenancy.RegisterTenantV1", command}
            assert (await subscription_of(house, tenant)).live == 0
            assert not (await sign_in_of(house, tenant)).allowed
            if tenant == "unknown":
                assert (ended["business_state"], (await tenant_of(house, tenant)).state) == (None, None)
                continue
            assert ended["business_state"] == "ProvisioningFailed"
            await house.until_heard("tenancy.TenantProvisioningFailedV1", tenant=tenant)
            assert (await tenant_of(house, tenant)).state == "ProvisioningFailed"
            await _audit_tells(house, tenant, run, ["Registered", "Provisioning", "ProvisioningFailed"])


@pytest.mark.acceptance("H5", "H8")
async def test_a_tenant_whose_provisioning_keeps_failing_to_begin_has_failed_until_it_begins_or_is_given_up(
    stack: Stack,
) -> None:
    clock = MovableClock()
    failed = ["Registered", "Provisioning", "ProvisioningFailed"]
    async with House(stack, clock=clock) as house:
        runs = {}
        for tenant in ("given-up", "mended"):
            await house.script(tenant, "tenancy.BeginProvisioningV1", "retryable", times=1000)
            runs[tenant] = await house.register(tenant)
        for tenant, run in runs.items():
            await through_backoff(house, clock, run, "begin")
            assert (await house.until_status(run, "parked"))["business_state"] == "ProvisioningFailed"
            await house.until_heard("tenancy.TenantProvisioningFailedV1", tenant=tenant)
            assert (await tenant_of(house, tenant)).state == "ProvisioningFailed"

        await house.api.post(f"/v1/runs/{runs['given-up']}/abandon", {"reason": "they went elsewhere"})
        # A copy of the order may still be on its way: the undo closes it, whether or not it will ever come.
        ended = await house.until_status(runs["given-up"], "compensated")
        assert (ended["business_state"], ended["undone"]) == ("Decommissioned", 1)
        await house.until_heard("tenancy.TenantDecommissionedV1", tenant="given-up")
        await _audit_tells(house, "given-up", runs["given-up"], [*failed, "Decommissioned"])

        await house.script("mended", "tenancy.BeginProvisioningV1", "retryable", times=0)
        await house.api.post(f"/v1/runs/{runs['mended']}/retry")
        assert (await house.until_status(runs["mended"], "succeeded"))["business_state"] == "Active"
        await _audit_tells(house, "mended", runs["mended"], [*failed, "Provisioning", "Active"])


@pytest.mark.acceptance("H8")
async def test_a_compensation_whose_engine_was_killed_goes_on_where_it_stood(stack: Stack) -> None:
    modules = ("tenancy", "billing", "configuration", "notifications", "audit")
    async with House(stack, roles=("web", "projector"), modules=modules, dead_seconds=1.0) as house:
        engine = await house.process("intake", "worker", "timer", "janitor", "relay")
        await house.script("acme", "notifications.SendNotificationV1", "irrecoverable")
        run = await house.register("acme")
        await house.until_step(run, "entitlements", lambda step: step["status"] == "succeeded")
        await play(house, "identity.InviteUserV1", "acme")
        undo = await asked(house, "identity.DisableUserV1", "acme")
        await house.until_step(run, "owner", lambda step: step["undo"]["status"] == "open")
        await engine.kill()
        # Nobody runs the engine now: what it meant to do is on record, and the answer waits on the bus.
        assert (await house.until_status(run, "compensating"))["undone"] < 3
        await house.ear.send(success(undo))
        await house.process("intake", "worker", "timer", "janitor", "relay")
        await house.until_status(run, "compensated")
        steps = await house.steps(run)
        assert {steps[name]["undo"]["status"] for name in ("begin", "subscription", "entitlements", "owner")} == {
            "done"
        }
        assert (await tenant_of(house, "acme")).state == "ProvisioningFailed"
        assert (await subscription_of(house, "acme")).live == 0
        undos = house.ear.commands("identity.DisableUserV1", tenant="acme")
        assert {command.id for command in undos} == {undo.id}


@pytest.mark.acceptance("H5", "H11")
async def test_an_abandoned_onboarding_leaves_nothing_behind_and_a_retried_one_redoes_the_failed_step_alone(
    stack: Stack,
) -> None:
    clock = MovableClock()
    async with House(stack, clock=clock) as house:
        for tenant in ("given-up", "mended"):
            await house.script(tenant, "notifications.SendNotificationV1", "retryable", times=1000)
        runs = {tenant: await house.register(tenant) for tenant in ("given-up", "mended")}
        for run in runs.values():
            await through_backoff(house, clock, run, "activation_mail")
            parked = await house.until_status(run, "parked")
            assert parked["business_state"] == "ProvisioningFailed"
        for tenant in runs:
            await house.until_heard("tenancy.TenantProvisioningFailedV1", tenant=tenant)
            assert (await tenant_of(house, tenant)).state == "ProvisioningFailed"
            assert (await subscription_of(house, tenant)).live == 1

        await house.api.post(f"/v1/runs/{runs['given-up']}/abandon", {"reason": "they went elsewhere"})
        await house.until_status(runs["given-up"], "compensated")
        assert (await tenant_of(house, "given-up")).state == "Decommissioned"
        assert (await subscription_of(house, "given-up")).live == 0
        assert not (await sign_in_of(house, "given-up")).allowed
        assert await edition_of(house, "given-up") is None
        assert house.host.sink is not None
        assert [mail for mail in house.host.sink.mails if mail.tenant == "given-up"] == []

        await house.script("mended", "notifications.SendNotificationV1", "retryable", times=0)
        await house.api.post(f"/v1/runs/{runs['mended']}/retry")
        ended = await house.until_status(runs["mended"], "succeeded")
        assert ended["business_state"] == "Active"
        assert (await tenant_of(house, "mended")).state == "Active"
        steps = await house.steps(runs["mended"])
        assert {name: len(step["attempts"]) for name, step in steps.items() if len(step["attempts"]) > 1} == {
            "activation_mail": 4
        }
        assert house.ear.facts("mended")["billing.SubscriptionActivatedV1"] == 1
        for tenant, states in {
            "given-up": ["Registered", "Provisioning", "ProvisioningFailed", "Decommissioned"],
            "mended": ["Registered", "Provisioning", "ProvisioningFailed", "Provisioning", "Active"],
        }.items():
            await _audit_tells(house, tenant, runs[tenant], states)


async def _audit_tells(house: House, tenant: str, run: str, states: list[str]) -> None:
    """The audit alone gives the whole history, in order and without a gap, and it is the history that was."""
    log = [entry["event"] for entry in await house.timeline(run) if entry["topic"] == "state.entered"]
    ended = await house.run(run)
    assert ended is not None
    entries = await until(
        lambda: audit_entries(house, tenant), lambda found: len(found) >= len(states) + len(log) + _told_of_end(ended)
    )
    told = [entry for entry in entries if entry.subject == f"tenant/{tenant}"]
    assert [entry.state for entry in told] == states
    assert [entry.previous for entry in told] == [None, *states[:-1]]
    assert (await tenant_of(house, tenant)).state == told[-1].state
    of_run = [entry for entry in entries if entry.subject == f"run/{run}"]
    assert [(entry.previous, entry.state) for entry in of_run if entry.about_type == "unwind.RunStateEnteredV1"] == [
        (event["previous"], event["name"]) for event in log
    ]
    heard = await house.until_heard(AUDITED, tenant=tenant, count=len(entries))
    about = [event.data["entry_id"] for event in heard]
    assert sorted(about) == sorted(entry.entry_id for entry in entries)
    query = {"tenant": tenant, "run_id": run, "as_of": ended["as_of"]}
    chain = await house.api.get("/v1/audit", topic="state.entered", limit=100, **query)
    assert [entry["details"]["name"] for entry in chain["items"]][::-1] == [event["name"] for event in log]
    assert (await house.api.get("/v1/audit/verify", tenant=tenant, against_log="true"))["holds"]


def _told_of_end(run: Record) -> int:
    """Plain success is told by the read models alone."""
    return 0 if run["status"] == "succeeded" else 1
