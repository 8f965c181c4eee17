"""One lane's reading for a set of read models: step by step, each step one stretch of the log. It has no loop and no
life of its own; `consumers.projector` drives it live, `consumers.rebuild` from the beginning.

A view whose write fails is read again event by event until the guilty one is alone; there the view stops. Facts about
runs are kept between steps and folded again from the log when they are missing, so forgetting them is always right.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from contracts.problems import Problem, TenantOffboarded, TopicUnknown, Unavailable
from engine.accounts import Accounts
from engine.guards.redaction import REDACTED
from engine.logs import logger
from engine.metrics import Metrics
from engine.store import Notification, Store
from engine.store.data_keys import subject_of_scope
from engine.store.keys import KeysNotLoaded, TenantKeys, Vault
from engine.store.mapper import Mapper, scope_of_body
from projections import Decoded, View, cold, gather
from projections.facts import RunFacts
from projections.history import SUBJECT
from projections.reader import ATTRIBUTE

HOLD: Final = "projection.hold"
"""Setting of tenant `*`: view to the instant until which a rebuild keeps live projectors away from it."""

KNOWN_RUNS: Final = 50_000
SLICE: Final = 100


@dataclass(frozen=True, slots=True)
class Stopped:
    """Where a view stands still and why; `position` is the event it cannot take."""

    view: str
    lane: int
    position: int
    topic: str
    stream: UUID
    reason: str


class _Unreadable(Exception):
    """The event at `at` of a batch cannot be opened; those before it can."""

    def __init__(self, at: int, error: Exception) -> None:
        super().__init__(str(error))
        self.at = at
        self.error = error


class _Asked(NamedTuple):
    """A stretch of the log: up to `limit` events after `after`, none past `until`."""

    after: int
    limit: int
    until: int | None


class _Stretch(NamedTuple):
    """The events of a stretch up to the first one that cannot be opened; `error` when that is the very first."""

    stored: Sequence[Notification]
    events: Sequence[Decoded]
    error: Exception | None = None


class Follower:
    """`positions` is how far each view was written, as far as is known; `overtaken`: another process writes too."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        mapper: Mapper,
        views: Sequence[View],
        lane: int,
        metrics: Metrics,
        accounts: Accounts | None = None,
    ) -> None:
        self._store = store
        self._vault = vault
        self._mapper = mapper
        self._views = {view.name: view for view in views}
        self._metrics = metrics
        self._accounts = accounts
        self._spent = 0.0
        """CPU seconds that the batch at hand has cost, waits left out."""
        self._known: dict[UUID, RunFacts] = {}
        self._seeds: dict[str, dict[str, Any]] = {}
        self._cautious: dict[str, int] = {}
        self._ahead: tuple[_Asked | None, _Stretch | None] = None, None
        self._log = logger("projector")
        self.lane = lane
        self.positions: dict[str, int] = {}
        self.stopped: dict[str, Stopped] = {}
        self.held: frozenset[str] = frozenset()
        self.overtaken = False

    def forget(self) -> None:
        """Drops everything kept in memory; the next step reads the checkpoints."""
        self.positions.clear()
        self._known.clear()
        self._seeds.clear()
        self._ahead = None, None

    def lowest(self) -> int:
        """The position after which some moving view has still to read."""
        return min((self.positions[name] for name in self._moving() if name in self.positions), default=0)

    def measure(self, head: int) -> None:
        """Sets the lag of each view; `head` 0 means that the moving ones have read everything."""
        highest = max(self.positions.values(), default=0)
        for name, position in self.positions.items():
            self._metrics.projection_lag.of(name, str(self.lane)).set(max(0, max(head, highest) - position))

    async def step(self, limit: int, *, until: int | None = None) -> int:
        """Reads up to `limit` events (none past `until`) for the views that are furthest behind; answers how many. With
        `until` there is more to come: the next stretch is read and opened while this one is written.
        """
        moving = self._moving()
        if not moving:
            return 0
        for name in moving:
            if name not in self.positions:
                self.positions[name] = await self._store.checkpoint(name, self.lane)
        after = min(self.positions[name] for name in moving)
        group = [name for name in moving if self.positions[name] == after]
        stops = [self.positions[name] for name in moving if self.positions[name] > after]
        if until is not None:
            stops.append(until)
        if any(name in self._cautious for name in group):
            limit = 1
        asked = _Asked(after, limit, min(stops, default=None))
        (known, stretch), self._ahead = self._ahead, (None, None)
        if stretch is None or known != asked:
            stretch = await self._stretch(asked)
        if not stretch.stored:
            return 0
        if not stretch.events:
            assert stretch.error is not None
            for name in group:
                self._stop(name, stretch.stored[0], stretch.error)
            return 0
        last = stretch.stored[-1].position
        if until is None or last >= until:
            await self._write(group, after, stretch)
            return len(stretch.events)
        following = asked._replace(after=last)
        ahead = asyncio.create_task(self._stretch(following), name=f"follower-{self.lane}-ahead")
        try:
            await self._write(group, after, stretch)
            self._ahead = following, await ahead
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)
        return len(stretch.events)

    async def _stretch(self, asked: _Asked) -> _Stretch:
        stored: Sequence[Notification] = await self._store.read(self.lane, after=asked.after, limit=asked.limit)
        if asked.until is not None and stored and stored[-1].position > asked.until:
            stored = [event for event in stored if event.position <= asked.until]
        try:
            return _Stretch(stored, await self._open(stored))
        except _Unreadable as unreadable:
            if unreadable.at == 0:
                return _Stretch(stored, [], unreadable.error)
            stored = stored[: unreadable.at]
            return _Stretch(stored, await self._open(stored))

    async def _write(self, group: Sequence[str], after: int, stretch: _Stretch) -> None:
        stored, events = stretch.stored, stretch.events
        position = events[-1].position
        try:
            await self._warm(events)
            began = time.thread_time()
            batch = gather(events, self._known)
            self._spent += time.thread_time() - began
        except Unavailable:
            raise
        except Exception as error:
            # An event that cannot be folded is beyond every view; alone in its batch it is known by name.
            self._known.clear()
            for name in group:
                if len(events) == 1:
                    self._stop(name, stored[0], error)
                else:
                    self._cautious[name] = position
            return
        tenants = batch.tenants()
        answers = await asyncio.gather(
            *(self._apply(self._views[name], after, position, batch, tenants) for name in group), return_exceptions=True
        )
        if self._accounts is not None:
            self._accounts.projected(Counter(event.tenant for event in events), self._spent)
        for facts in batch.runs.values():
            if facts.ended is not None:
                self._known.pop(facts.run_id, None)
        while len(self._known) > KNOWN_RUNS:
            del self._known[next(iter(self._known))]
        for name, answer in zip(group, answers, strict=True):
            if answer is True:
                self.positions[name] = position
                self._metrics.projected.of(name).inc(len(events))
                if self._cautious.get(name, position + 1) <= position:
                    del self._cautious[name]
                continue
            self._seeds.pop(name, None)
            if answer is False:
                self.positions.pop(name, None)
                self.overtaken = True
            elif isinstance(answer, Unavailable) or not isinstance(answer, Exception):
                assert isinstance(answer, BaseException)
                raise answer
            elif len(events) == 1:
                self._stop(name, stored[0], answer)
            else:
                # One of these events is to blame: go on one by one until it is met.
                self._cautious[name] = position

    async def _apply(self, view: View, after: int, position: int, batch: Any, tenants: set[str]) -> bool:
        seeds = self._seeds.setdefault(view.name, {})
        if view.seed is not None:
            for tenant in tenants:
                if tenant not in seeds:
                    rows = await self._store.fetch(view.seed, tenant=tenant)
                    seeds[tenant] = rows[0] if rows else None
        began = time.thread_time()
        changes = view.changes(batch, seeds)
        self._spent += time.thread_time() - began
        return await self._store.apply(view.name, self.lane, expected=after, position=position, changes=changes)

    async def _open(self, stored: Sequence[Notification]) -> list[Decoded]:
        show, cached = self._mapper.show, self._vault.cached
        events: list[Decoded] = []
        keys: TenantKeys | None = None
        self._spent, began = 0.0, time.thread_time()
        for at, one in enumerate(stored):
            if at % SLICE == SLICE - 1:
                # Runs are decided in the same loop: they must not wait for a whole batch to be opened.
                self._spent += time.thread_time() - began
                await asyncio.sleep(0)
                began = time.thread_time()
            try:
                if keys is None or keys.tenant != one.tenant:
                    keys = cached(one.tenant) or await self._vault.keys_for(one.tenant)
                try:
                    event, text = show(keys, one.stream, one)
                except KeysNotLoaded:
                    keys = await self._vault.ready(one.tenant, [one.body])
                    event, text = show(keys, one.stream, one)
                hashes = await self._hashes(keys, one, event) if one.topic == "run.started" else ()
            except Unavailable:
                raise
            except TenantOffboarded:
                # Nobody can open it any more, and no view has anything of its tenant but the audit.
                unread = (one.position, one.tenant, one.stream, "gone", one.version, "", one.recorded_at)
                events.append(Decoded(*unread, {}, b"{}", one.body))
                continue
            except TopicUnknown as problem:
                if one.kind == "run":
                    raise _Unreadable(at, problem) from problem
                # Streams of tenants, workflows and schedules are audited as they are.
                event, text, hashes = {"at": one.recorded_at.isoformat()}, b"{}", ()
            except Exception as error:
                raise _Unreadable(at, error) from error
            events.append(
                Decoded(
                    one.position, one.tenant, one.stream, one.kind, one.version, one.topic, one.recorded_at,
                    event, text, one.body, hashes,
                )
            )  # fmt: skip
        self._spent += time.thread_time() - began
        return events

    async def _hashes(
        self, keys: TenantKeys, one: Notification, event: Mapping[str, Any]
    ) -> Sequence[tuple[str, bytes]]:
        """The scope of a run's data subject, and HMACs of its attributes; personal ones are opened for it, and left out
        once they are erased.
        """
        attributes, subject = event.get("attributes") or {}, event.get("subject")
        hidden = REDACTED in str(subject) or any(REDACTED in f"{name}{value}" for name, value in attributes.items())
        if hidden or any(mark.startswith("/attributes") for mark in event.get("marks") or ()):
            keys = await self._vault.ready(one.tenant, [one.body])
            opened = self._mapper.decode(keys, one.stream, one)
            attributes, subject = getattr(opened, "attributes", {}), getattr(opened, "subject", None)
        # Once it is erased nobody knows who it was; its scope still stands in the frame.
        scope = scope_of_body(one.body) if subject is None else keys.subject_scope(subject)
        found = [] if scope is None else [(SUBJECT, subject_of_scope(scope))]
        return found + [
            (name, keys.index_hash(ATTRIBUTE + name, value))
            for name, value in sorted(attributes.items())
            if isinstance(value, str)
        ]

    async def _warm(self, events: Sequence[Decoded]) -> None:
        """Folds the facts of runs that are not in memory from their logs, up to these events."""
        missing = cold(events, self._known)
        if not missing:
            return
        streams = await self._store.load_many([(tenant, run_id) for run_id, (tenant, _) in missing.items()])
        for run_id, (tenant, version) in missing.items():
            keys = await self._vault.ready(tenant, [one.body for one in streams[run_id]])
            facts = RunFacts(run_id, tenant)
            for one in streams[run_id]:
                if one.version > version:
                    break
                facts.take(one.version, 0, one.topic, self._mapper.show(keys, run_id, one)[0])
            self._known[run_id] = facts

    def _moving(self) -> list[str]:
        return [name for name in self._views if name not in self.stopped and name not in self.held]

    def _stop(self, view: str, at: Notification, error: Exception) -> None:
        reason = error.detail if isinstance(error, Problem) else f"{type(error).__name__}: {error}"
        self.stopped[view] = Stopped(view, self.lane, at.position, at.topic, at.stream, reason)
        self._metrics.incidents.of("view_stopped").inc()
        self._log.error(
            "view stopped",
            view=view,
            lane=self.lane,
            position=at.position,
            topic=at.topic,
            tenant_id=at.tenant,
            run_id=at.stream,
            error=error.code if isinstance(error, Problem) else type(error).__name__,
        )
