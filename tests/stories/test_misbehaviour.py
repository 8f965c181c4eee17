"""Modules that answer twice, never, late or with garbage, and sagas that raise, hang or change: a clear word about
each, the engine stays up, and nothing is lost."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from consumers.module_host import module_settings
from consumers.modules import make_module
from contracts.modules import billing
from contracts.sdk import open_transport
from engine.plan.code import Run, Saga, saga
from engine.sagas import SHIPPED
from tests.stories.house import House, MovableClock, Record, Stack, until
from tests.stories.understudy import asked, fact, reply, success

ORDER = "billing.CreateCustomerV1"
WITHOUT_BILLING = ("tenancy", "identity", "configuration", "notifications", "crm", "audit")


async def _billed(house: House, tenant: str, run: str) -> str | None:
    """The customer that billing holds for the run's account; None while there is none."""
    account = ((await house.steps(run)).get("create-account", {}).get("output") or {}).get("user_id")
    if account is None:
        return None
    query = billing.GetCustomerV1(account_id=account)
    return (await house.ask(billing.MODULE, query, billing.CustomerSnapshotV1, tenant)).customer_id


async def test_a_module_that_answers_twice_or_garbage_or_not_at_all_has_its_effect_once(stack: Stack) -> None:
    clock = MovableClock()
    async with House(stack, clock=clock) as house:
        runs: Record = {}
        for mode in ("twice", "garbage", "mute"):
            await house.script(mode, ORDER, mode)
            runs[mode] = await house.sign_up(mode)
        await house.until_state(runs["twice"], "AwaitingConfirmation")
        assert len((await house.steps(runs["twice"]))["create-billing"]["attempts"]) == 1
        letter = await house.until_letter(reason="envelope_invalid")
        assert "JSON" in letter["detail"]
        for mode in ("garbage", "mute"):
            # Done, but nobody knows: the step waits for its limit, asks again under its key, and is told what was done.
            await house.until_step(runs[mode], "create-billing", lambda step: step["status"] == "open")
            await until(partial(_billed, house, mode, runs[mode]), bool)
            assert (await house.steps(runs[mode]))["create-billing"]["status"] == "open"
        clock.forward(seconds=31)
        for mode in ("garbage", "mute"):
            await house.until_step(runs[mode], "create-billing", lambda step: step["status"] != "open")
        clock.forward(seconds=5)
        for mode in ("garbage", "mute"):
            await house.until_state(runs[mode], "AwaitingConfirmation")
            step = (await house.steps(runs[mode]))["create-billing"]
            assert [one["error"] and one["error"]["code"] for one in step["attempts"]] == ["timeout", None]
            commands = house.ear.commands(ORDER, tenant=mode)
            assert len({command.id for command in commands}) == 1
            assert await _billed(house, mode, runs[mode]) == step["output"]["customer_id"]
        for mode in runs:
            assert house.ear.facts(mode)["billing.CustomerCreatedV1"] == 1


async def test_a_module_that_never_answers_makes_its_step_fail_and_what_it_says_later_is_ignored(stack: Stack) -> None:
    clock = MovableClock()
    async with House(stack, clock=clock, modules=WITHOUT_BILLING) as house:
        run = await house.sign_up("acme")
        for attempt in (1, 2, 3):
            await asked(house, ORDER, "acme", count=attempt)
            await house.until_attempt(run, "create-billing", attempt)
            clock.forward(seconds=31)
            await house.until_step(run, "create-billing", lambda step: step["status"] in ("backoff", "failed"))
            clock.forward(seconds=10)
        step = await house.until_step(run, "create-billing", lambda step: step["status"] == "failed")
        assert step["ambiguous"]
        # Nobody knows whether it was done, so it is undone first: the undo also refuses a do that is still under way.
        undo = await asked(house, "billing.CloseCustomerV1", "acme")
        assert undo.data["receipt"] is None
        await house.ear.send(reply(undo, "billing.CustomerClosedV1", {"customer_id": None}))
        ended = await house.until_status(run, "compensated")
        command = await asked(house, ORDER, "acme")
        data = {"customer_id": "cus_late", "account_id": "usr_1", "email": "bob@customer.example"}
        await house.ear.send(reply(command, "billing.CustomerCreatedV1", data))
        marker = await house.sign_up("acme", "marker")
        await asked(house, ORDER, "acme", count=4)
        assert (await house.run(run) or {})["version"] == ended["version"]
        await house.until_status(marker, "running")


