"""A backup taken under load and put back elsewhere, while the world and the broker have gone on: what it knows goes on
and ends, timers fire, and nothing is begun twice."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import orjson
import pytest

from tests.faults.site import PATIENCE_SECONDS, Record, Site
from tests.stories.house import ROOT, until

QUICK = [f"quick-{n}" for n in range(12)]
HELD = [f"held-{n}" for n in range(3)]
RESTING = [f"resting-{n}" for n in range(3)]
KNOWN = QUICK + HELD + RESTING
LATE = [f"late-{n}" for n in range(10)]


@pytest.fixture
async def elsewhere(
    request: pytest.FixtureRequest, servers: dict[str, str], tmp_path: Path
) -> AsyncIterator[dict[str, str]]:
    """The servers of the place where it is put back: an empty database. The old broker has gone on."""
    if not servers:
        yield {}
        return
    server = str(request.getfixturevalue("postgres_server_url"))
    name = f"t_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(server)
    await connection.execute(f'CREATE DATABASE "{name}"')
    yield {**servers, "UNWIND_DATABASE_URL": urlunsplit(urlsplit(server)._replace(path=f"/{name}"))}
    await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    for role in await connection.fetch(
        "SELECT rolname FROM pg_roles WHERE starts_with(rolname, $1)", f"unwind_{name}_"
    ):
        await connection.execute(f'DROP ROLE "{role["rolname"]}"')
    await connection.close()


async def unwind(site: Site, *words: str) -> Record:
    """What `unwind <words> --json` answers in this installation."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts", *words, "--json"),
        cwd=ROOT,
        env=os.environ | site.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaint = await process.communicate()
    assert process.returncode == 0, complaint.decode()
    return dict(orjson.loads(said))


@asynccontextmanager
async def _restored(there: Site, saved: Path) -> AsyncIterator[None]:
    await unwind(there, "restore", str(saved))
    async with there.parcels():
        yield


def runs_by_order(runs: list[Record]) -> dict[str, set[str]]:
    found = defaultdict(set)
    for run in runs:
        found[run["output"]["order_id"]].add(run["run_id"])
    return found


@pytest.mark.acceptance("G15")
@pytest.mark.timeout(180)
async def test_a_backup_under_load_goes_on_elsewhere_and_nothing_is_begun_twice(
    site: Site, elsewhere: dict[str, str], tmp_path: Path
) -> None:
    patient = {"parcel": True, "patient": True}
    async with site.parcels():
        engine = await site.engine()
        await site.place(*HELD, held=True, **patient)
        held = [await site.effect() for _ in HELD]
        await site.place(*RESTING, rests=8.0, **patient)
        await site.place(*QUICK, **patient)
        await site.until_ended(3)

        # Under load: orders come while it is taken, and what it knows goes on without it.
        saved, _ = await asyncio.gather(unwind(site, "backup", str(tmp_path / "saved")), site.place(*LATE, **patient))
        assert set(saved["files"]) >= ({"unwind.dump"} if elsewhere else {"unwind.db", "bus.db"})
        held[0].answer()
        await site.until_ended(len(QUICK) + 1)
        engine.process.kill()
        await engine.ended()
    before = [line for line in site.ledger() if line.startswith("do ")]

    new = tmp_path / "elsewhere"
    new.mkdir()
    for name in ("keys.json", "admin.token", "parcels.db"):
        shutil.copy(tmp_path / name, new / name)
    (new / "ledger").symlink_to(tmp_path / "ledger")
    async with Site.over(new, elsewhere) as there, _restored(there, tmp_path / "saved"):
        there.answer_at_once()
        await there.engine()
        # Whoever published is not sure and publishes again what the backup may know.
        await there.place(*HELD, held=True, **patient)
        await there.place(*RESTING, rests=8.0, **patient)
        await there.place(*QUICK, **patient)

        async def unfinished() -> list[str]:
            shown = await there.runs()
            return [run["status"] for run in shown if run["ended_at"] is None] if len(shown) >= len(KNOWN) else ["?"]

        await until(unfinished, lambda left: not left, seconds=PATIENCE_SECONDS)
        runs = [await there.run(run) for run in await there.runs()]
        [process] = (await unwind(there, "upgrade", "--check"))["processes"]
        assert process["epoch"] > 100_000, "none of the original has it"

    assert {run["status"] for run in runs} == {"succeeded"}, there.told()
    orders = runs_by_order(runs)
    assert set(KNOWN) <= set(orders)
    assert all(len(of_order) == 1 for of_order in orders.values()), "a known fact has started a second run"
    of_known = {run for order in KNOWN for run in orders[order]}
    made = [line.split()[1] for line in there.ledger() if line.startswith("do ")]
    assert {key.split("/", 1)[0] for key in made} >= of_known
    # Effects that were under way, or came after the backup, are made again under the same keys; others are not.
    assert all(len([one for one in made if one == key]) <= 2 for key in made)
    again = {line.split()[1] for line in before} & set(made[len(before) :])
    assert len(again) < len(before), "what was recorded is not performed again"
    # The module, which honours the key, has sent one parcel per order.
    parcels = [line.split()[1] for line in there.ledger() if line.startswith("parcel ")]
    assert len(parcels) == len(set(parcels))
    assert {key.split("/", 1)[0] for key in parcels} >= of_known


@pytest.mark.acceptance("G15")
async def test_a_damaged_backup_and_a_place_in_use_are_refused(site: Site, tmp_path: Path) -> None:
    await site.engine()
    saved = await unwind(site, "backup", str(tmp_path / "saved"))
    with pytest.raises(AssertionError, match="already" if not site.environment.get("UNWIND_DATABASE_URL") else "used"):
        await unwind(site, "restore", str(tmp_path / "saved"))
    with pytest.raises(AssertionError, match="not empty"):
        await unwind(site, "backup", str(tmp_path / "saved"))
    file = tmp_path / "saved" / min(saved["files"])
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(AssertionError, match="not what was written"):
        await unwind(site, "restore", str(tmp_path / "saved"))
