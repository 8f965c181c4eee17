"""Personal data, marked and unmarked, is planted wherever a run can carry it; the run gets it whole, and it is found
nowhere in clear.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import orjson
import pytest

from contracts.calls import ActionCall, RetryPolicy
from engine.logs import configure
from engine.plan.code import Run, StepFailed, saga
from engine.sagas import SHIPPED
from tests.stories.house import House, Record, Stack, until

PLANTED = {
    "mail": "planted.person@customer.example",
    "phone": "+49 170 7654321",
    "card": "4111 1111 1111 1111",
    "iban": "DE89 3704 0044 0532 0130 00",
    "id": "529.982.247-25",
    "token": "ghp_" + "q7W2" * 9,
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "key": "-----BEGIN PRIVATE KEY-----\nMIIplantedplanted\n-----END PRIVATE KEY-----",
}
NAME = "Petra Planted"
SECRET = "hunter2-planted"
TRACES = (*PLANTED.values(), quote(PLANTED["mail"], safe=""), "MIIplantedplanted", SECRET, "planted.person", NAME)
KEPT = ("order 2030-000123456", "0190b2f4-7c1e-7e58-b1b2-3c4d5e6f7a8b")

handed: list[Record] = []


def look(call: ActionCall) -> Any:
    handed.append(dict(call.input["order"]))
    return {"echo": call.input["order"], PLANTED["mail"]: 1}


def refuse(call: ActionCall) -> Any:
    raise ValueError(f"cannot charge {PLANTED['card']} of {PLANTED['mail']}, password={SECRET}")


@saga("careless", version=1, attributes={"mail": "/mail"}, subject="/mail", personal=("/name",))
async def careless(run: Run, order: dict[str, Any]) -> dict[str, Any]:
    """Marks a name and nothing else, and puts what it got everywhere."""
    seen = await run.step("look", look, order=order)
    said = ""
    try:
        await run.step("charge", refuse, on_failure="continue", retry=RetryPolicy(attempts=1))
    except StepFailed as failed:
        said = str(failed.error.get("message", ""))
    await run.approve("review", f"May {PLANTED['mail']} pay?", role="approver", context={"who": order, "said": said})
    return {"seen": seen}


def _order() -> Record:
    return {
        **PLANTED,
        "name": NAME,
        "password": SECRET,
        "note": KEPT[0],
        "reference": KEPT[1],
        "by_mail": {PLANTED["mail"]: {"paid": True}},
        "wrapped": orjson.dumps({"to": PLANTED["mail"], "password": SECRET}).decode(),
        "link": "https://shop.example/?to=" + quote(PLANTED["mail"], safe=""),
    }


@pytest.mark.acceptance("J7")
async def test_planted_personal_data_is_nowhere_in_clear_and_the_run_gets_it_whole(stack: Stack) -> None:
    stream = io.StringIO()
    configure(format="json", level="info", stream=stream)
    handed.clear()
    async with House(stack, sagas=[careless, *SHIPPED]) as house:
        run = await house.start("careless", "acme", _order())
        await house.until_status(run, "waiting")
        shown = [
            await until(lambda: house.api.get("/v1/approvals", tenant="acme"), lambda page: page["items"]),
            await house.api.get(f"/v1/runs/{run}/explain"),
            await house.api.get(f"/v1/runs/{run}/replay"),
        ]
        await house.api.post(
            f"/v1/runs/{run}/approvals/review", {"approved": True, "comment": f"fine, {PLANTED['mail']}"}
        )
        await house.until_status(run, "succeeded")
        assert handed == [_order()]

        assert (await house.api.get("/v1/runs", tenant="acme", attribute=f"mail:{PLANTED['mail']}"))["items"]
        of_run = (f"/v1/runs/{run}", f"/v1/runs/{run}/steps", f"/v1/runs/{run}/timeline")
        of_tenant = ("/v1/runs", "/v1/audit", "/v1/effects", "/v1/approvals")
        shown += [await house.api.get(path) for path in of_run]
        shown += [await house.api.get(path, tenant="acme") for path in of_tenant]
        answers = orjson.dumps(shown).decode()
        for kept in KEPT:
            assert kept in answers
        _nowhere(answers, "an answer")
        exported = await house.api.post("/v1/subjects/export", {"subject": PLANTED["mail"]}, act_for="acme")
        assert NAME in orjson.dumps(exported).decode()
        await _nowhere_stored(house)
    _nowhere(stream.getvalue(), "a log line")
    for name, content in _files(stack.folder):
        _nowhere(content, name)


def _files(folder: Path) -> list[tuple[str, str]]:
    return [(file.name, file.read_bytes().decode("latin-1")) for file in sorted(folder.rglob("unwind.db*"))]


def _nowhere(text: str, where: str) -> None:
    found = [trace for trace in TRACES if trace in text or orjson.dumps(trace).decode()[1:-1] in text]
    assert not found, f"{where} holds {found}"


async def _nowhere_stored(house: House) -> None:
    """Every row of every table of the engine and of its read models, as text."""
    if house.stack.database_url is None:
        return
    connection = await asyncpg.connect(house.stack.database_url)
    try:
        tables = await connection.fetch(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('unwind', 'views')"
        )
        assert {("views", "history_timeline"), ("unwind", "log")} <= {tuple(row) for row in tables}
        for schema, table in tables:
            rows = await connection.fetch(f'SELECT t::text FROM "{schema}"."{table}" t')
            _nowhere("\n".join(row[0] for row in rows), f"{schema}.{table}")
    finally:
        await connection.close()