async def test_answers_of_the_wrong_tenant_kind_or_cause_move_nothing(stack: Stack) -> None:
    async with House(stack, modules=("tenancy", "audit")) as house:
        run = await house.register("acme")
        command = await asked(house, "identity.InviteUserV1", "acme")
        right = success(command)
        other = fact("identity.UserInvitedV1", dict(right.data), tenant="acme")
        await house.ear.send(reply(command, right.type, dict(right.data), tenant="globex"))
        await house.ear.send(
            reply(command, "identity.EmailConfirmedV1", {"user_id": "usr_1", "email": "x@example.org"})
        )
        await house.ear.send(other)
        await house.ear.send(reply(command, "identity.UserInvitedV1", {"user_id": 7}))
        letter = await house.until_letter(reason="payload_invalid")
        assert "user_id" in letter["detail"]
        await house.until_step(run, "owner", lambda found: found["status"] == "open")
        await house.ear.send(right, copies=3)
        step = await house.until_step(run, "owner", lambda found: found["status"] == "succeeded")
        assert step["output"]["user_id"] == right.data["user_id"]


async def test_a_command_that_no_module_is_bound_for_is_kept_until_one_is_and_sent_to_it(stack: Stack) -> None:
    async with House(stack, modules=WITHOUT_BILLING, hears=("events",)) as house:
        run = await house.sign_up("acme")
        letter = await house.until_letter(tenant="acme", type=ORDER)
        step = await house.until_step(run, "create-billing", lambda found: found["status"] == "open")
        explained = await house.api.get(f"/v1/runs/{run}/explain")
        assert "create-billing" in explained["sentence"] + str(explained["branches"])

        assert house.host.sink is not None
        transport = open_transport(house.bus_url, name="late-module")
        late = make_module("billing", transport, module_settings(house.settings, mail_port=house.host.sink.port))
        await late.start()
        try:
            await house.api.post(f"/v1/dead-letters/{letter['id']}/redrive")
            await house.until_state(run, "AwaitingConfirmation")
        finally:
            await late.stop()
        done = (await house.steps(run))["create-billing"]
        assert (done["key"], done["status"], len(done["attempts"])) == (step["key"], "succeeded", 1)


# ---------------------------------------------------------------------------------------------------------------- sagas


async def _broken(run: Run, data: dict[str, Any]) -> str:
    await run.step("user", "identity.create_user", email=data["email"], name="Eve")
    return str(data["no such field"])


async def _stuck(run: Run, data: dict[str, Any]) -> str:
    await run.step("user", "identity.create_user", email=data["email"], name="Eve")
    while True:
        pass


async def _mended(run: Run, data: dict[str, Any]) -> str:
    user = await run.step("user", "identity.create_user", email=data["email"], name="Eve")
    return str(user["user_id"])


async def _changed(run: Run, data: dict[str, Any]) -> str:
    await run.step("customer", "billing.create_customer", account_id="usr_1", email=data["email"], name="Eve")
    return "changed"


async def _waiting(run: Run, data: dict[str, Any]) -> str:
    user = await run.step("user", "identity.create_user", email=data["email"], name="Eve")
    await run.wait_for("paid", "billing.FirstPaymentReceivedV1", key=("customer", "cus_1"))
    return str(user["user_id"])


def _version(function: Any, name: str) -> Saga:
    return saga(name, version=1)(function)


@pytest.mark.parametrize(("function", "reason"), [(_broken, "saga_raised"), (_stuck, "saga_stuck")])
async def test_a_saga_that_raises_or_hangs_is_parked_the_engine_goes_on_and_a_mended_one_takes_it_up(
    stack: Stack, function: Any, reason: str
) -> None:
    async with House(stack, sagas=(*SHIPPED, _version(function, "frail"))) as house:
        run = await house.start("frail", "acme", {"email": "eve@customer.example"})
        parked = await house.until_status(run, "parked")
        assert parked["parked"].startswith(reason)
        assert "test_misbehaviour" in parked["parked"] or function.__name__ in parked["parked"]
        [notice] = await house.until_heard("unwind.RunParkedV1", tenant="acme")
        assert (notice.data["run_id"], notice.data["reason"]) == (run, reason)
        other = await house.sign_up("globex")
        await house.until_state(other, "AwaitingConfirmation")

        await house.restart(sagas=(*SHIPPED, _version(_mended, "frail")))
        await house.api.post(f"/v1/runs/{run}/retry")
        ended = await house.until_status(run, "succeeded")
        assert ended["output"].startswith("usr_")
        assert len(house.ear.commands("identity.CreateUserV1", tenant="acme")) == 1


async def _asks_too_much(run: Run, data: dict[str, Any]) -> None:
    await run.step("user", "identity.create_user", email=data["email"], name="E" * 400_000)


