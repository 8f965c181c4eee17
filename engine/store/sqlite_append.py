"""One append on SQLite, step by step inside the writer's transaction: the same order and the same answers as
PostgreSQL's function. It neither begins nor commits; `sqlite` calls it in the writer thread."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

from engine.store import Commit, Cost, InputRow, Outcome
from engine.store import rows as read
from engine.store.batch import (
    APPENDED,
    DUPLICATE,
    FENCED,
    LIMITED_TENANT,
    LIMITED_WORKFLOW,
    MISMATCH,
    OVER_DAILY,
    OVER_DAY,
    OVER_MONTH,
    OVER_OPEN,
    OVER_WORKFLOW,
    OVER_WORKFLOW_DAY,
    OVER_WORKFLOW_MONTH,
    STALE,
    Rows,
    assemble,
    flatten,
)
from engine.store.errors import ContentRefused, TenantRefused
from engine.store.es import LogRecorder
from engine.store.statements import Statement

LEASE_MICROSECONDS = 30_000_000

_PLAIN = (
    # group, statement, what the statement binds after the row's own columns
    ("s", "insert_start", ()),
    ("oo", "insert_open_run", ("epoch", "now")),
    ("oo", "count_start", ("epoch", "now")),
    ("oc", "change_open_run", ("epoch", "now")),
    ("k", "insert_input_key", ()),
    ("o", "insert_outbox", ("now",)),
    ("tc", "clear_timer", ()),
    ("t", "set_timer", ()),
    ("ud", "drop_subscription", ()),
    ("wd", "drop_await", ()),
    ("n", "put_snapshot", ()),
    ("x", "settle_input", ()),
)
_OWNERS = (
    "start",
    "input_keys",
    "settled",
    "timers",
    "timers_cleared",
    "subscriptions",
    "subscriptions_dropped",
    "awaits",
    "awaits_dropped",
    "open_run",
)
_CLOSING = ("close_timers", "close_subscriptions", "close_awaits", "close_input_keys", "close_snapshot")

_hex = attrgetter("hex")


@dataclass(frozen=True, slots=True)
class Context:
    """What every step of one append knows."""

    cursor: sqlite3.Cursor
    sql: Mapping[str, str]
    lane: int
    epoch: int
    now: int


class Appender:
    """Holds the statements; one per store, used by its writer thread alone."""

    def __init__(self, recorder: LogRecorder, statements: Mapping[str, Statement]) -> None:
        self._recorder = recorder
        self._sql = {name: statement.steps[0].sql for name, statement in statements.items()}

    def check_tenant(self, cursor: sqlite3.Cursor, tenant: str, commits: Sequence[Commit]) -> None:
        """What a caller bound to one tenant may record: arrivals, inputs, messages and events of that tenant."""
        for commit in commits:
            runs = [new.run_id.hex for new in commit.inputs if new.run_id is not None]
            found = (cursor.execute(self._sql["find_run"], (run,)).fetchone() for run in runs)
            others = {commit.tenant, *(row["tenant"] for row in found if row is not None)} - {tenant}
            if others:
                raise TenantRefused(f"append_for {tenant}: a commit of tenant {others.pop()} is refused")
            if any(getattr(commit, name) not in (None, ()) for name in _OWNERS) or commit.snapshot is not None:
                raise TenantRefused(f"append_for {tenant}: only arrivals, inputs, messages and events may be recorded")

    def append(
        self,
        cursor: sqlite3.Cursor,
        commits: Sequence[Commit],
        *,
        lane: int,
        epoch: int,
        now: datetime,
        strict: bool = False,
        view: tuple[str, int] | None = None,
    ) -> list[Outcome]:
        batch = flatten(commits, strict=strict, uuids=_hex, instants=read.microseconds)
        context = Context(cursor, self._sql, lane, epoch, read.microseconds(now))
        rows = batch.rows
        codes: list[int] = [APPENDED] * len(batch.sent)
        nums: list[int] = [0] * len(batch.sent)
        runs: list[UUID | None] = [None] * len(batch.sent)
        if cursor.execute(self._sql["living"], (epoch,)).fetchone() is None:
            codes = [FENCED] * len(batch.sent)
            return assemble(batch, commits, 0, codes, nums, runs, {})
        for ordinal, (code, num, run) in refusals(context, rows).items():
            codes[ordinal - 1], nums[ordinal - 1], runs[ordinal - 1] = code, num, run
        for ordinal, code, num in over_quotas(context, rows, codes):
            codes[ordinal - 1], nums[ordinal - 1] = code, num
        for ordinal, code, num in over_budgets(context, batch.costs, codes):
            codes[ordinal - 1], nums[ordinal - 1] = code, num
        for ordinal, code, num in over_caps(context, rows, codes):
            codes[ordinal - 1], nums[ordinal - 1] = code, num
        refused = {n for n, code in enumerate(codes, 1) if code != APPENDED}
        if refused:
            if strict:
                raise ContentRefused(f"strict append: {len(refused)} of {len(commits)} commits refused")
            rows = {
                prefix: [row for row in group if row[0] not in refused] if prefix not in "ca" else group
                for prefix, group in rows.items()
            }
        if view is not None and not self._recorder.move_tracking(cursor, *view):
            raise ContentRefused(f"checkpoint of {view[0]} is at {view[1]} or past it")
        first = self._recorder.insert_rows(cursor, [(*row, lane, context.now) for row in rows["e"]])
        matched = _write(context, rows, refused)
        _add_costs(context, [cost for cost in batch.costs if cost[0] not in refused])
        return assemble(batch, commits, first, codes if refused else None, nums, runs, matched)


def refusals(context: Context, rows: Rows) -> dict[int, tuple[int, int, UUID | None]]:
    """Fenced runs first, then known keys, then versions: a batch sent again is a duplicate and not a conflict."""
    cursor, sql = context.cursor, context.sql
    found: dict[int, tuple[int, int, UUID | None]] = {}
    stale: dict[int, int] = {}
    living: dict[int, bool] = {}
    for ordinal, (tenant, stream, _kind, expected) in enumerate(rows["c"], 1):
        if stream is None:
            continue
        version, owner_tenant, owner = cursor.execute(sql["find_stream"], (stream,)).fetchone()
        if owner_tenant is not None and owner_tenant != tenant:
            raise ContentRefused(f"stream {stream} belongs to another tenant than {tenant}")
        if owner is not None and owner != context.epoch:
            if owner not in living:
                living[owner] = cursor.execute(sql["living"], (owner,)).fetchone() is not None
            if living[owner]:
                found[ordinal] = (FENCED, 0, None)
                continue
        if (version if version is not None else min(expected, 0)) != expected:
            stale[ordinal] = version or 0
    for row in rows["s"]:
        known = cursor.execute(sql["find_start"], row[:3]).fetchone()
        if known is not None:
            found.setdefault(row[0], (DUPLICATE, 0, UUID(known[0])))
    for row in rows["k"]:
        if cursor.execute(sql["find_input_key"], row).fetchone() is not None:
            found.setdefault(row[0], (DUPLICATE, 0, UUID(row[1])))
    for row in rows["a"]:
        known = cursor.execute(sql["find_arrival"], row[1:4]).fetchone()
        if known is not None:
            if known[0] == row[5]:
                found.setdefault(row[0], (DUPLICATE, 0, None))
            elif found.get(row[0], (DUPLICATE,))[0] == DUPLICATE:
                # Another fact under a known id, also where the known one has started a run: it must not be lost.
                found[row[0]] = (MISMATCH, 0, None)
    for ordinal, version in stale.items():
        found.setdefault(ordinal, (STALE, version, None))
    return found


def over_quotas(context: Context, rows: Rows, codes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Starts over a quota of their tenant. Open runs are counted only when they never were, or when those opened since
    could be too many: an end writes nothing here."""
    cursor, sql = context.cursor, context.sql
    asked: dict[str, list[tuple[int, str]]] = {}
    for ordinal, tenant, _run, workflow, _workflow_cap, _tenant_cap in rows["q"]:
        if workflow is not None and codes[ordinal - 1] == APPENDED:
            asked.setdefault(tenant, []).append((ordinal, workflow))
    if not asked:
        return []
    day = read.instant(context.now).strftime("%Y-%m-%d")
    over: list[tuple[int, int, int]] = []
    for tenant, starts in asked.items():
        found = cursor.execute(sql["quotas_of"], (tenant, day)).fetchone()
        most_open, most_daily, opened, today = found["open_runs"], found["daily_runs"], found["opened"], found["today"]
        if most_open is not None and (opened is None or opened + len(starts) > most_open):
            opened = cursor.execute(sql["count_open_runs"], (tenant,)).fetchone()[0]
            cursor.execute(sql["forget_opened"], (tenant,))
            cursor.execute(sql["remember_opened"], (tenant, day, opened))
        caps = [json.loads(found[whose] or "{}") for whose in ("own", "everyone")]
        taken: dict[str, int] = {}
        for ordinal, workflow in starts:
            named = (document.get(name, {}).get("daily_runs") for document in caps for name in (workflow, "*"))
            cap = next((one for one in named if one is not None), None)
            if cap is not None and workflow not in taken:
                known = cursor.execute(sql["begun_of_workflow"], (tenant, workflow, day)).fetchone()
                taken[workflow] = known[0] if known is not None else 0
            if most_open is not None and opened >= most_open:
                over.append((ordinal, OVER_OPEN, most_open))
            elif most_daily is not None and today >= most_daily:
                over.append((ordinal, OVER_DAILY, most_daily))
            elif cap is not None and taken[workflow] >= cap:
                over.append((ordinal, OVER_WORKFLOW, cap))
            else:
                opened, today = (opened or 0) + 1, today + 1
                if cap is not None:
                    taken[workflow] += 1
    return over


