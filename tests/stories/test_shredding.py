"""What is erased is gone: whoever holds the database and the key file opens nothing of a forgotten person, or of a
tenant that left, in the log and in snapshots; everybody else is there as before.
"""

from __future__ import annotations

import secrets
from typing import Any

from contracts.problems import Problem
from engine.plan.code import Run, saga
from engine.settings import database_url
from engine.snapshots import open_sealed
from engine.store import open_store
from engine.store.key_ring import KeyRing
from engine.store.keys import Vault
from engine.store.mapper import Mapper
from tests.stories.house import House, Record, Stack, until
from tests.stories.workshop import note


@saga("remembered", version=1, attributes={"email": "/email"}, subject="/email", personal=("/email", "/name"))
async def remembered(run: Run, person: dict[str, Any]) -> dict[str, Any]:
    """Writes a person down and waits, so that there is a snapshot of it."""
    noted = await run.step("note", note, text=person["name"])
    await run.approve("admit", "Admit somebody")
    return {"noted": noted["noted"]}


def person() -> Record:
    """Unlike anybody else."""
    mark = secrets.token_hex(8)
    return {"email": f"{mark}@person.example", "name": f"Person {mark}"}


async def opened(house: House, tenants: tuple[str, ...]) -> str:
    """All that opens with the key file: events of the log, and snapshots."""
    said: list[str] = []
    store = open_store(database_url(house.settings))
    await store.start()
    try:
        vault, mapper, after = Vault(store, KeyRing.load(house.settings.key_path)), Mapper(), 0
        while page := await store.read(0, after=after, limit=500):
            after = page[-1].position
            for stored in page:
                try:
                    keys = await vault.ready(stored.tenant, [stored.body])
                    said.append(str(mapper.decode(keys, stored.stream, stored)))
                except Problem as problem:
                    said.append(problem.code)
            for tenant, stream in {(one.tenant, one.stream) for one in page if one.tenant in tenants}:
                for version, body in (await store.snapshots_of([(tenant, stream)])).values():
                    try:
                        state = open_sealed(await vault.ready(tenant, [body]), tenant, stream, version, body)
                        said.append(f"snapshot {state}")
                    except Problem as problem:
                        said.append(problem.code)
    finally:
        await store.stop()
    return "\n".join(said)


async def test_a_forgotten_person_and_a_tenant_that_left_open_nowhere_and_all_others_do(stack: Stack) -> None:
    people = {name: person() for name in ("ann", "bob", "cid")}
    tenants = {"ann": "acme", "bob": "acme", "cid": "globex"}
    async with House(stack, sagas=(remembered,), modules=(), limits={"snapshot_events": 1}) as house:
        runs = {name: await house.start("remembered", tenants[name], people[name]) for name in people}
        for run in runs.values():
            await house.until_status(run, "waiting")

        def known(text: str) -> set[str]:
            return {name for name, planted in people.items() if any(value in text for value in planted.values())}

        before = await opened(house, ("acme", "globex"))
        assert "snapshot RunState" in before
        assert known(before) == {"ann", "bob", "cid"}

        erased = await house.cli("subjects", "erase", people["ann"]["email"], "--tenant", "acme", "--cancel")
        assert (erased["runs"], erased["keys"]) == (1, 1)
        assert known(await opened(house, ("acme", "globex"))) == {"bob", "cid"}
        # The run is there all the same, and so is what happened to it.
        assert (await house.until_status(runs["ann"], "cancelled"))["data"]["email"] == "[redacted]"
        assert [entry["topic"] for entry in await house.timeline(runs["ann"])][-1] == "run.ended"

        await house.api.post(f"/v1/runs/{runs['bob']}/approvals/admit", {"approved": True})
        assert (await house.until_status(runs["bob"], "succeeded"))["output"] is not None

        await house.cli("tenants", "offboard", "globex", "--reason", "left", "--yes", "--force", "--cancel")
        after = await opened(house, ("acme", "globex"))
        assert known(after) == {"bob"}
        assert "tenant_offboarded" in after

        async def left() -> list[Record]:
            return list((await house.api.get("/v1/runs", tenant="globex"))["items"])

        assert await until(left, lambda items: not items) == []
        exported = await house.api.post("/v1/subjects/export", {"subject": people["bob"]["email"]}, act_for="acme")
        assert known(str(exported)) == {"bob"}
