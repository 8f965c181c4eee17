"""`unwind upgrade --check`: what this program would do to an installation that an older one runs, and what speaks
against it. It changes nothing; what it finds is data, the verb applies it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from contracts.problems import Problem
from contracts.version import __version__

if TYPE_CHECKING:
    from contracts.registry import Registry
    from engine.settings import Settings
    from engine.store import Process, Store
    from engine.store.migrate import Missing

BIG_ROWS: Final = 1_000_000
"""From here on a statement that looks at all rows is felt."""
RUNS_LOOKED_AT: Final = 100_000
_SLICE: Final = 5_000


@dataclass(frozen=True, slots=True)
class Finding:
    """`wrong` refuses the upgrade; `note` is worth knowing."""

    check: str
    state: Literal["ok", "note", "wrong"]
    detail: str


@dataclass(slots=True)
class Outlook:
    """What an upgrade would meet."""

    migrations: list[dict[str, str]] = field(default_factory=list)
    """Name and kind: `expand`, `contract` or `functions`."""
    locks: list[dict[str, Any]] = field(default_factory=list)
    processes: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    """Open runs by workflow and version, and whether this program knows it."""
    topology: dict[str, list[str]] = field(default_factory=lambda: {"adds": [], "conflicts": []})
    contracts: list[dict[str, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def safe(self) -> bool:
        return all(finding.state != "wrong" for finding in self.findings)

    def document(self) -> dict[str, Any]:
        return {"program": __version__, "safe": self.safe, **asdict(self)}

    def add(self, check: str, state: Literal["ok", "note", "wrong"], detail: str) -> None:
        self.findings.append(Finding(check, state, detail))


async def examine(*, contracts: Path | None = None, accept_locks: bool = False) -> Outlook:
    """Everything, in the order in which an upgrade would meet it. `contracts` is a folder of schemas as the release
    before published them; `accept_locks` lets long locks on big tables pass."""
    from contracts.modules import SHIPPED
    from contracts.notices import UNWIND
    from contracts.registry import Registry, discover
    from engine.settings import load, unknown

    outlook = Outlook()
    try:
        settings = load()
    except Problem as problem:
        outlook.add("settings", "wrong", problem.detail)
        return outlook
    strange = unknown(os.environ)
    if strange:
        outlook.add("settings", "wrong", f"{', '.join(strange)}: no such setting in this program; take it out")
    else:
        outlook.add("settings", "ok", "all understood")
    registry = Registry((*SHIPPED, UNWIND, *discover()))
    try:
        async with _store(settings) as store:
            if store is None:
                outlook.add("schema", "note", "there is no database yet; the upgrade makes it")
            else:
                missing = await store.pending()
                await _schema(outlook, missing, await store.table_rows(), accept_locks)
                if len(missing.migrations) and missing.migrations[0].name.startswith("0001_"):
                    outlook.add("processes", "ok", "the database is empty: nothing runs yet")
                else:
                    _processes(outlook, missing, await store.processes(), settings)
                    await _runs(outlook, store, settings, registry)
    except Problem as problem:
        outlook.add("schema", "wrong", problem.detail)
    await _topology(outlook, settings, registry)
    _contracts(outlook, registry, contracts)
    return outlook


async def apply() -> list[str]:
    """Applies what is missing, as the schema's owner; answers the names."""
    from engine.settings import load

    async with _store(load(), make=True) as store:
        assert store is not None
        return await store.migrate()


@asynccontextmanager
async def _store(settings: Settings, *, make: bool = False) -> AsyncIterator[Store | None]:
    """Not started, since an older schema would be refused; as the schema's owner. None: there is no file yet."""
    from engine.settings import database_url
    from engine.store import open_store

    if settings.database_url is None:
        if not make and not (settings.data_dir / "unwind.db").exists():
            yield None
            return
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = settings.database_owner_url
    store = open_store(owner.get_secret_value() if owner is not None else database_url(settings))
    try:
        yield store
    finally:
        await store.stop()


