"""`unwind doctor`: looks at everything an engine needs, one thing after the other, and names the remedy of what is
wrong. It changes nothing."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from contracts.problems import Problem
from contracts.version import __version__

if TYPE_CHECKING:
    from uuid import UUID

    from engine.settings import Settings
    from engine.store import Store

STUCK_SECONDS: Final = 60.0
RUNS_LOOKED_AT: Final = 100_000
UNDELIVERED: Final = timedelta(minutes=10)
"""A notice that has waited for longer has been refused more than once, or nobody sends it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`wrong` must be mended before an engine runs well; `note` is worth knowing."""

    check: str
    state: Literal["ok", "note", "wrong"]
    detail: str


async def examine() -> list[Finding]:
    """Every check, in the order in which a start would meet them."""
    from engine.settings import load

    try:
        settings = load()
    except Problem as problem:
        return [Finding("settings", "wrong", problem.detail)]
    found = [Finding("version", "ok", __version__), Finding("settings", "ok", "all understood")]
    found.append(_folder(settings))
    found.append(_engine(settings))
    found.append(_sagas(settings))
    found.append(_key_file(settings))
    found.extend([finding async for finding in _store(settings)])
    found.append(await _bus(settings))
    return found


def _folder(settings: Settings) -> Finding:
    folder = settings.data_dir.absolute()
    if not folder.exists():
        return Finding("data folder", "note", f"{folder} does not exist yet; the first `unwind up` makes it")
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        return Finding(
            "data folder", "wrong", f"{folder} has mode {mode:04o}, others may look into it: chmod 700 {folder}"
        )
    if not os.access(folder, os.W_OK):
        return Finding("data folder", "wrong", f"{folder} cannot be written by this user")
    return Finding("data folder", "ok", str(folder))


def _engine(settings: Settings) -> Finding:
    from scripts.residence import resident

    holder = resident(settings.data_dir)
    if holder is None:
        return Finding("engine", "note", "no `unwind up` runs in the data folder")
    return Finding("engine", "ok", f"process {holder.pid} at {holder.url or 'an address it has not told yet'}")


def _sagas(settings: Settings) -> Finding:
    from contracts.modules import SHIPPED
    from contracts.notices import UNWIND
    from contracts.registry import Registry, discover
    from engine.actions.registry import ActionRegistry
    from engine.blueprints import with_blueprints
    from engine.sagas import load_sagas

    try:
        registry = Registry((*SHIPPED, UNWIND, *discover()))
        written = load_sagas(settings.sagas)
        actions = ActionRegistry.assemble(registry, settings)
        generated = len(with_blueprints(written, settings.blueprints, registry, actions)) - len(written)
    except Problem as problem:
        return Finding("sagas", "wrong", problem.detail)
    return Finding("sagas", "ok", f"{len(written)} in Python, {generated} from blueprints")


def _key_file(settings: Settings) -> Finding:
    from engine.store.key_ring import KeyRing, KeyRingMissing

    try:
        ring = KeyRing.load(settings.key_path)
    except KeyRingMissing as problem:
        return Finding("key file", "note", problem.detail)
    except Problem as problem:
        return Finding("key file", "wrong", problem.detail)
    return Finding(
        "key file",
        "ok",
        f"{settings.key_path}, current root key {ring.current}; is it backed up apart from the database?",
    )


async def _store(settings: Settings) -> AsyncIterator[Finding]:
    from engine.settings import database_url
    from engine.store import open_store
    from engine.store.key_ring import KeyRing
    from engine.store.keys import Vault

    if settings.database_url is None and not (settings.data_dir / "unwind.db").exists():
        yield Finding("database", "note", "there is none yet; the first `unwind up` makes it")
        return
    store = open_store(database_url(settings))
    try:
        await store.start()
        await store.ping()
        yield Finding("database", "ok", "answers, and its schema fits this program")
        if settings.key_path.exists():
            try:
                await Vault(store, KeyRing.load(settings.key_path)).start()
            except Problem as problem:
                yield Finding("keys", "wrong", problem.detail)
            else:
                yield Finding("keys", "ok", "the key file belongs to this database")
        async for finding in _runs(settings, store):
            yield finding
        letters = await store.dead_letters(tenant=None, limit=100)
        if letters:
            yield Finding("dead letters", "note", f"{len(letters)} wait for an operator; `unwind deadletters list`")
        async for finding in _outlets(store):
            yield finding
    except Problem as problem:
        yield Finding("database", "wrong", problem.detail)
    finally:
        await store.stop()


async def _runs(settings: Settings, store: Store) -> AsyncIterator[Finding]:
    """What no process will move: runs of a version that nobody knows, and runs without a reason to wake."""
    from scripts.opening import installed_plans

    try:
        known = set(installed_plans(settings).known)
    except Problem:
        return  # the sagas' own finding says what is wrong with them
    living = {process.epoch for process in await store.processes() if not process.dead}
    orphans: Counter[tuple[str, int]] = Counter()
    named: dict[tuple[str, int], UUID] = {}
    looked_at, after = 0, None
    while looked_at < RUNS_LOOKED_AT and (page := await store.open_runs(limit=1_000, after=after)):
        looked_at, after = looked_at + len(page), page[-1].run_id
        for run in page:
            version = (run.workflow, run.workflow_version)
            if run.owner not in living and version not in known:
                orphans[version] += 1
                named.setdefault(version, run.run_id)
    for (workflow, number), count in sorted(orphans.items()):
        yield Finding(
            "runs",
            "wrong",
            f"{count} open runs of {workflow} version {number}, such as {named[workflow, number]}, stand still: no "
            "process knows that version. Install it beside the newer one (UNWIND_SAGAS) until they have ended",
        )
    found = await store.runs_without_wake(older_than_seconds=STUCK_SECONDS, limit=1_000)
    # What a living process performs has no row; its own janitor judges it.
    stuck = [run for run in found if run.owner not in living and (run.workflow, run.workflow_version) in known]
    if stuck:
        detail = (
            f"{len(stuck)} open runs, such as {stuck[0].run_id}, belong to no living process; one that owns runs takes "
            "them over"
        )
        yield Finding("runs", "wrong", detail)
    elif not orphans:
        yield Finding("runs", "ok", "every open run has a reason to wake, and a program that knows its version")


async def _outlets(store: Store) -> AsyncIterator[Finding]:
    """Who is told nothing of what the platform has to say, and where it piles up."""
    from contracts.envelope import format_time

    now = datetime.now(UTC)
    for queue in await store.outlet_queues():
        name = f"{queue.outlet} --tenant {queue.tenant}"
        if not queue.enabled:
            why = queue.switched_why or "by a person, who gave no reason"
            detail = (
                f"{queue.outlet} of {queue.tenant} is disabled ({why}), {queue.waiting} notices wait for it; when its "
                f"receiver is mended, `unwind outlets enable {name}`, when it is gone, `unwind outlets remove {name}`"
            )
        elif queue.oldest is not None and now - queue.oldest > UNDELIVERED:
            failing = "" if queue.failing_since is None else f", failing since {format_time(queue.failing_since)}"
            detail = (
                f"{queue.waiting} notices wait for {queue.outlet} of {queue.tenant}, the oldest since "
                f"{format_time(queue.oldest)}{failing}; `unwind outlets deliveries {name} --state waiting` shows what "
                "it answers"
            )
        else:
            continue
        yield Finding("outlets", "note", detail)


async def _bus(settings: Settings) -> Finding:
    from contracts.sdk.transport import open_transport
    from engine.settings import bus_url

    if settings.bus_url is None and not (settings.data_dir / "bus.db").exists():
        return Finding("bus", "note", "there is none yet; the first `unwind up` makes it")
    transport = open_transport(bus_url(settings), name="unwind-doctor")
    try:
        await transport.start()
    except Problem as problem:
        return Finding("bus", "wrong", problem.detail)
    else:
        blocked = "it asks publishers to pause: look for a memory or disk alarm"
        return Finding("bus", "wrong", blocked) if transport.blocked else Finding("bus", "ok", "answers")
    finally:
        await transport.stop()
