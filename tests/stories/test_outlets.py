"""Notices are delivered outside, signed as Standard Webhooks asks: to those they are for, again until they are taken,
and no longer to who takes nothing.
"""

from __future__ import annotations

import orjson
import pytest

from contracts.envelope import format_time
from tests.stories.house import House, MovableClock, Record, Stack, until, until_now
from tests.stories.receiver import Came, Receiver
from tests.stories.test_secrets import proven

INSIDE = {"url": "http://10.0.0.1/", "method": "GET"}
ENDED = "unwind.RunEndedV1"


async def fail(house: House, tenant: str) -> str:
    """A run that fails, of which there is one notice."""
    run = await house.start("proven", tenant, INSIDE)
    await house.until_status(run, "failed")
    return run


def about(came: list[Came], run: str) -> list[Came]:
    return [one for one in came if one.document["data"].get("run_id") == run]


async def add(house: House, receiver: Receiver, tenant: str, name: str, *types: str) -> str:
    """Makes an outlet that leads to the place of its name; answers its secret."""
    given = {"name": name, "url": receiver.url(f"/{name}"), "types": list(types)}
    made = await house.api.post("/v1/outlets", given, act_for=tenant)
    return str(made["secret"])


async def deliveries(house: House, tenant: str, name: str) -> list[Record]:
    found = await house.api.get(f"/v1/outlets/{name}/deliveries", tenant=tenant)
    return list(found["items"])


async def test_a_notice_is_delivered_signed_to_those_it_is_for_and_again_until_it_is_taken(stack: Stack) -> None:
    clock = MovableClock()
    async with (
        Receiver() as receiver,
        House(stack, clock=clock, sagas=(proven,), modules=(), egress={"sandbox": (receiver.address,)}) as house,
    ):
        where = receiver.url("/flaky")
        secret = (await house.cli("outlets", "add", "flaky", where, "--tenant", "acme", "--type", ENDED))["secret"]
        board = await add(house, receiver, "platform", "board")
        other = await add(house, receiver, "acme", "deaf", "unwind.RunParkedV1")
        runs = {tenant: await fail(house, tenant) for tenant in ("acme", "globex")}

        await until_now(lambda: receiver.at("flaky"), bool)
        [waiting] = await until(
            lambda: deliveries(house, "acme", "flaky"), lambda items: bool(items and items[0]["attempts"])
        )
        assert (waiting["state"], waiting["status"], waiting["error"]) == ("waiting", 500, "http_500")
        clock.forward(seconds=6)
        await until_now(lambda: receiver.at("flaky"), lambda came: len(came) == 2)
        first, again = receiver.at("flaky")
        assert first.id == again.id == waiting["message_id"]
        assert first.body == again.body
        for one in (first, again):
            assert one.proven_by(secret)
            assert not one.proven_by(secret, one.body.replace(b"failed", b"passed"))
            assert not one.proven_by(board)
        said = again.document
        assert (said["type"], said["tenant"]) == (ENDED, "acme")
        assert (said["data"]["run_id"], said["data"]["status"]) == (runs["acme"], "failed")

        # The platform hears of all tenants, each notice under its one id; a tenant of itself alone.
        for run in runs.values():
            await until_now(lambda run=run: about(receiver.at("board"), run), bool)  # type: ignore[misc]
        [same] = [one for one in about(receiver.at("board"), runs["acme"]) if one.document["type"] == ENDED]
        assert same.id == again.id
        assert same.proven_by(board)
        assert about(receiver.at("flaky"), runs["globex"]) == []
        assert receiver.at("deaf") == []

        # While a secret is replaced, both prove what comes.
        rotated = await house.cli("outlets", "rotate", "flaky", "--tenant", "acme", "--overlap", "1h")
        sent = await house.api.post("/v1/outlets/flaky/test", {}, act_for="acme")
        tests = await until_now(
            lambda: [one for one in receiver.at("flaky") if one.id == sent["message_id"]], lambda found: bool(found)
        )
        assert [tests[0].proven_by(one) for one in (secret, rotated["secret"], other)] == [True, True, False]
        assert len(tests[0].headers["webhook-signature"].split(" ")) == 2

        async def log() -> list[Record]:
            return await deliveries(house, "acme", "flaky")

        await until(log, lambda items: items[0]["attempts"] == 1)
        clock.forward(seconds=6)
        done = await until(log, lambda items: {one["state"] for one in items} == {"delivered"})
        assert [(one["type"], one["attempts"], one["status"]) for one in done] == [
            ("unwind.OutletTestV1", 2, 204),
            (ENDED, 2, 204),
        ]
        shown = str([await house.api.get("/v1/outlets"), done])
        assert not any(one in shown for one in (secret, rotated["secret"], board, other))
        # Nothing of a delivery, failed ones too, was a notice.
        assert {one.document["type"] for one in receiver.at("board")} <= {ENDED, "unwind.CompensationStartedV1"}

        # An address inside is refused when it is called: what a name leads to nobody can tell before.
        await house.api.post("/v1/outlets", {"name": "inside", "url": "https://10.0.0.1/"}, act_for="acme")
        await house.api.post("/v1/outlets/inside/test", {}, act_for="acme")
        found = await until(
            lambda: deliveries(house, "acme", "inside"), lambda items: bool(items and items[0]["attempts"])
        )
        assert found[0]["error"] == "egress_refused"