def over_budgets(
    context: Context, costs: Sequence[tuple[int, str, Cost]], codes: Sequence[int]
) -> list[tuple[int, int, int]]:
    """Commits that begin something though a budget is spent. What the batch itself has cost up to a commit counts for
    it, also where a commit before it is refused: that will be recorded all the same."""
    if not costs:
        return []
    day, month = _days(context)
    over: list[tuple[int, int, int]] = []
    known: dict[tuple[str, str], tuple[tuple[int, int | None, int, bool], ...]] = {}
    of_tenant: Counter[str] = Counter()
    of_workflow: Counter[tuple[str, str]] = Counter()
    for ordinal, tenant, cost in costs:
        if codes[ordinal - 1] != APPENDED:
            continue
        key = (tenant, cost.workflow)
        of_tenant[tenant] += cost.micros
        of_workflow[key] += cost.micros
        if not cost.begins:
            continue
        if key not in known:
            known[key] = _budgets(
                context.cursor.execute(context.sql["spent_of"], (*key, day, month)).fetchone(), key[1]
            )
        for code, budget, spent, whole in known[key]:
            if budget is not None and spent + (of_tenant[tenant] if whole else of_workflow[key]) >= budget:
                over.append((ordinal, code, budget))
                break
    return over


def _budgets(found: sqlite3.Row, workflow: str) -> tuple[tuple[int, int | None, int, bool], ...]:
    """Of one workflow, in the order in which they are asked: code, budget, spent before this batch, whether it is the
    whole tenant's."""
    own, everyone = (json.loads(found[whose] or "{}") for whose in ("own", "everyone"))
    named = [document.get("workflows", {}).get(name, {}) for document in (own, everyone) for name in (workflow, "*")]

    def first(documents: Sequence[Mapping[str, Any]], name: str) -> int | None:
        return next((one[name] for one in documents if one.get(name) is not None), None)

    return (
        (OVER_DAY, first((own, everyone), "daily_cost_micros"), found["today"], True),
        (OVER_MONTH, first((own, everyone), "monthly_cost_micros"), found["this_month"], True),
        (OVER_WORKFLOW_DAY, first(named, "daily_cost_micros"), found["workflow_today"], False),
        (OVER_WORKFLOW_MONTH, first(named, "monthly_cost_micros"), found["workflow_month"], False),
    )


