"""Records golden histories: streams as a log of today holds them, with the state they fold to. Writes what is missing
and never touches what is there (`python -m tests.histories.record`): a history is not edited, only joined by others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from contracts.calls import ActionSpec, RetryPolicy
from contracts.codec import RUN_EVENTS
from contracts.modules import SHIPPED
from contracts.registry import Registry
from contracts.run_events import RunEvent, all_run_events
from contracts.tenant_events import TENANT_EVENTS
from docs.examples.products import shop
from engine.blueprints import installed, load
from engine.plan.code import Run, saga
from engine.run.rerun import adopt, inherit
from engine.run.state import RunState
from engine.sagas.customer_onboarding import customer_onboarding
from engine.sagas.tenant_closure import tenant_closure
from engine.sagas.tenant_onboarding import tenant_onboarding
from engine.sagas.tenant_suspension import tenant_suspension
from engine.simulate import NEVER, Simulation, fails, in_turn
from tests.pure.run import sagas, telling
from tests.pure.run.telling import (
    Story,
    admitted,
    approved,
    begun,
    done,
    due,
    given,
    lost,
    matched,
    moved,
    retried,
    undo_lost,
    undone,
)

HERE = Path(__file__).resolve().parent
SHAPES = HERE / "shapes.json"
PRODUCT = HERE.parents[1] / "docs" / "examples" / "products" / "shop.json"

TENANT = {"name": "Acme", "owner_email": "ann@example.org", "owner_name": "Ann Example"}
SIGNUP = {"signup_id": "s-1", "email": "ann@example.org", "name": "Ann Example", "plan": "enterprise"}
TENANT_ACTIONS: dict[str, Any] = {
    "tenancy.register_tenant": {
        "tenant": "t-1",
        "name": "Acme",
        "edition": "standard",
        "trial": True,
        "owner_id": "u-1",
        "owner_email": "ann@example.org",
        "owner_name": "Ann Example",
    },
    "tenancy.begin_provisioning": {},
    "billing.create_subscription": {"subscription_id": "s-1"},
    "configuration.apply_entitlements": {"applied": ["seats"]},
    "identity.invite_user": {"user_id": "u-1", "email": "ann@example.org", "name": "Ann Example"},
    "notifications.send_notification": {"notification_id": "n-1"},
    "tenancy.activate_tenant": {},
}
CUSTOMER_ACTIONS: dict[str, Any] = {
    "identity.create_user": {"user_id": "u-1"},
    "billing.create_customer": {"customer_id": "c-1"},
    "crm.create_contact": {"contact_id": "k-1"},
    "notifications.send_notification": {"notification_id": "n-1"},
}


@saga("recorded-charge", version=1)
async def recorded_charge(run: Run, data: Any) -> Any:
    return await run.step("charge", "pay.charge", amount=5)


@saga("recorded-values", version=1)
async def recorded_values(run: Run, data: Any) -> Any:
    started, ticket, dice = await run.now(), await run.uuid(), await run.random()
    await run.sleep("a day", 86_400)
    return {"started": started, "ticket": ticket, "dice": dice}


def tenant(**actions: Any) -> Simulation:
    scripts = TENANT_ACTIONS | {name.replace("__", "."): script for name, script in actions.items()}
    return Simulation(tenant_onboarding, TENANT, actions=scripts, registry=Registry(SHIPPED))


def customer(**actions: Any) -> Simulation:
    scripts = CUSTOMER_ACTIONS | {name.replace("__", "."): script for name, script in actions.items()}
    return Simulation(customer_onboarding, SIGNUP, actions=scripts, registry=Registry(SHIPPED))


def happy() -> Simulation:
    return tenant()


def retried_after_timeouts() -> Simulation:
    sim = tenant(billing__create_subscription=in_turn(NEVER, fails("busy", retryable=True), {"subscription_id": "s-1"}))
    sim.run_until_idle()
    return sim


def parked_and_retried() -> Simulation:
    sim = tenant(configuration__apply_entitlements=fails("plan_unknown"))
    sim.forward(minutes=3)
    sim.script("configuration.apply_entitlements", {"applied": ["seats"]})
    sim.retry(by="ann")
    return sim


def parked_and_abandoned() -> Simulation:
    sim = tenant(notifications__send_notification=fails("no_mail_server"))
    sim.forward(minutes=3)
    sim.abandon(by="ann", reason="ordered twice")
    sim.run_until_idle()
    return sim


def parked_and_skipped() -> Simulation:
    sim = tenant(notifications__send_notification=fails("no_mail_server"))
    sim.skip("activation_mail", {"notification_id": "by hand"}, by="ann", reason="called her")
    return sim


def deadline_passed() -> Simulation:
    sim = tenant(tenancy__activate_tenant=in_turn(*[NEVER] * 3))
    sim.forward(minutes=20)
    return sim


def waits_and_an_approval() -> Simulation:
    sim = customer()
    sim.forward(days=1)
    sim.fact("identity.EmailConfirmedV1", key=("user", "u-1"), data={"user_id": "u-1", "email": "ann@example.org"})
    sim.forward(days=2)
    sim.approve("sales-review", by="bob", comment="fine")
    sim.fact("billing.FirstPaymentReceivedV1", key=("customer", "c-1"), data={"customer_id": "c-1", "amount": 49})
    return sim


def waited_in_vain() -> Simulation:
    sim = customer()
    sim.run_until_idle()
    return sim


def approval_timed_out() -> Simulation:
    sim = customer()
    sim.fact("identity.EmailConfirmedV1", key=("user", "u-1"), data={"user_id": "u-1"})
    sim.run_until_idle()
    return sim


def compensated() -> Simulation:
    return customer(crm__create_contact=fails("no_such_pipeline", irrecoverable=True))


def undo_failed_and_abandoned() -> Simulation:
    sim = customer(crm__create_contact=fails("broken"), billing__delete_customer=fails("locked"))
    undo = next(effect.undo for effect in sim.ledger.values() if effect.step == "create-billing")
    assert undo is not None
    sim = customer(**{"crm__create_contact": fails("broken"), undo.replace(".", "__"): fails("locked")})
    sim.run_until_idle()
    sim.abandon(by="ann", reason="closed by hand")
    return sim


def cancelled() -> Simulation:
    sim = customer()
    sim.cancel(by="ann", reason="asked for it")
    sim.run_until_idle()
    return sim


def sibling_cancelled() -> Simulation:
    sim = tenant(billing__create_subscription=NEVER, identity__invite_user=fails("blocked", irrecoverable=True))
    sim.forward(seconds=45)
    sim.run_until_idle()
    return sim


def terminated() -> Simulation:
    sim = customer()
    sim.terminate(by="ann", reason="now")
    return sim


def asked_what_became_of_it() -> Simulation:
    actions = {
        "pay.charge": ActionSpec(
            name="pay.charge",
            kind="command",
            command="pay.ChargeV1",
            undo="pay.refund",
            ambiguous="query",
            query="pay.FindChargeV1",
            retry=RetryPolicy(attempts=2),
        ),
        "pay.refund": ActionSpec(name="pay.refund", kind="command", command="pay.RefundV1"),
    }
    sim = Simulation(recorded_charge, actions={"pay.charge": NEVER}, registry=actions)
    sim.run_until_idle()
    return sim


LIFE_ACTIONS: dict[str, Any] = {
    "billing.confirm_past_due": {"subscription_id": "s-1", "past_due": True},
    "billing.close_subscription": {"subscription_id": "s-1", "status": "active"},
    "identity.disable_users": {"tenant": "acme", "count": 2},
    "configuration.withdraw_entitlements": {"tenant": "acme", "edition": "free", "entitlements": {}, "flags": {}},
    "tenancy.hold_tenant": {"tenant": "acme", "state": "Active", "cause": "past_due", "fresh": True},
    "tenancy.suspend_tenant": {"tenant": "acme", "state": "Suspended", "reason": "x", "cause": "past_due"},
    "tenancy.decommission_tenant": fails("transition_refused", irrecoverable=True),
}


def suspended_after_the_grace() -> Simulation:
    due = {"subscription_id": "s-1", "days": 3, "grace_days": 7}
    sim = Simulation(tenant_suspension, due, actions=LIFE_ACTIONS, registry=Registry(SHIPPED))
    sim.forward(days=7)
    return sim


def closure_given_back() -> Simulation:
    sim = Simulation(tenant_closure, {"reason": "bye"}, actions=LIFE_ACTIONS, registry=Registry(SHIPPED))
    sim.run_until_idle()
    return sim


def generated_for_a_product() -> Simulation:
    registry = Registry((*SHIPPED, shop.MODULE))
    onboarding, _ = load(PRODUCT, installed(registry, registry.action_specs()))
    scripts = TENANT_ACTIONS | {"shop.open_storefront": {"address": "https://acme.shop.example"}}
    return Simulation(onboarding.saga, TENANT, actions=scripts, registry=registry)


def values() -> Simulation:
    sim = Simulation(recorded_values)
    sim.run_until_idle()
    return sim


def queued_and_held() -> Story:
    story = Story(sagas.stubborn).when(begun(queued=True), admitted(), lost("try")).holding().when(due("retry/try/1/1"))
    return story.holding(False).when(admitted(), done("try", {"id": 1}))


def asked_to_come_later() -> Story:
    """Put off more often than it may fail, asked to wait, and then gone back by an undo that waits as well."""
    story = Story(sagas.three).when(begun(), done("one", "first"))
    for number in range(1, 6):
        story.when(lost("two", waits={"put_off_seconds": 60.0}), due(f"retry/two/1/{number}"))
    story.when(lost("two", waits={"retry_after_seconds": 60.0}, retryable=False))
    return story.when(undo_lost("one", waits={"retry_after_seconds": 90.0}), due("undo-retry/one/1/1"), undone("one"))


def gone_on_from_its_progress() -> Story:
    story = Story(sagas.stubborn).when(begun(), moved("try", {"piece": 1}), moved("try", {"piece": 2}), lost("try"))
    return story.when(due("retry/try/1/1"), moved("try", {"piece": 3}, attempt=2), done("try", {"id": 1}))


def saga_changed() -> Story:
    from engine.plan.replay import CodePlan

    story = Story(sagas.three).when(begun(), done("one"))
    good, story.plan = story.plan, CodePlan(sagas.stubborn, {})
    story.when(done("two"))
    story.plan = good
    return story.when(retried(), done("three"))


def run_once_more() -> Story:
    """What stands, what was undone, what was waited for, and a step that keeps its key."""
    story = given(sagas.long_way, done("one", "first"), matched("paid", {"amount": 5}), approved("check"))
    story.when(due("sleep/nap/1"), done("two", "second"), lost("three", ambiguous=True, retryable=False))
    before = story.when(undo_lost("three"), telling.terminated()).state
    rerun = Story(sagas.long_way)
    rerun.when(begun(scope=str(before.run_id), inherited=inherit(before, repeat=("three",))))
    return rerun.when(lost("three", retryable=False), undone("two"), undone("one"))


def undone_by_another() -> Story:
    """A run that unwinds a child which had succeeded."""
    before = given(sagas.three, done("one", "first"), done("two", "second"), done("three")).state
    parent = {"run_id": str(UUID(int=9)), "step": "child", "visit": 1, "attempt": 1, "undo": True}
    trigger = {"kind": "unwind", "id": str(before.run_id), "parent": parent, "depth": 2}
    story = Story(sagas.three).when(begun(trigger=trigger, scope=str(before.run_id), adopted=adopt(before)))
    return story.when(undone("three"), undone("two"), undone("one"))


def continued_as_another() -> Story:
    return given(sagas.rolling, done("pass", "first"), data={"left": 1})


def waited_for_a_child() -> Story:
    child = {"run_id": str(UUID(int=9)), "output": "grown up"}
    story = given(sagas.parental, done("child", child), lost("after", retryable=False))
    return story.when(undone("child"))


SHAPES_OF_RUNS: Mapping[str, Callable[[], Simulation | Story]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        happy,
        retried_after_timeouts,
        parked_and_retried,
        parked_and_abandoned,
        parked_and_skipped,
        deadline_passed,
        waits_and_an_approval,
        waited_in_vain,
        approval_timed_out,
        compensated,
        undo_failed_and_abandoned,
        cancelled,
        sibling_cancelled,
        terminated,
        asked_what_became_of_it,
        values,
        suspended_after_the_grace,
        closure_given_back,
        generated_for_a_product,
        queued_and_held,
        asked_to_come_later,
        gone_on_from_its_progress,
        saga_changed,
        run_once_more,
        undone_by_another,
        waited_for_a_child,
        continued_as_another,
    )
}


def stream(events: list[RunEvent]) -> list[dict[str, Any]]:
    return [{"topic": event.TOPIC, "body": orjson.loads(RUN_EVENTS.encode(event))} for event in events]


def shown(value: Any) -> Any:
    """A state as JSON: keys of (name, visit) joined, sets sorted, times as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: shown(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {"/".join(map(str, key)) if isinstance(key, tuple) else key: shown(one) for key, one in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [shown(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value) if isinstance(value, UUID) else value


def shapes() -> dict[str, dict[str, list[str]]]:
    """What each event class of today looks like: topic, version, fields with their types."""
    return {
        event.TOPIC: {str(event.VERSION): [f"{field.name}: {field.type}" for field in fields(event)]}
        for event in (*all_run_events(), *TENANT_EVENTS)
    }


def write(path: Path, document: Any) -> None:
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def main() -> None:
    for name, play in SHAPES_OF_RUNS.items():
        path = HERE / f"{name}.json"
        if not path.exists():
            played = play()
            events = played.events if isinstance(played, Simulation) else played.log
            state: RunState = played.state
            write(
                path,
                {
                    "run_id": str(state.run_id),
                    "tenant": state.tenant,
                    "status": state.status,
                    "events": stream(events),
                    "state": shown(state),
                },
            )
    known: dict[str, dict[str, list[str]]] = orjson.loads(SHAPES.read_bytes()) if SHAPES.exists() else {}
    for topic, versions in shapes().items():
        for version, shape in versions.items():
            known.setdefault(topic, {}).setdefault(version, shape)
    write(SHAPES, known)


if __name__ == "__main__":
    main()
