"""A tenant opens its own webhook endpoints: third parties start runs there, strangers do not, and secrets are replaced
while messages come in.
"""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from engine.guards.signatures import HUB_HEADER, STRIPE_HEADER, sign_plain, sign_standard, sign_stripe
from engine.plan.code import Run, saga
from engine.sagas import SHIPPED
from tests.stories.house import House, MovableClock, Record, Stack
from tests.stories.test_pauses import audited


@saga("receipt", version=1)
async def receipt(run: Run, order: dict[str, Any]) -> dict[str, Any]:
    return {"given": order}


PAYMENT = {"id": "evt_1", "data": {"object": {"customer_email": "ada@example.org", "amount": 1200}}}


async def _send(house: House, made: Record, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    async with house.session.post(house.url + made["path"], data=body, headers=headers) as answer:
        return answer.status, await answer.read()


async def _add(house: House, name: str, *words: str) -> Record:
    made: Record = await house.cli("hooks", "add", name, "receipt", "--tenant", "acme", *words)
    return made


@pytest.mark.acceptance("A6")
async def test_a_message_of_each_scheme_starts_its_run_once_and_no_other_does(stack: Stack) -> None:
    clock = MovableClock()
    async with House(stack, sagas=[receipt, *SHIPPED], clock=clock) as house:
        paid = await _add(
            house, "payments", "--scheme", "stripe",
            "--field", "email=/data/object/customer_email", "--field", "amount=/data/object/amount",
            "--constant", "source=stripe",
        )  # fmt: skip
        pushed = await _add(house, "pushes", "--scheme", "github")
        told = await _add(house, "notices")
        body, push, notice = orjson.dumps(PAYMENT), b'{"ref":"main"}', b'{"n":1}'
        good = [
            (paid, body, {STRIPE_HEADER: sign_stripe(clock.now(), body, paid["secret"])}),
            (pushed, push, {HUB_HEADER: sign_plain(push, pushed["secret"])}),
            (told, notice, sign_standard("msg_1", clock.now(), notice, told["secret"])),
        ]
        given: list[Record] = [
            {"email": "ada@example.org", "amount": 1200, "source": "stripe"},
            {"ref": "main"},
            {"n": 1},
        ]
        runs = []
        for (made, content, headers), expected in zip(good, given, strict=True):
            status, begun = await _send(house, made, content, headers)
            assert status == 202
            runs.append(orjson.loads(begun)["run_id"])
            again, same = await _send(house, made, content, headers)
            assert (again, orjson.loads(same)["run_id"]) == (200, runs[-1])
            run = await house.until_status(runs[-1], "succeeded")
            assert (run["trigger"]["kind"], run["initiator"]) == ("hook", f"hook:/{made['name']}")
            assert run["output"]["given"].keys() == expected.keys()

        refusals = set()
        for made, content, headers in good:
            [(name, value)] = [(n, v) for n, v in headers.items() if n not in ("webhook-id", "webhook-timestamp")]
            wrong = headers | {name: value[:-2] + ("00" if value[-2:] != "00" else "11")}
            for changed, sent in (
                ({}, content),
                (wrong, content),
                (headers | {name: "\u00fc"}, content),
                (headers, content[:-1] + b" }"),
                (headers | {"Content-Encoding": "gzip"}, content),
            ):
                refusals.add(await _send(house, made, sent, changed))
            elsewhere = made | {"path": made["path"].replace("acme", "globex")}
            refusals.add(await _send(house, elsewhere, content, headers))
            refusals.add(await _send(house, made | {"path": made["path"] + "-not"}, content, headers))
        clock.forward(minutes=6)
        for made, content, headers in (good[0], good[2]):
            refusals.add(await _send(house, made, content, headers))
        [(status, problem)] = refusals
        assert (status, orjson.loads(problem)["code"]) == (401, "unauthenticated")
        assert {run["run_id"] for run in (await house.api.get("/v1/runs", workflow="receipt"))["items"]} == set(runs)

        # The counts are recorded once a minute, and when the engine stops.
        await house.restart()
        counts: dict[str, int] = {}
        for entry in await _refused(house):
            counts[entry["endpoint"]] = counts.get(entry["endpoint"], 0) + entry["count"]
        assert counts == {"/payments": 6, "/pushes": 5, "/notices": 6} | {
            f"/{made['name']}-not": 1 for made, _, _ in good
        }
        assert {heard.data["endpoint"] for heard in await house.until_heard("unwind.SignatureRefusedV1", count=6)} == (
            counts.keys()
        )


async def _refused(house: House) -> list[Record]:
    await audited(house, "acme", *["signature.refused"] * 6)
    page = await house.api.get("/v1/audit", tenant="acme", topic="signature.refused")
    return [entry["details"] for entry in page["items"]]


@pytest.mark.acceptance("A7")
async def test_a_secret_is_replaced_while_messages_come_in(stack: Stack) -> None:
    clock = MovableClock()
    async with House(stack, sagas=[receipt, *SHIPPED], clock=clock) as house:
        made = await _add(house, "orders")
        rotated = await house.cli("hooks", "rotate", "orders", "--overlap", "24h", "--tenant", "acme")
        assert rotated["secret"] != made["secret"]
        assert len(base64.b64decode(rotated["secret"].removeprefix("whsec_"))) == 32

        async def taken(number: int, secret: str) -> int:
            body = b'{"n":%d}' % number
            return (await _send(house, made, body, sign_standard(f"m{number}", clock.now(), body, secret)))[0]

        assert [await taken(1, made["secret"]), await taken(2, rotated["secret"])] == [202, 202]
        clock.forward(hours=23, minutes=59)
        assert [await taken(3, made["secret"]), await taken(4, rotated["secret"])] == [202, 202]
        clock.forward(minutes=2)
        assert [await taken(5, made["secret"]), await taken(6, rotated["secret"])] == [401, 202]

        [listed] = await house.cli("hooks", "list", "--tenant", "acme")
        assert (listed["name"], listed["old_secret_until"]) == ("orders", None)
        assert "secret" not in listed
        await house.cli("hooks", "remove", "orders", "--tenant", "acme")
        assert await taken(7, rotated["secret"]) == 401
        code, _, said = await house.cli_raw("hooks", "rotate", "orders", "--tenant", "acme")
        assert (code, "there is no such endpoint" in said) == (3, True)

        acts = await audited(house, "acme", "hook.added", "hook.rotated", "hook.removed")
        assert set(acts) == {"first admin"}
        entries = orjson.dumps((await house.api.get("/v1/audit", tenant="acme", limit=100))["items"])
        for secret in (made["secret"], rotated["secret"]):
            assert secret.encode() not in entries
