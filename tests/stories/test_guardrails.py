"""A fresh installation is safe without a setting, and the doctor says how each of its guardrails stands."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import asyncpg
import orjson
import pytest

from tests.stories.house import House, Stack, until
from tests.stories.workshop import errand, member

ON_BOTH = {
    "sealing", "redaction", "egress", "API", "sign-in", "identity provider", "audit append-only", "log append-only",
    "roles", "quotas", "tokens",
}  # fmt: skip
CLEAR = {
    "UNWIND_HTTP__HOST": "0.0.0.0",
    "UNWIND_HTTP__PUBLIC_URL": "http://unwind.example.org",
    "UNWIND_EGRESS__SANDBOX": "127.0.0.1:2525",
    "UNWIND_OIDC__ISSUER": "http://id.example.org",
    "UNWIND_OIDC__CLIENT_ID": "unwind",
}
ON_SERVERS = {"login", "row-level security", "database wire", "bus wire"}


async def doctor(house: House, **changed: Any) -> tuple[int, dict[str, str]]:
    code, said, complaint = await house.cli_raw("doctor", "--security", **changed)
    assert said, complaint
    return code, {one["check"]: one["state"] for one in orjson.loads(said)}


@pytest.mark.acceptance("J12")
async def test_a_fresh_installation_has_every_guardrail_and_the_doctor_names_one_that_fell(stack: Stack) -> None:
    async with House(stack, sagas=(member,)) as house:
        await house.until_status(await house.start("member", "acme", {"email": "eve@example.org"}), "succeeded")
        code, found = await doctor(house)
        assert found.keys() == (ON_BOTH if stack.database_url is None else ON_BOTH | ON_SERVERS)
        assert {check: state for check, state in found.items() if state == "wrong"} == {}
        assert code == 0
        # The first admin's token has no end, and the tests' login is the servers' own.
        assert {check for check, state in found.items() if state == "note"} <= {"tokens", "login", "roles"}
        code, found = await doctor(house, **CLEAR)
        assert (code, found["API"], found["egress"], found["sign-in"]) == (1, "wrong", "note", "wrong")
        assert found["identity provider"] == "wrong"
        await open_the_audit(stack)
        code, found = await doctor(house)
        assert (code, found["audit append-only"], found["log append-only"]) == (1, "wrong", "ok")


async def open_the_audit(stack: Stack) -> None:
    """As somebody does who means to change it."""
    if stack.database_url is None:
        with closing(sqlite3.connect(stack.folder / "unwind.db")) as file:
            file.execute("DROP TRIGGER audit_entries_stay")
        return
    own = await asyncpg.connect(stack.database_url)
    try:
        await own.execute("ALTER TABLE views.audit_entries DISABLE TRIGGER audit_entries_stay")
    finally:
        await own.close()


@pytest.mark.acceptance("J12")
async def test_what_guardrails_refuse_is_in_the_audit_without_any_setting(stack: Stack) -> None:
    async with House(stack, sagas=(errand,)) as house:
        run = await house.start("errand", "acme", {"url": "http://169.254.169.254/latest", "id": "1"})
        failed = await house.until_run(run, lambda one: one["ended_at"] is not None)
        assert failed["status"] in ("failed", "compensated")
        [step] = (await house.cli("runs", "show", run))["steps"]
        assert step["error"]["code"] == "egress_refused"

        async def ended() -> list[str]:
            page = await house.api.get("/v1/audit", tenant="acme", run_id=run)
            return [entry["topic"] for entry in page["items"] if entry["topic"] == "run.ended"]

        await until(ended, bool)
        [token] = await house.cli("tokens", "list")
        assert "digest" not in token
