"""The simulation kit keeps its promises to who writes sagas: time, scripts, facts, people, ledger, rehearsal."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from contracts import run_events as ev
from contracts.calls import ActionCall, RetryPolicy
from contracts.modules import SHIPPED
from contracts.registry import Registry
from engine.plan.code import Run, saga
from engine.rehearsal import rehearse
from engine.sagas.customer_onboarding import customer_onboarding
from engine.sagas.tenant_onboarding import tenant_onboarding
from engine.simulate import NEVER, Refused, Simulation, SimulationMistake, fails, in_turn, later

ONCE = RetryPolicy(attempts=1)


def greet(call: ActionCall) -> Any:
    return {"said": f"hello {call.input['name']}"}


async def greet_later(call: ActionCall) -> Any:
    return {"said": "hello"}


async def ask_the_world(call: ActionCall) -> Any:
    await asyncio.sleep(1)


def unsay(call: ActionCall) -> Any:
    return {"unsaid": call.receipt}


@saga("polite", version=1)
async def polite(run: Run, data: Any) -> Any:
    said = await run.step("greet", greet, undo=unsay, name=data["name"])
    await run.sleep("pause", 3600)
    await run.step("part", "mail.send", retry=ONCE)
    return said


@saga("patient", version=1, on_failure="park", parked_state="Stuck")
async def patient(run: Run, data: Any) -> Any:
    await run.step("one", "a.do", undo="a.undo")
    return await run.step("two", "b.do", undo="b.undo", retry=ONCE)


@saga("waiter", version=1)
async def waiter(run: Run, data: Any) -> Any:
    paid = await run.wait_for("paid", "billing.PaidV1", key=("order", data["order"]), timeout_seconds=60)
    answer = await run.approve("check", "Look at it")
    return {"paid": paid, "by": answer["by"]}


@saga("careless", version=1)
async def careless(run: Run, data: Any) -> Any:
    await run.step("one", "a.do", undo="a.undo")
    await run.step("two", "b.do")


def test_a_function_needs_no_script_and_an_undo_sees_its_receipt() -> None:
    sim = Simulation(polite, {"name": "Ann"}, actions={"mail.send": fails("no_such_box")})
    sim.run_until_idle()
    assert sim.status == "compensated"
    (undo,) = [call for call in sim.calls if call.undo]
    assert (undo.receipt, undo.key) == ({"said": "hello Ann"}, f"{sim.state.run_id}/greet/1/undo")


def test_time_passes_only_when_told() -> None:
    sim = Simulation(polite, {"name": "Ann"}, actions={"mail.send": {}})
    sim.forward(minutes=59)
    assert sim.status == "waiting"
    sim.forward(minutes=1)
    assert (sim.status, sim.output) == ("succeeded", {"said": "hello Ann"})


def test_time_does_not_run_backwards() -> None:
    with pytest.raises(SimulationMistake, match="forward only"):
        Simulation(polite, {"name": "Ann"}).forward(minutes=-1)


def test_an_async_action_that_needs_nothing_is_run_and_one_that_waits_must_be_scripted() -> None:
    assert Simulation(polite, {"name": "Ann"}, actions={greet: greet_later}).state.step("greet", 1) is not None
    with pytest.raises(SimulationMistake, match="outside world"):
        Simulation(polite, {"name": "Ann"}, actions={greet: ask_the_world})


def test_an_action_without_a_script_is_named() -> None:
    sim = Simulation(polite, {"name": "Ann"})
    with pytest.raises(SimulationMistake, match=r"mail\.send"):
        sim.run_until_idle()


def test_outcomes_in_turn_are_one_per_attempt_under_one_key() -> None:
    sim = Simulation(careless, actions={"a.do": in_turn(fails("busy", retryable=True), {"ok": True}), "b.do": {}})
    assert sim.status == "waiting"
    sim.forward(seconds=2)
    assert sim.status == "succeeded"
    assert len({call.key for call in sim.calls if call.action == "a.do"}) == 1
    assert sim.ledger[sim.calls[0].key].attempts == 2


def test_an_action_that_never_answers_is_undone_without_a_receipt() -> None:
    sim = Simulation(careless, actions={"a.do": NEVER})
    sim.run_until_idle()
    (undo,) = [call for call in sim.calls if call.undo]
    assert (sim.status, undo.receipt, sim.ledger_neutral) == ("compensated", None, True)


def test_a_late_answer_of_a_command_counts_while_its_step_waits_for_another_attempt() -> None:
    sim = Simulation(careless, actions={"a.do": in_turn(later(30.5, {"late": True}), NEVER), "b.do": {}})
    sim.forward(seconds=31)
    assert sim.status == "succeeded"


def test_an_answer_after_the_end_is_ignored_with_its_reason() -> None:
    sim = Simulation(careless, actions={"a.do": later(10, {})})
    sim.terminate()
    assert sim.left == ("one/1",)
    with pytest.raises(Refused, match=r"ended \(cancelled\)"):
        sim.cancel()


def test_branches_complete_in_the_order_of_their_answers() -> None:
    actions = _tenant_actions() | {"billing.create_subscription": later(5, {"subscription_id": "s-1"})}
    sim = Simulation(tenant_onboarding, TENANT, actions=actions, registry=Registry(SHIPPED))
    sim.run_until_idle()
    order = [event.step for event in sim.events if isinstance(event, ev.StepSucceeded)]
    assert order.index("activation_mail") < order.index("subscription")
    assert sim.business_state == "Active"


def test_facts_may_come_early_and_people_decide_by_name() -> None:
    sim = Simulation(waiter, {"order": 7})
    sim.fact("billing.PaidV1", key=("order", "8"))
    assert sim.status == "waiting"
    sim.fact("billing.PaidV1", key=("order", "7"), data={"amount": 5})
    with pytest.raises(Refused, match="no approval called 'other'"):
        sim.approve("other")
    sim.approve("check", by="ann")
    assert sim.output == {"paid": {"amount": 5}, "by": "ann"}


def test_explain_says_what_the_run_waits_for() -> None:
    sim = Simulation(waiter, {"order": 7})
    assert "billing.PaidV1" in sim.explain().sentence
    assert [timer["key"] for timer in sim.explain().wakes["timers"]] == ["wait/paid/1"]


def test_a_parked_run_is_repaired_and_goes_on() -> None:
    sim = Simulation(patient, actions={"a.do": {}, "b.do": fails("broken")})
    assert (sim.status, sim.business_state) == ("parked", "Stuck")
    sim.script("b.do", {"mended": True})
    sim.retry()
    assert (sim.status, sim.output) == ("succeeded", {"mended": True})


def test_a_skipped_step_leaves_no_effect() -> None:
    sim = Simulation(patient, actions={"a.do": {}, "b.do": fails("broken")})
    sim.skip("two", {"by_hand": True}, reason="done by hand")
    assert (sim.output, [effect.did for effect in sim.ledger.values()]) == ({"by_hand": True}, ["yes", "no"])


def test_an_abandoned_run_is_unwound() -> None:
    sim = Simulation(patient, actions={"a.do": {}, "b.do": fails("broken")})
    sim.abandon()
    assert (sim.status, sim.ledger_neutral) == ("compensated", True)


def test_a_restart_in_the_middle_changes_nothing() -> None:
    straight = Simulation(polite, {"name": "Ann"}, actions={"mail.send": {}})
    straight.run_until_idle()
    broken = Simulation(polite, {"name": "Ann"}, actions={"mail.send": {}})
    broken.restart()
    broken.run_until_idle()
    assert broken.events == straight.events


def test_a_restart_makes_open_local_attempts_again_under_their_key() -> None:
    sim = Simulation(polite, {"name": "Ann"}, actions={greet: in_turn(later(5, {}))})
    sim.restart()
    assert [call.key for call in sim.calls] == [f"{sim.state.run_id}/greet/1"] * 2


def test_the_rehearsal_shows_an_effect_that_nobody_undoes() -> None:
    rehearsal = rehearse(careless, actions={"a.do": {}, "b.do": {}})
    assert (rehearsal.neutral, rehearsal.uncovered) == (True, ("b.do",))
    assert "no undo: b.do" in str(rehearsal)


def test_the_rehearsal_shows_an_effect_that_stands() -> None:
    rehearsal = rehearse(careless, actions={"a.do": {}, "a.undo": fails("stuck"), "b.do": {}})
    assert ("two", "refused", "compensation_failed", ("one/1",)) in [
        (case.step, case.way, case.status, case.standing) for case in rehearsal.cases
    ]


def test_a_run_that_does_not_succeed_cannot_be_rehearsed() -> None:
    with pytest.raises(SimulationMistake, match="the run to rehearse"):
        rehearse(waiter, {"order": 7}, drive=lambda sim: None)


TENANT = {"name": "Acme", "owner_email": "ann@example.org", "owner_name": "Ann"}


def _tenant_actions() -> dict[Any, Any]:
    tenant = {"tenant": "t-1", "name": "Acme", "edition": "standard", "trial": True, "owner_id": "u-1"}
    return {
        "tenancy.register_tenant": tenant | {"owner_email": "ann@example.org", "owner_name": "Ann"},
        "tenancy.begin_provisioning": {},
        "billing.create_subscription": {"subscription_id": "s-1"},
        "configuration.apply_entitlements": {},
        "identity.invite_user": {"user_id": "u-1", "email": "ann@example.org", "name": "Ann"},
        "notifications.send_notification": {},
        "tenancy.activate_tenant": {},
    }


def test_tenant_onboarding_is_neutral_whichever_step_fails() -> None:
    rehearsal = rehearse(tenant_onboarding, TENANT, actions=_tenant_actions(), registry=Registry(SHIPPED))
    assert rehearsal.neutral, str(rehearsal)
    assert rehearsal.uncovered == ()


def test_customer_onboarding_is_neutral_whichever_step_fails() -> None:
    def people(sim: Simulation) -> None:
        sim.fact("identity.EmailConfirmedV1", key=("user", "u-1"))
        sim.approve("sales-review")
        sim.fact("billing.FirstPaymentReceivedV1", key=("customer", "c-1"))

    actions: dict[Any, Any] = {
        "identity.create_user": {"user_id": "u-1"},
        "billing.create_customer": {"customer_id": "c-1"},
        "crm.create_contact": {"contact_id": "k-1"},
        "notifications.send_notification": {},
    }
    signup = {"email": "ann@example.org", "name": "Ann", "plan": "enterprise"}
    rehearsal = rehearse(customer_onboarding, signup, actions=actions, registry=Registry(SHIPPED), drive=people)
    assert rehearsal.neutral, str(rehearsal)
    assert rehearsal.uncovered == ()


def test_a_customer_who_never_confirms_is_unwound_after_a_week() -> None:
    actions: dict[Any, Any] = {
        "identity.create_user": {"user_id": "u-1"},
        "billing.create_customer": {"customer_id": "c-1"},
        "crm.create_contact": {"contact_id": "k-1"},
        "notifications.send_notification": {},
    }
    signup = {"email": "ann@example.org", "name": "Ann"}
    sim = Simulation(customer_onboarding, signup, actions=actions, registry=Registry(SHIPPED))
    sim.forward(days=6)
    assert sim.business_state == "AwaitingConfirmation"
    sim.forward(days=1)
    assert (sim.status, sim.ledger_neutral) == ("compensated", True)
