"""What becomes of one step: its record, its retries, its limit, its failure; and of whoever started it."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import quantiles

import pytest

from tests.stories.house import House, MovableClock, Record, Stack, until, until_now
from tests.stories.provider import Provider
from tests.stories.workshop import direct_command, errand, forgiving, workbench

SAGAS = (errand, forgiving, workbench, direct_command)
LOADED = ("tests.stories.workshop",)


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _sandboxed(provider: Provider) -> Record:
    return {"egress": {"sandbox": (provider.address,)}}


@pytest.mark.acceptance("G6")
async def test_the_record_of_a_step_is_complete_for_success_failure_retries_and_compensation(stack: Stack) -> None:
    async with House(stack, sagas=SAGAS) as house:
        run = await house.start("workbench", "acme", {"email": "eve@customer.example", "card": "4111-1111"})
        ended = await house.until_status(run, "compensated")
        shown = await house.cli("runs", "show", run)
        by_cli = {step["step"]: step for step in shown["steps"]}
        assert await house.steps(run) == by_cli
        user, noted, broken = by_cli["user"], by_cli["note"], by_cli["break"]
        assert ended["trigger"]["kind"] == "manual"
        assert ended["data"]["card"] == "4111-1111"

        for step in by_cli.values():
            assert step["key"] == f"{run}/{step['step']}/1"
            assert step["cost"] >= 0
            assert _at(step["started_at"]) <= _at(step["ended_at"])
            took = _at(step["ended_at"]) - _at(step["started_at"])
            assert step["duration_seconds"] == pytest.approx(took.total_seconds())
        assert (user["status"], user["error"], user["input"]["email"]) == ("succeeded", None, "[redacted]")
        assert user["output"]["user_id"].startswith("usr_")
        assert (noted["input"], noted["output"]) == ({"text": "halfway"}, {"noted": "halfway", "attempt": 1})
        assert noted["undo"] is None

        assert (broken["status"], broken["output"]) == ("failed", None)
        assert (broken["error"]["code"], broken["error"]["message"]) == ("raised", "ValueError")
        assert "explode" in str(broken["error"]["stack"])
        assert "4111" not in str(broken["error"])
        assert [attempt["attempt"] for attempt in broken["attempts"]] == [1, 2]
        assert _at(broken["attempts"][1]["started_at"]) >= _at(broken["attempts"][0]["retry_at"])
        assert [attempt["error"]["code"] for attempt in broken["attempts"]] == ["raised", "raised"]

        assert user["undo"]["status"] == "done"
        assert user["undo"]["action"].startswith("identity.remove_user")
        assert len(user["undo"]["attempts"]) == 1
        assert user["undo"]["output"] is not None


@pytest.mark.acceptance("G10")
async def test_retries_come_at_their_times_and_an_answer_that_cannot_be_retried_stops_at_once(stack: Stack) -> None:
    async with Provider() as provider, House(stack, sagas=SAGAS, **_sandboxed(provider)) as house:
        order = {"id": "o-1", "attempts": 4}
        patient = await house.start("errand", "acme", {**order, "url": provider.url("/busy/3")})
        exhausted = await house.start("errand", "acme", {**order, "url": provider.url("/busy/9"), "attempts": 2})
        hopeless = await house.start("errand", "acme", {**order, "url": provider.url("/refuse")})

        await house.until_status(patient, "succeeded")
        attempts = (await house.steps(patient))["call"]["attempts"]
        assert [attempt["error"] and attempt["error"]["code"] for attempt in attempts] == [*["http_503"] * 3, None]
        waits = [_at(one["retry_at"]) - _at(one["ended_at"]) for one in attempts[:-1]]
        assert waits == [timedelta(seconds=0.2), timedelta(seconds=0.4), timedelta(seconds=0.8)]
        for before, after in pairwise(attempts):
            assert _at(after["started_at"]) >= _at(before["retry_at"])

        failed = await house.until_status(exhausted, "failed")
        assert failed["error_code"] == "http_503"
        assert len((await house.steps(exhausted))["call"]["attempts"]) == 2

        refused = await house.until_status(hopeless, "failed")
        assert refused["error_code"] == "http_400"
        [attempt] = (await house.steps(hopeless))["call"]["attempts"]
        assert attempt["retry_at"] is None
        keys = {run: f"{run}/call/1" for run in (patient, exhausted, hopeless)}
        assert dict(provider.calls) == {keys[patient]: 4, keys[exhausted]: 2, keys[hopeless]: 1}


@pytest.mark.acceptance("G10")
async def test_whoever_asks_to_be_left_alone_is_and_no_longer_than_an_hour(stack: Stack) -> None:
    clock = MovableClock()
    async with Provider() as provider, House(stack, clock=clock, sagas=SAGAS, **_sandboxed(provider)) as house:
        asked = {"1200": timedelta(seconds=1200), "86400": timedelta(hours=1)}
        runs = {
            seconds: await house.start("errand", "acme", {"id": seconds, "url": provider.url(f"/later/{seconds}")})
            for seconds in asked
        }
        for seconds, run in runs.items():
            step = await house.until_step(run, "call", lambda found: found["status"] == "backoff")
            [attempt] = step["attempts"]
            assert _at(attempt["retry_at"]) - _at(attempt["ended_at"]) == asked[seconds]
            assert attempt["error"]["retry_after_seconds"] == float(seconds)
        clock.forward(seconds=1100)
        explained = await house.api.get(f"/v1/runs/{runs['1200']}/explain")
        assert "retry/call/1/1" in str(explained)
        assert set(provider.calls.values()) == {1}
        for seconds, ahead in (("1200", 100), ("86400", 2400)):
            clock.forward(seconds=ahead)
            await house.until_status(runs[seconds], "succeeded")
        assert dict(provider.calls) == {f"{run}/call/1": 2 for run in runs.values()}
        for run in runs.values():
            assert (await house.api.get(f"/v1/runs/{run}/replay"))["same"]


@pytest.mark.acceptance("G11")
async def test_a_failed_step_that_may_be_missing_lets_the_run_go_on_marked_with_its_error(stack: Stack) -> None:
    async with Provider() as provider, House(stack, sagas=SAGAS, **_sandboxed(provider)) as house:
        lucky = await house.start("forgiving", "acme", {"url": provider.url("/ok")})
        run = await house.start("forgiving", "acme", {"url": provider.url("/refuse")})
        ended = await house.until_status(run, "succeeded")
        assert ended["output"] == {"said": "http_400"}
        assert ended["error_code"] == "http_400"
        steps = await house.steps(run)
        assert {name: step["status"] for name, step in steps.items()} == {"call": "failed", "note": "succeeded"}
        clean = await house.until_status(lucky, "succeeded")
        assert (clean["output"], clean["error_code"]) == ({"said": "got it"}, None)


@pytest.mark.acceptance("G12")
async def test_an_action_that_hangs_ends_at_its_limit_and_is_retried_or_failed(stack: Stack) -> None:
    async with Provider() as provider, House(stack, sagas=SAGAS, **_sandboxed(provider)) as house:
        order = {"id": "o-1", "url": provider.url("/hold"), "limit": 0.5}
        retried = await house.start("errand", "acme", {**order, "attempts": 9})
        failed = await house.start("errand", "acme", {**order, "attempts": 2})
        await house.until_step(failed, "call", lambda step: step["status"] in ("failed", "parked"))
        attempts = (await house.steps(failed))["call"]["attempts"]
        assert [attempt["error"]["code"] for attempt in attempts] == ["timeout", "timeout"]
        for attempt in attempts:
            took = (_at(attempt["ended_at"]) - _at(attempt["started_at"])).total_seconds()
            assert 0.5 <= took < 5
        provider.release()
        await house.until_status(retried, "succeeded")
        assert len((await house.steps(retried))["call"]["attempts"]) >= 2
        assert provider.effects[f"{retried}/call/1"] == 1


ENGINE = ("intake", "worker", "timer", "janitor", "relay")


@pytest.mark.acceptance("G1", "G4", "I1")
@pytest.mark.parametrize("place", ["hold-first", "hold"])
async def test_an_intent_whose_engine_was_killed_is_on_record_until_another_resolves_it_under_the_same_key(
    stack: Stack, place: str
) -> None:
    """`hold-first`: killed before the effect; `hold`: after it, before its outcome could be recorded."""
    async with (
        Provider() as provider,
        House(
            stack, roles=("web", "projector"), modules=(), dead_seconds=1.0, loads=LOADED, **_sandboxed(provider)
        ) as house,
    ):
        await house.api.put("/v1/tenants/acme/quotas", {"concurrent_runs": 1})
        engine = await house.process(*ENGINE)
        run = await house.start("errand", "acme", {"id": "o-1", "url": provider.url(f"/{place}")})
        key = f"{run}/call/1"
        await until_now(lambda: provider.calls[key], lambda calls: calls == 1)
        assert provider.effects[key] == (place == "hold")
        await engine.kill()
        step = await house.until_step(run, "call", lambda found: found["status"] == "open")
        assert (step["key"], step["output"], step["ended_at"]) == (key, None, None)
        assert len(step["attempts"]) == 1
        explained = await house.api.get(f"/v1/runs/{run}/explain")
        assert "call" in explained["sentence"] + str(explained["branches"])
        provider.release()
        await house.process(*ENGINE)
        ended = await house.until_status(run, "succeeded")
        assert ended["output"] == {"status": 200}
        assert (provider.calls[key], provider.effects[key]) == (2, 1)
        assert list(provider.effects) == [key]
        # The tenant's one slot is free again: whoever is dead keeps none.
        await house.until_status(
            await house.start("errand", "acme", {"id": "o-2", "url": provider.url("/ok")}), "succeeded"
        )


@pytest.mark.acceptance("G13")
async def test_slow_runs_never_slow_the_sender_and_what_waits_is_done_after_a_restart(stack: Stack) -> None:
    async with (
        Provider() as provider,
        House(
            stack, roles=("web", "projector"), modules=(), dead_seconds=1.0, loads=LOADED, **_sandboxed(provider)
        ) as house,
    ):
        engine = await house.process(*ENGINE)
        slow: list[float] = []
        idle: list[float] = []

        async def publish(number: int, kind: str, data: Record, times: list[float]) -> None:
            began = time.perf_counter()
            await house.api.post("/v1/events", {"type": kind, "data": data}, key=f"{kind}-{number}", tenant="acme")
            times.append(time.perf_counter() - began)

        def signup(number: int) -> Record:
            who = f"user{number}"
            return {
                "signup_id": who,
                "email": f"{who}@customer.example",
                "name": who,
                "company": provider.url("/hold"),
            }

        for number in range(60):
            # Side by side, so that whatever else this machine does meets both alike.
            await publish(number, "billing.PaymentPastDueV1", {"subscription_id": f"s-{number}", "days": 3}, idle)
            await publish(number, "crm.SignupRequestedV1", signup(number), slow)
        await until_now(lambda: len(provider.calls), lambda calls: calls == 60)
        assert _p95(slow) <= 2 * _p95(idle) + 0.02

        await engine.kill()
        for number in range(60, 80):
            await publish(number, "crm.SignupRequestedV1", signup(number), slow)
        assert len(provider.calls) == 60
        provider.release()
        await house.process(*ENGINE)
        await until_now(lambda: sum(provider.effects.values()), lambda done: done == 80)

        async def ended() -> int:
            page = await house.api.get("/v1/runs", tenant="acme", status="succeeded", limit=200)
            return len(page["items"])

        assert await until(ended, lambda count: count == 80) == 80


def _p95(times: list[float]) -> float:
    return quantiles(times, n=20)[-1]