def _add_costs(context: Context, costs: Sequence[tuple[int, str, Cost]]) -> None:
    if not costs:
        return
    day, month = _days(context)
    spent = [(tenant, cost.workflow, day, month, cost.micros) for _, tenant, cost in costs if cost.micros]
    if spent:
        context.cursor.executemany(context.sql["add_cost"], spent)


def _days(context: Context) -> tuple[str, str]:
    """Today, and the first day of its month, in UTC."""
    now = read.instant(context.now)
    return now.strftime("%Y-%m-%d"), now.strftime("%Y-%m-01")


def over_caps(context: Context, rows: Rows, codes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Commits that ask for a slot and get none: a bounded count per workflow and tenant, plus those granted in this
    batch."""
    cursor, sql = context.cursor, context.sql
    over: list[tuple[int, int, int]] = []
    by_workflow: dict[tuple[str, str], int] = {}
    by_tenant: dict[str, int] = {}
    for ordinal, tenant, run, workflow, workflow_cap, tenant_cap in rows["q"]:
        if codes[ordinal - 1] != APPENDED or (workflow_cap is None and tenant_cap is None):
            continue
        if workflow is None:
            known = cursor.execute(sql["find_run"], (run,)).fetchone()
            if known is None or known[1]:
                continue
            workflow = known[0]
        key = (tenant, workflow)
        if workflow_cap is not None and key not in by_workflow:
            by_workflow[key] = cursor.execute(sql["slots_of_workflow"], (*key, workflow_cap)).fetchone()[0]
        if tenant_cap is not None and tenant not in by_tenant:
            by_tenant[tenant] = cursor.execute(sql["slots_of_tenant"], (tenant, tenant_cap)).fetchone()[0]
        if workflow_cap is not None and by_workflow[key] >= workflow_cap:
            over.append((ordinal, LIMITED_WORKFLOW, workflow_cap))
        elif tenant_cap is not None and by_tenant[tenant] >= tenant_cap:
            over.append((ordinal, LIMITED_TENANT, tenant_cap))
        else:
            if key in by_workflow:
                by_workflow[key] += 1
            if tenant in by_tenant:
                by_tenant[tenant] += 1
    return over


def _write(context: Context, rows: Rows, refused: set[int]) -> dict[int, list[InputRow]]:
    cursor, sql, now = context.cursor, context.sql, context.now
    extra = {"epoch": context.epoch, "now": now}
    for prefix, statement, names in _PLAIN:
        group = rows[prefix]
        if group:
            more = tuple(extra[name] for name in names)
            cursor.executemany(sql[statement], [(*row, *more) for row in group] if more else group)
    arrivals: list[int] = []
    for row in rows["a"]:
        if row[0] in refused:
            arrivals.append(0)
            continue
        cursor.execute(sql["insert_arrival"], row)
        arrivals.append(cursor.lastrowid or 0)
        cursor.execute(sql["insert_inbox"], (*row, arrivals[-1]))
    for row in rows["h"]:
        cursor.execute(sql["insert_arrival_key"], (row[0], arrivals[row[1] - 1], *row[2:]))
    for row in rows["i"]:
        arrival = None
        if row[7] is not None:
            known = cursor.execute(sql["find_arrival"], (row[1], row[7], row[8])).fetchone()
            arrival = known[1] if known is not None else None
        cursor.execute(sql["insert_input"], (*row, arrival, now, now, None))
    if rows["u"]:
        cursor.executemany(sql["insert_subscription"], rows["u"])
    if rows["w"]:
        cursor.executemany(sql["insert_await"], rows["w"])
    for n, run, bare in rows["cl"]:
        row = (n, run)
        cursor.execute(sql["close_run"], row)
        if not bare:
            for statement in _CLOSING:
                cursor.execute(sql[statement], row)
        cursor.execute(sql["ignore_inputs"], (*row, now))
        cursor.execute(sql["close_inputs"], row)
    if rows["u"] or rows["w"] or any(arrivals):
        return _match(context, rows, arrivals, refused)
    return {}


def _match(context: Context, rows: Rows, arrivals: list[int], refused: set[int]) -> dict[int, list[InputRow]]:
    """Matching on either insert. A pair of which both sides are new belongs to the arrival's side, so it is found
    once."""
    cursor, sql = context.cursor, context.sql
    first_new = next((arrival for arrival in arrivals if arrival), 1 << 62)
    found: list[tuple[int, str, str, str, str, int, int]] = []
    subscriptions: set[int] = set()
    for row in rows["h"]:
        for known in cursor.execute(sql["match_arrival_key"], row).fetchall():
            if known[0] not in subscriptions:
                subscriptions.add(known[0])
                found.append((row[0], known[1], "fact", known[2], known[3], known[4], arrivals[row[1] - 1]))
    earliest: dict[tuple[str, str, int], tuple[int, int, tuple[Any, ...]]] = {}
    for row in rows["u"]:
        known = cursor.execute(sql["match_subscription"], (*row, first_new)).fetchone()
        if known is not None:
            wait = (row[2], row[3], row[4])
            candidate = (known[1], known[0], row)
            earliest[wait] = min(earliest.get(wait, candidate), candidate, key=lambda c: c[:2])
    for (run, name, visit), (_received, arrival, row) in earliest.items():
        found.append((row[0], row[1], "fact", run, name, visit, arrival))
    for place, row in enumerate(rows["a"]):
        if row[0] in refused or row[8] is None:
            continue
        known = cursor.execute(sql["match_arrival"], row).fetchone()
        if known is not None and row[4] in known[4].split(" "):
            found.append((row[0], known[0], "reply", known[1], known[2], known[3], arrivals[place]))
    for row in rows["w"]:
        types = row[6].split(" ")
        for arrival, kind in cursor.execute(sql["match_await"], (*row, first_new)).fetchall():
            if kind in types:
                found.append((row[0], row[1], "reply", row[2], row[4], row[5], arrival))
                break
    matched: dict[int, list[InputRow]] = {}
    for ordinal, tenant, kind, run, name, visit, arrival in found:
        owner = cursor.execute(sql["find_run"], (run,)).fetchone()
        owned = owner is not None and owner[2] == context.epoch
        source, event_id, body = cursor.execute(sql["arrival_by_id"], (arrival,)).fetchone()
        until = context.now + LEASE_MICROSECONDS if owned else context.now
        lease = (until, context.epoch if owned else None)
        values = (ordinal, tenant, kind, run, None, name, visit, source, event_id, None, arrival, context.now, *lease)
        cursor.execute(sql["insert_input"], values)
        if kind == "fact":
            cursor.execute(
                sql["remember_match"], (ordinal, arrival, f"matched: {UUID(run)} {name}/{visit}", context.now)
            )
        if owned:
            row_id = cursor.lastrowid or 0
            matched.setdefault(ordinal, []).append(
                InputRow(row_id, tenant, kind, UUID(run), None, name, visit, (source, event_id), body)
            )
    return matched