async def _asks_in_no_json(run: Run, data: dict[str, Any]) -> None:
    await run.step("user", "identity.create_user", email=data["email"], name=object())


async def _asks_nobody(run: Run, data: dict[str, Any]) -> None:
    await run.step("user", "identity.no_such_thing", email=data["email"])


async def _answers_too_much(run: Run, data: dict[str, Any]) -> str:
    return "E" * 400_000


SAID_OF = {
    _asks_too_much: "pass at most",
    _asks_in_no_json: "must be JSON",
    _asks_nobody: "'identity.no_such_thing'",
    _answers_too_much: "return at most",
}


async def test_what_a_saga_hands_over_that_cannot_be_used_parks_its_run_with_a_clear_word(stack: Stack) -> None:
    sagas = {function.__name__.replace("_", "-").strip("-"): function for function in SAID_OF}
    made = [_version(function, name) for name, function in sagas.items()]
    async with House(stack, sagas=(*SHIPPED, *made)) as house:
        runs = {name: await house.start(name, "acme", {"email": "eve@customer.example"}) for name in sagas}
        for name, run in runs.items():
            parked = await house.until_status(run, "parked")
            assert parked["parked"].startswith("saga_raised")
            assert SAID_OF[sagas[name]] in parked["parked"]
        assert house.ear.commands(tenant="acme") == []
        other = await house.sign_up("globex")
        await house.until_state(other, "AwaitingConfirmation")


async def _leaves_out(run: Run, data: dict[str, Any]) -> None:
    await run.step("user", "identity.create_user", email=data["email"])


async def _misspells(run: Run, data: dict[str, Any]) -> None:
    await run.step("user", "identity.create_user", email=data["email"], name="Eve", nmae="Eve")


async def _mistakes_a_number_for_a_text(run: Run, data: dict[str, Any]) -> None:
    await run.gather(
        run.step("good", "identity.create_user", email=data["email"], name="Eve"),
        run.step("user", "identity.create_user", email=data["email"], name=5),
    )


WRONG_FIELD = {_leaves_out: "/name", _misspells: "/nmae", _mistakes_a_number_for_a_text: "/name"}


async def test_a_step_that_does_not_fit_its_command_parks_at_once_naming_the_field_and_nothing_is_sent(
    stack: Stack,
) -> None:
    names = {function.__name__.replace("_", "-").strip("-"): function for function in WRONG_FIELD}
    frail = [_version(function, name) for name, function in names.items()]
    async with House(stack, sagas=(*SHIPPED, *frail)) as house:
        runs = {name: await house.start(name, "acme", {"email": f"{name}@customer.example"}) for name in names}
        for name, run in runs.items():
            parked = await house.until_status(run, "parked")
            assert parked["parked"].startswith("saga_raised: step 'user' (identity.create_user): payload_invalid: ")
            assert f"identity.CreateUserV1: {WRONG_FIELD[names[name]]}: " in parked["parked"]
            assert "customer.example" not in parked["parked"]
            assert parked["steps"] == 0
        assert house.ear.commands(tenant="acme") == []
        assert (await house.api.get("/v1/dead-letters"))["items"] == []

        await house.restart(sagas=(*SHIPPED, *(_version(_mended, name) for name in names)))
        for run in runs.values():
            await house.api.post(f"/v1/runs/{run}/retry")
            assert (await house.until_status(run, "succeeded"))["output"].startswith("usr_")
        assert len(house.ear.commands("identity.CreateUserV1", tenant="acme")) == len(runs)


async def test_a_saga_that_changed_under_a_running_run_parks_it_with_a_readable_difference(stack: Stack) -> None:
    async with House(stack, sagas=(*SHIPPED, _version(_waiting, "frail"))) as house:
        run = await house.start("frail", "acme", {"email": "eve@customer.example"})
        await house.until_status(run, "waiting")
        await house.restart(sagas=(*SHIPPED, _version(_changed, "frail")))
        paid = {"customer_id": "cus_1", "payment_id": "pay_1", "amount_minor": 1, "currency": "EUR"}
        await house.ear.send(fact("billing.FirstPaymentReceivedV1", paid, tenant="acme"))
        parked = await house.until_status(run, "parked")
        assert parked["parked"].startswith("saga_changed")
        assert "'user'" in parked["parked"]
        assert house.ear.commands(ORDER, tenant="acme") == []

        await house.restart(sagas=(*SHIPPED, _version(_waiting, "frail")))
        await house.api.post(f"/v1/runs/{run}/retry")
        ended = await house.until_status(run, "succeeded")
        assert ended["output"].startswith("usr_")