async def _schema(outlook: Outlook, missing: Missing, rows: dict[str, int], accept_locks: bool) -> None:
    from engine.store.migrate import locks

    outlook.migrations = [
        *({"name": each.name, "kind": "contract" if each.contracts else "expand"} for each in missing.migrations),
        *({"name": each.name, "kind": "functions"} for each in missing.functions),
    ]
    outlook.locks = [{**asdict(lock), "rows": rows.get(lock.table)} for lock in locks(missing.migrations)]
    for lock in outlook.locks:
        if lock["long"] and (lock["rows"] or 0) >= BIG_ROWS:
            outlook.add(
                "locks",
                "note" if accept_locks else "wrong",
                f"{lock['migration']} looks at all of about {lock['rows']} rows of {lock['table']} and holds up "
                f"{lock['blocks']} meanwhile; choose a quiet hour and give --accept-locks",
            )
    count = len(outlook.migrations)
    outlook.add("schema", "ok", f"{count} to apply" if count else "nothing to apply")


def _processes(outlook: Outlook, missing: Missing, processes: list[Process], settings: Settings) -> None:
    now = datetime.now(UTC)
    for process in processes:
        silent = (now - process.seen_at).total_seconds()
        if not process.dead and silent < settings.lease.dead_seconds:
            outlook.processes.append(
                {"epoch": process.epoch, "name": process.name, "roles": list(process.roles), "version": process.version}
            )
    others = sorted({one["version"] or "older" for one in outlook.processes if one["version"] != __version__})
    contracting = [each.name for each in missing.migrations if each.contracts]
    if others and contracting:
        outlook.add(
            "processes",
            "wrong",
            f"{', '.join(contracting)} takes away what running processes of version {', '.join(others)} still use; "
            "replace them first",
        )
    elif others:
        outlook.add("processes", "note", f"processes of version {', '.join(others)} go on beside this one")
    else:
        outlook.add("processes", "ok", f"{len(outlook.processes)} run, none of another version")


async def _runs(outlook: Outlook, store: Store, settings: Settings, registry: Registry) -> None:
    from scripts.opening import installed_plans

    plans = installed_plans(settings, registry)
    found: Counter[tuple[str, int]] = Counter()
    after = None
    while page := await store.open_runs(limit=_SLICE, after=after):
        found.update((run.workflow, run.workflow_version) for run in page)
        after = page[-1].run_id
        if found.total() >= RUNS_LOOKED_AT:
            outlook.add("runs", "note", f"only the first {found.total()} open runs were looked at")
            break
    known = set(plans.known)
    outlook.runs = [
        {"workflow": workflow, "version": version, "open": count, "known": (workflow, version) in known}
        for (workflow, version), count in sorted(found.items())
    ]
    for one in outlook.runs:
        if not one["known"]:
            outlook.add(
                "runs",
                "wrong",
                f"{one['open']} open runs of {one['workflow']} version {one['version']} would stand still: "
                "install that version beside the new one until they have ended",
            )
    if all(one["known"] for one in outlook.runs):
        outlook.add("runs", "ok", f"{found.total()} open runs, each of a version this program knows")


async def _topology(outlook: Outlook, settings: Settings, registry: Registry) -> None:
    from contracts.sdk.transport import open_transport
    from engine.bus.topology import engine_topology
    from engine.settings import bus_url

    if settings.bus_url is None and not (settings.data_dir / "bus.db").exists():
        outlook.add("bus", "note", "there is none yet; the first process makes it")
        return
    transport = open_transport(bus_url(settings), name="unwind-upgrade")
    try:
        await transport.start()
        difference = await transport.compare(engine_topology(registry))
    except Problem as problem:
        outlook.add("bus", "wrong", problem.detail)
        return
    finally:
        await transport.stop()
    outlook.topology = {"adds": list(difference.adds), "conflicts": list(difference.conflicts)}
    for conflict in difference.conflicts:
        outlook.add("bus", "wrong", conflict)
    if not difference.conflicts:
        outlook.add("bus", "ok", f"{len(difference.adds)} to declare" if difference.adds else "nothing to declare")


def _contracts(outlook: Outlook, registry: Registry, published: Path | None) -> None:
    from contracts.compatibility import Schema, breaking_changes, load
    from contracts.schema import schemas

    if published is None:
        outlook.add("contracts", "note", "not compared; name the schemas of the release before with --contracts")
        return
    try:
        today = {name: Schema(body, body) for name, body in schemas(registry).items()}
        changes = breaking_changes(load(published), today)
    except Problem as problem:
        outlook.add("contracts", "wrong", problem.detail)
        return
    outlook.contracts = [{"type": one.type, "pointer": one.pointer, "why": one.why} for one in changes]
    for one in changes:
        outlook.add("contracts", "wrong", f"{one.type} {one.pointer} {one.why}; {one.remedy}")
    if not changes:
        outlook.add("contracts", "ok", "nothing breaks for readers and writers of the release before")