async def test_an_outlet_that_takes_nothing_is_disabled_and_that_is_said_once(stack: Stack) -> None:
    clock = MovableClock()
    async with (
        Receiver() as receiver,
        House(stack, clock=clock, sagas=(proven,), modules=(), egress={"sandbox": (receiver.address,)}) as house,
    ):
        for name in ("broken", "gone"):
            await add(house, receiver, "acme", name, ENDED)
        await add(house, receiver, "platform", "board", "unwind.OutletDisabledV1")
        await fail(house, "acme")
        for name in ("broken", "gone"):
            await until_now(lambda name=name: receiver.at(name), bool)  # type: ignore[misc]
        await until(
            lambda: deliveries(house, "acme", "broken"), lambda items: bool(items and items[0]["attempts"] == 1)
        )
        clock.forward(days=1)

        async def disabled() -> dict[str, str]:
            found = await house.api.get("/v1/outlets", tenant="acme")
            return {one["name"]: one["switched_why"] for one in found["items"] if not one["enabled"]}

        await until(disabled, lambda names: names == {"broken": "failing", "gone": "gone"})
        assert [one["state"] for one in await deliveries(house, "acme", "gone")] == ["failed"]
        await until_now(lambda: receiver.at("board"), lambda came: len(came) == 2)

        async def audited() -> list[Record]:
            page = await house.api.get("/v1/audit", tenant="acme", limit=100)
            return [one for one in page["items"] if one["topic"].startswith("outlet.")]

        entries = await until(audited, lambda found: len(found) >= 4)
        by_engine = [one["details"] for one in entries if one["actor"] == "engine"]
        assert sorted((one["outlet"], one["reason"]) for one in by_engine) == [
            ("broken", "failing"), ("gone", "gone"),
        ]  # fmt: skip

        # Nothing more comes until somebody enables it; what waited is delivered then.
        seen = {name: len(receiver.at(name)) for name in ("broken", "gone")}
        run = await fail(house, "acme")
        clock.forward(hours=9)
        await house.cli("outlets", "enable", "broken", "--tenant", "acme")
        await until_now(lambda: receiver.at("broken"), lambda came: len(came) > seen["broken"])
        assert about(receiver.at("broken"), run) == []
        assert len(receiver.at("gone")) == seen["gone"]
        assert sorted(one.document["data"]["outlet"] for one in receiver.at("board")) == ["broken", "gone"]


