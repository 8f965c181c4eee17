"""A release and the next one over the same state: what an upgrade would do is told before it is done, what is unsafe is
refused, and both releases run side by side while their processes are replaced."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.stories.house import ROOT, House, Record, Stack, until_now
from tests.stories.provider import Provider

ENGINE = ("intake", "worker", "timer", "janitor", "relay")
LOADED = ("tests.stories.workshop",)
NEXT = "99.0.0"
TREE = ("contracts", "engine", "projections", "consumers", "scripts", "tests")


def next_release(folder: Path, *, contract: bool = False) -> Path:
    """This program as its next release: another version, one more migration per database, a changed function."""
    release = folder / "next"
    for part in TREE:
        shutil.copytree(ROOT / part, release / part, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    version = release / "contracts" / "version.py"
    version.write_text(f'__version__ = "{NEXT}"\n')
    sql = release / "engine" / "store" / "sql"
    name = "9000_contract_next.sql" if contract else "9000_next.sql"
    for driver in ("postgres", "sqlite"):
        text = "DROP INDEX settings_by_name;" if contract else "ALTER TABLE open_runs ADD COLUMN next text;"
        (sql / driver / "migrations" / name).write_text(text)
    processes = sql / "postgres" / "functions" / "processes.sql"
    processes.write_text("-- Of the next release.\n" + processes.read_text())
    return release


async def outlook(house: House, *words: str, **given: Any) -> tuple[int, Record]:
    code, said, complaint = await house.cli_raw("upgrade", *words, **given)
    assert said, complaint
    return code, orjson.loads(said)


def _wrong(found: Record) -> list[str]:
    return [finding["check"] for finding in found["findings"] if finding["state"] == "wrong"]


async def test_what_is_unsafe_is_refused_and_changes_nothing(stack: Stack, tmp_path: Path) -> None:
    release = next_release(tmp_path, contract=True)
    async with (
        Provider() as provider,
        House(stack, modules=(), loads=LOADED, egress={"sandbox": (provider.address,)}) as house,
    ):
        code, found = await outlook(house, "--check")
        assert (code, _wrong(found), found["migrations"]) == (0, [], [])
        assert [one["version"] for one in found["processes"]] == [found["program"]]
        assert found["topology"] == {"adds": [], "conflicts": []}

        run = await house.start("errand", "acme", {"id": "o-1", "url": provider.url("/hold")})
        await until_now(lambda: provider.calls[f"{run}/call/1"], bool)

        # A program without the saga of an open run; a setting nobody knows; a contract step under a living process.
        code, found = await outlook(house, "--check", UNWIND_SAGAS="")
        assert (code, _wrong(found)) == (1, ["runs"])
        assert found["runs"] == [{"workflow": "errand", "version": 1, "open": 1, "known": False}]
        code, found = await outlook(house, "--check", UNWIND_NO_SUCH_SETTING="1")
        assert (code, _wrong(found)) == (1, ["settings"])
        code, found = await outlook(house, release=release)
        assert (code, _wrong(found), found["applied"]) == (1, ["processes"], [])
        assert found["migrations"][0] == {"name": "9000_contract_next", "kind": "contract"}

        provider.release()
        await house.until_status(run, "succeeded")
        assert house.assembly is not None
        assert (await house.assembly.process.store.pending()).names == []


@pytest.mark.postgres
@pytest.mark.rabbitmq
async def test_both_releases_work_side_by_side_during_an_expanding_migration(
    postgres_url: str, rabbitmq_url: str, tmp_path: Path
) -> None:
    release = next_release(tmp_path)
    stack = Stack("production", tmp_path / "state", database_url=postgres_url, bus_url=rabbitmq_url)
    async with (
        Provider() as provider,
        House(
            stack,
            roles=("web", "projector"),
            modules=(),
            loads=LOADED,
            dead_seconds=2.0,
            egress={"sandbox": (provider.address,)},
        ) as house,
    ):

        async def errand(number: int, place: str) -> str:
            run = await house.start("errand", "acme", {"id": f"o-{number}", "url": provider.url(place)})
            if place == "/hold":
                await until_now(lambda: provider.calls[f"{run}/call/1"], bool)
            return run

        old = await house.process(*ENGINE)
        held = [await errand(number, "/hold") for number in range(3)]

        code, found = await outlook(house, "--check", release=release)
        assert (code, _wrong(found), found["program"]) == (0, [], NEXT)
        assert found["migrations"] == [
            {"name": "9000_next", "kind": "expand"},
            {"name": "functions/processes", "kind": "functions"},
        ]
        [lock] = found["locks"]
        assert (lock["table"], lock["blocks"], lock["long"]) == ("open_runs", "reads and writes", False)
        assert found["runs"] == [{"workflow": "errand", "version": 1, "open": 3, "known": True}]
        code, found = await outlook(house, release=release)
        assert (code, found["applied"]) == (0, ["9000_next", "functions/processes"])

        # Both at work, each with runs of its own.
        new = await house.process(*ENGINE, release=release)
        code, found = await outlook(house, "--check", release=release)
        assert (code, found["migrations"]) == (0, [])
        assert {one["version"] for one in found["processes"]} > {NEXT}
        both = [await errand(number, "/ok") for number in range(10, 30)]
        for run in both:
            await house.until_status(run, "succeeded")

        # The old one goes in mid-call: the new one takes its runs over, under their keys.
        await old.kill()
        provider.release()
        for run in held:
            await house.until_status(run, "succeeded")
            assert provider.effects[f"{run}/call/1"] == 1

        # One of the release before may even be started again, and puts nothing back.
        await new.kill()
        await house.process(*ENGINE)
        await house.until_status(await errand(40, "/ok"), "succeeded")
        code, found = await outlook(house, "--check", release=release)
        assert (code, found["migrations"]) == (0, [])
