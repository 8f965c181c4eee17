"""The sagas that move a tenant after it has become Active, under virtual time: what starts them, what ends them, and
what is left when a step fails."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.modules import SHIPPED
from contracts.registry import Registry
from engine.plan.code import Saga
from engine.rehearsal import rehearse
from engine.sagas.tenant_closure import tenant_closure
from engine.sagas.tenant_notice import tenant_notice
from engine.sagas.tenant_reinstatement import tenant_reinstatement
from engine.sagas.tenant_suspension import tenant_suspension
from engine.simulate import Simulation, fails

REGISTRY = Registry(SHIPPED)
DUE = {"subscription_id": "sub_1", "days": 3, "grace_days": 7}
VIOLATION = {"tenant": "acme", "policy": "fair-use", "reason": "it mines coins"}
ACTIONS: dict[Any, Any] = {
    "billing.confirm_past_due": {"subscription_id": "sub_1", "past_due": True},
    "billing.close_subscription": {"subscription_id": "sub_1", "status": "active"},
    "identity.disable_users": {"tenant": "acme", "count": 2},
    "configuration.withdraw_entitlements": {"tenant": "acme", "edition": "free", "entitlements": {}, "flags": {}},
    "tenancy.hold_tenant": {"tenant": "acme", "state": "Active", "cause": "past_due", "fresh": True},
    "tenancy.suspend_tenant": {"tenant": "acme", "state": "Suspended", "reason": "x", "cause": "operator"},
    "tenancy.release_hold": {"tenant": "acme", "state": "Active", "cause": "past_due", "remaining": []},
    "tenancy.reinstate_tenant": {"tenant": "acme", "state": "Active", "reason": "x"},
    "tenancy.decommission_tenant": {"tenant": "acme", "state": "Decommissioned", "previous": "Active", "reason": "x"},
    "notifications.send_notification": {},
}
SUSPENDED = {
    "tenant": "acme", "state": "Suspended", "reason": "x", "cause": "operator", "name": "Acme",
    "owner_id": "u-1", "owner_email": "ann@example.org", "owner_name": "Ann",
}  # fmt: skip


def run(saga: Saga, data: Any, **actions: Any) -> Simulation:
    scripts = ACTIONS | {name.replace("__", "."): script for name, script in actions.items()}
    return Simulation(saga, data, actions=scripts, registry=REGISTRY)


def done(sim: Simulation) -> list[str]:
    return [call.action for call in sim.calls if not call.undo]


def test_a_payment_within_the_grace_ends_the_suspension_before_it_begins() -> None:
    sim = run(tenant_suspension, DUE)
    sim.forward(days=6)
    assert (sim.business_state, done(sim)) == ("PastDue", [])
    sim.fact("billing.PastDueSettledV1", key=("subscription", "sub_1"))
    assert (sim.status, sim.business_state, done(sim)) == ("succeeded", "Paid", [])


def test_when_the_grace_is_over_the_tenant_is_held_and_suspended() -> None:
    sim = run(tenant_suspension, DUE)
    sim.forward(days=7)
    assert done(sim) == ["billing.confirm_past_due", "tenancy.hold_tenant", "tenancy.suspend_tenant"]
    assert (sim.business_state, sim.output) == ("Suspended", {"suspended": True, "cause": "past_due"})
    assert "cause" in sim.calls[-1].input
    assert sim.calls[-1].input["cause"] == "past_due"


def test_a_payment_that_came_before_the_run_listened_suspends_nobody() -> None:
    sim = run(tenant_suspension, DUE, billing__confirm_past_due={"subscription_id": "sub_1", "past_due": False})
    sim.forward(days=7)
    assert (sim.business_state, done(sim)) == ("Paid", ["billing.confirm_past_due"])


def test_without_grace_nothing_is_waited_for() -> None:
    assert run(tenant_suspension, DUE | {"grace_days": 0}).business_state == "Suspended"


def test_a_policy_suspends_for_a_cause_of_its_own() -> None:
    sim = run(tenant_suspension, VIOLATION)
    assert done(sim) == ["tenancy.suspend_tenant"]
    assert sim.output == {"suspended": True, "cause": "policy/fair-use"}


@pytest.mark.parametrize(
    ("data", "code", "status"),
    [
        (VIOLATION, "already_suspended", "succeeded"),
        (VIOLATION, "transition_refused", "failed"),
        (DUE | {"grace_days": 0}, "already_suspended", "succeeded"),
        (DUE | {"grace_days": 0}, "transition_refused", "compensated"),
        ({"reason": "by hand"}, "already_suspended", "failed"),
    ],
)
def test_one_cause_more_is_no_failure_but_an_order_that_the_state_does_not_allow_is(
    data: Any, code: str, status: str
) -> None:
    sim = run(tenant_suspension, data, tenancy__suspend_tenant=fails(code, irrecoverable=True))
    assert (sim.status, sim.ledger_neutral) == (status, status != "succeeded" or "subscription_id" not in data)


def test_a_payment_releases_its_hold_and_tells_what_still_holds() -> None:
    held = {"tenant": "acme", "state": "Suspended", "cause": "past_due", "remaining": ["policy/fair-use"]}
    settled = run(
        tenant_reinstatement,
        {"subscription_id": "sub_1"},
        billing__confirm_past_due={"subscription_id": "sub_1", "past_due": False},
        tenancy__release_hold=held,
    )
    assert settled.output == {"active": False, "held_for": ["policy/fair-use"]}
    assert settled.business_state == "Suspended"


def test_a_settlement_that_billing_does_not_confirm_releases_nothing() -> None:
    sim = run(tenant_reinstatement, {"subscription_id": "sub_1"})
    assert (done(sim), sim.output["active"]) == (["billing.confirm_past_due"], False)


def test_a_cleared_violation_and_an_operator_reinstate() -> None:
    assert done(run(tenant_reinstatement, {"tenant": "acme", "policy": "fair-use"})) == ["tenancy.release_hold"]
    assert done(run(tenant_reinstatement, {"reason": "by hand"})) == ["tenancy.reinstate_tenant"]


def test_a_closure_that_is_refused_gives_everything_back_newest_first() -> None:
    sim = run(
        tenant_closure, {"reason": "bye"}, tenancy__decommission_tenant=fails("transition_refused", irrecoverable=True)
    )
    assert (sim.status, sim.ledger_neutral) == ("compensated", True)
    assert [call.key.split("/")[1] for call in sim.calls if call.undo] == ["configuration", "users", "subscription"]


def test_a_closure_answers_with_the_export_of_the_configuration() -> None:
    sim = run(tenant_closure, {"reason": "bye"})
    assert sim.output["configuration"] == {"edition": "free", "entitlements": {}, "flags": {}}
    assert sim.business_state == "Closed"


@pytest.mark.parametrize(
    ("fact", "template"),
    [
        (SUSPENDED, "suspended"),
        (SUSPENDED | {"state": "Active"}, "reinstated"),
        (SUSPENDED | {"state": "Decommissioned", "previous": "Suspended"}, "closed"),
        (SUSPENDED | {"state": "Decommissioned", "previous": "ProvisioningFailed"}, None),
        ({"tenant": "acme", "state": "Suspended", "reason": "x", "owner_email": None}, None),
    ],
)
def test_the_owner_is_told_what_happened_unless_nobody_ever_came_in(fact: Any, template: str | None) -> None:
    sim = run(tenant_notice, fact)
    assert sim.output == {"told": template}
    assert [call.input["template"] for call in sim.calls] == ([] if template is None else [template])


@pytest.mark.parametrize(
    ("saga", "data"),
    [
        (tenant_suspension, DUE),
        (tenant_suspension, VIOLATION),
        (tenant_suspension, {"reason": "by hand"}),
        (tenant_reinstatement, {"tenant": "acme", "policy": "fair-use"}),
        (tenant_reinstatement, {"subscription_id": "sub_1"}),
        (tenant_reinstatement, {"reason": "by hand"}),
        (tenant_closure, {"reason": "bye"}),
        (tenant_notice, SUSPENDED),
    ],
)
def test_whichever_step_fails_the_tenant_is_what_it_was(saga: Saga, data: Any) -> None:
    rehearsal = rehearse(saga, data, actions=ACTIONS, registry=REGISTRY)
    assert rehearsal.neutral, str(rehearsal)
    assert rehearsal.uncovered == ()
