"""A canary in every secret of a tenant, looked for wherever an installation keeps or says anything."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from engine.logs import configure
from engine.settings import database_url
from engine.store import open_store
from engine.store.key_ring import KeyRing
from engine.store.keys import Vault
from engine.store.mapper import Mapper
from tests.stories.collector import Collector
from tests.stories.house import ROOT, House, Record, Stack
from tests.stories.keeper import Keeper, api_key, basic, oauth2
from tests.stories.test_secrets import put
from tests.stories.understudy import fact

LOADS = ("tests.stories.test_secrets",)
WORKING = ("intake", "worker", "relay", "timer", "projector", "janitor")
ENDED = ("succeeded", "failed", "compensated", "parked")


@pytest.mark.acceptance("J2")
async def test_a_canary_in_every_secret_is_seen_nowhere(stack: Stack, capfd: pytest.CaptureFixture[str]) -> None:
    lines = io.StringIO()
    configure(format="json", level="debug", stream=lines)
    said: list[str] = []
    async with Keeper() as keeper, Collector() as collector:
        tracing = {"endpoint": collector.endpoint}
        egress = {"sandbox": (keeper.address,)}
        async with House(stack, roles=("web",), loads=LOADS, dead_seconds=2.0, tracing=tracing, egress=egress) as house:
            told = {"UNWIND_TRACING__ENDPOINT": collector.endpoint, "UNWIND_LOG__LEVEL": "debug"}
            first = await house.process(*WORKING, release=ROOT, **told)
            await put(house, "acme", "key", api_key(keeper))
            await put(house, "acme", "basic", basic(keeper))
            await put(house, "acme", "bearer", oauth2(keeper, refresh_token=keeper.refresh))
            careless = {"token_url": keeper.url("/token/careless"), "client_auth": "body"}
            await put(house, "acme", "careless", oauth2(keeper, **careless))

            calls: list[Record] = [
                *({"url": keeper.url(f"/{name}"), "auth": {"secret": name}} for name in ("key", "basic", "bearer")),
                {"url": keeper.url("/key"), "headers": {"X-Key": {"secret": "key"}}},
                {"url": keeper.url("/echo/400"), "auth": {"secret": "key"}},
                {"url": keeper.url("/echo/500"), "auth": {"secret": "basic"}},
                {"url": keeper.url("/echo/401"), "auth": {"secret": "bearer"}},
                {"url": keeper.url("/echo/404"), "auth": {"secret": "basic"}, "expect": [404]},
                {"url": keeper.url("/hold"), "auth": {"secret": "key"}, "timeout_seconds": 0.3},
                {"url": keeper.url("/bearer"), "auth": {"secret": "careless"}},
                {"url": "http://10.1.2.3/", "auth": {"secret": "key"}},
                {"url": keeper.url("/to/307//echo/200"), "auth": {"secret": "bearer"}, "follow_redirects": True},
            ]
            for call in calls:
                run = await house.start("proven", "acme", call)
                ended = await house.until_status(run, *ENDED)
                assert ended["steps"] == 1
            # A worker is killed while the call is under way: another makes it again, under the same key.
            keeper.held.clear()
            run = await house.start("proven", "acme", {"url": keeper.url("/hold"), "auth": {"secret": "key"}})
            await keeper.held.wait()
            await first.kill()
            second = await house.process(*WORKING, release=ROOT, **told)
            keeper.release()
            await house.until_status(run, "succeeded", "parked")

            await house.ear.send(fact("crm.SignupRequestedV1", {"signup_id": 1}, tenant="acme"))
            letter = await house.until_letter(tenant="acme")
            wrong = {"value": {"key": keeper.key, "header": "not a header"}}
            said.append(str(await house.refused("/v1/secrets/key/rotate", wrong, act_for="acme")))
            said += [text async for text in every_answer(house, run, str(letter["id"]))]
            said.append(str(await house.page(f"{second.url}/metrics")))
            said += [one async for one in opened_events(house)]
            if stack.database_url is not None:
                said += [table async for table in every_table(stack.database_url)]

        # It was planted: every server had it, and said it again.
        heard = str(keeper.seen)
        for planted in (keeper.key, f"access-{keeper.canary}"):
            assert planted in heard
        assert base64.b64encode(f"shop:{keeper.password}".encode()).decode() in heard
        out, complaint = capfd.readouterr()
        said += [lines.getvalue(), out, complaint, collector.raw.decode()]
        assert len(collector.spans) > 10
        leaks = [text[max(0, at - 80) : at + 80] for text in said for at in places(text, keeper)]
        assert leaks == []
        for file in sorted(path for path in stack.folder.rglob("*") if path.is_file()):
            assert not holds(file.read_bytes(), keeper), file
        if stack.database_url is not None:
            for file in await raw_files(stack.database_url):
                assert not holds(file.read_bytes(), keeper), file


def forms(keeper: Keeper) -> list[str]:
    """The canary as it is, and where it stands in base64, whatever stands before it."""
    plain = keeper.canary.encode()
    found = [keeper.canary, plain.hex()]
    for shift in range(3):
        coded = base64.b64encode(b"x" * shift + plain).decode()
        found.append(coded[(0, 4, 4)[shift] : len(coded) - 4])
    return found


def places(text: str, keeper: Keeper) -> list[int]:
    return [found.start() for form in forms(keeper) for found in re.finditer(re.escape(form), text)]


def holds(content: bytes, keeper: Keeper) -> bool:
    return any(form.encode() in content for form in forms(keeper))


async def every_answer(house: House, run: str, letter: str) -> AsyncIterator[str]:
    """What every GET of the OpenAPI document answers about the tenant, and the probes."""
    async with house.session.get(f"{house.url}/openapi.json") as answer:
        document = await answer.json()
    values = {
        "run_id": run,
        "letter_id": letter,
        "user_id": run,
        "tenant": "acme",
        "secret": "key",
        "month": "2030-01",
        "outlet": "ops",
    }
    values |= {"event_id": "e1", "correlation_id": (await house.run(run) or {})["correlation_id"]}
    addresses = [
        re.sub(r"{(\w+)}", lambda found: values[found.group(1)], path)
        for path, operations in document["paths"].items()
        if "get" in operations
    ]
    runs = (await house.api.get("/v1/runs", tenant="acme", limit=100))["items"]
    for one in runs:
        addresses += [f"/v1/runs/{one['run_id']}{part}" for part in ("", "/timeline", "/steps", "/explain", "/replay")]
    assert len(addresses) > 80
    headers = {"Authorization": f"Bearer {house.token}", "X-Tenant": "acme"}
    for address in (*addresses, "/metrics", "/healthz", "/readyz"):
        async with house.session.get(house.url + address, headers=headers) as answer:
            assert answer.status != 405, address
            yield f"{answer.headers}{await answer.text()}"


async def opened_events(house: House) -> AsyncIterator[str]:
    """Every event of the log, its seal opened."""
    store = open_store(database_url(house.settings))
    await store.start()
    try:
        vault, mapper, after, seen = Vault(store, KeyRing.load(house.settings.key_path)), Mapper(), 0, 0
        while page := await store.read(0, after=after, limit=500):
            for stored in page:
                keys = await vault.ready(stored.tenant, [stored.body])
                seen += 1
                yield str(mapper.decode(keys, stored.stream, stored))
            after = page[-1].position
        assert seen > 30
    finally:
        await store.stop()


async def every_table(url: str) -> AsyncIterator[str]:
    """Every row of every table, as text; bytes are hex digits in it."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            "SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
        )
        assert len(tables) > 20
        for table in tables:
            for row in await connection.fetch(f"SELECT t::text AS row FROM {table['name']} t"):
                yield row["row"]
    finally:
        await connection.close()


async def raw_files(url: str) -> list[Path]:
    """The files of the database and of its write-ahead log, where they lie on this machine."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CHECKPOINT")
        folder = str(await connection.fetchval("SHOW data_directory"))
        own = await connection.fetchval("SELECT oid FROM pg_database WHERE datname = current_database()")
    finally:
        await connection.close()
    if urlsplit(url).hostname not in ("127.0.0.1", "localhost"):
        return []
    return _files(Path(folder, "base", str(own)), Path(folder, "pg_wal"))


def _files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.glob("*") if path.is_file())