async def test_what_an_outlet_did_not_take_is_sent_again_as_it_was_and_who_had_it_sent_is_in_the_audit(
    stack: Stack,
) -> None:
    clock = MovableClock()
    async with (
        Receiver() as receiver,
        House(stack, clock=clock, sagas=(proven,), modules=(), egress={"sandbox": (receiver.address,)}) as house,
    ):
        secret = await add(house, receiver, "acme", "gone", ENDED)
        began = clock.now()
        await fail(house, "acme")

        async def log(name: str = "gone") -> list[Record]:
            return await deliveries(house, "acme", name)

        [lost] = await until(log, lambda items: bool(items and items[0]["state"] == "failed"))
        await until(lambda: house.api.get("/v1/outlets", tenant="acme"), lambda said: not said["items"][0]["enabled"])
        receiver.mended.add("gone")
        await house.cli("outlets", "enable", "gone", "--tenant", "acme")
        clock.forward(minutes=3)
        assert len(receiver.at("gone")) == 1

        async def redeliver(*what: str) -> Record:
            return dict(await house.cli("outlets", "redeliver", "gone", *what, "--tenant", "acme"))

        assert (await redeliver("--since", format_time(clock.now())))["redelivered"] == 0
        assert (await redeliver("--since", format_time(began)))["redelivered"] == 1
        [taken] = await until(log, lambda items: items[0]["state"] == "delivered")
        assert (taken["message_id"], taken["attempts"], taken["status"]) == (lost["message_id"], 1, 200)
        assert (await redeliver("--since", format_time(began)))["redelivered"] == 0

        # Whoever has lost what it took asks for it by its id, and knows it by it.
        assert (await redeliver(lost["message_id"]))["redelivered"] == 1
        came = await until_now(lambda: receiver.at("gone"), lambda found: len(found) == 3)
        assert {one.id for one in came} == {lost["message_id"]}
        assert len({one.body for one in came}) == 1
        assert came[2].proven_by(secret)

        async def audited() -> list[Record]:
            page = await house.api.get("/v1/audit", tenant="acme", limit=100)
            return [one for one in page["items"] if one["topic"] == "outlet.redelivered"]

        entries = await until(audited, lambda found: len(found) == 4)
        assert {one["actor"] for one in entries} != {"engine"}
        by_id = {"outlet": "gone", "message_id": lost["message_id"]}
        assert [one["details"] for one in entries if "message_id" in one["details"]] == [by_id]


async def test_metrics_and_doctor_name_where_notices_pile_up_and_which_outlets_are_told_nothing(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.census.PAUSE_SECONDS", 0.1)
    monkeypatch.setattr("consumers.census.PAUSE_PER_COUNT", 1)
    clock = MovableClock()
    clock.forward(hours=-1)  # what happens in this house was an hour ago for whoever looks from outside
    async with (
        Receiver() as receiver,
        House(stack, clock=clock, sagas=(proven,), modules=(), egress={"sandbox": (receiver.address,)}) as house,
    ):
        for name in ("broken", "gone", "fine", "left"):
            await add(house, receiver, "acme", name, ENDED)
        await house.cli("outlets", "disable", "left", "--reason", "we moved", "--tenant", "acme")
        await fail(house, "acme")

        async def told() -> dict[str, float]:
            lines = (await house.page(f"{house.url}/metrics")).decode().splitlines()
            samples = (line.removeprefix("unwind_outlet").rpartition(" ") for line in lines if "unwind_outlet" in line)
            return {name: float(value) for name, _, value in samples if "#" not in name and "_created" not in name}

        wanted = {
            '_deliveries_total{outcome="delivered"}': 1, '_deliveries_total{outcome="failed"}': 1,
            '_deliveries_total{outcome="retried"}': 1, "_backlog": 1,
            's_disabled{reason="failing"}': 0, 's_disabled{reason="gone"}': 1, 's_disabled{reason="person"}': 1,
        }  # fmt: skip
        found = await until(told, lambda found: {name: found.get(name) for name in wanted} == wanted)
        assert set(found) - set(wanted) == {"_backlog_age_seconds"}
        assert 0 < found["_backlog_age_seconds"] < 60

        _, printed, _ = await house.cli_raw("doctor", UNWIND_LEASE__DEAD_SECONDS="60")
        said = [one["detail"] for one in orjson.loads(printed) if one["check"] == "outlets"]
        assert [detail.partition(",")[0] for detail in said] == [
            "1 notices wait for broken of acme",
            "gone of acme is disabled (gone)",
            "left of acme is disabled (we moved)",
        ]
        assert all(word in said[0] for word in ("failing since", "`unwind outlets deliveries broken --tenant acme"))

        # What waits for one that is told nothing wakes nobody up for being old.
        await house.cli("outlets", "disable", "broken", "--tenant", "acme")
        await until(told, lambda found: (found["_backlog"], found["_backlog_age_seconds"]) == (0, 0))
        receiver.mended.add("broken")
        clock.forward(seconds=6)
        await house.cli("outlets", "enable", "broken", "--tenant", "acme")
        await until(told, lambda found: found['_deliveries_total{outcome="delivered"}'] == 2)
