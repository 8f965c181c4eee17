"""Ten bugs, each as small as a careless change: a context in which the product has it. A simulation that does not find
them proves nothing (test_planted.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from consumers import intake as intake_of
from consumers.intake import Intake
from contracts.envelope import Envelope
from contracts.sdk.transport import Delivery
from engine import coordinator, notes, recording
from engine.committer import Committer
from engine.notes import event_start_key
from engine.run import decide, outcomes, unwind
from engine.run.state import RunState, Step
from engine.store import Change, Commit, Notification
from engine.store import sqlite_append as appending
from engine.store.sqlite import shown_value
from scripts.simulation.store import SimStore


@contextmanager
def ack_first() -> Iterator[None]:
    """The delivery is settled when it arrives, not when what follows from it is recorded."""
    take = Intake._take

    def eager(self: Intake, delivery: Delivery) -> None:
        assert self._consumer is not None
        self._consumer.ack([delivery])
        take(self, delivery)

    with mock.patch.object(Intake, "_take", eager):
        yield


@contextmanager
def no_dedup() -> Iterator[None]:
    """Every delivery counts as a fact of its own."""
    number = itertools.count()
    key = event_start_key

    def fresh(*start: str) -> str:
        return f"{key(*start)}/{next(number)}"

    at_once, later = (mock.patch.object(place, "event_start_key", fresh) for place in (intake_of, notes))
    with at_once, later, _arrivals_repeat(lambda row: True):
        yield


@contextmanager
def _arrivals_repeat(which: Callable[[Any], bool]) -> Iterator[None]:
    """The inbox takes a known id again, check and unique index both."""
    refusals, start = appending.refusals, SimStore.__init__

    def forgetful(context: Any, rows: Any) -> Any:
        arrivals = rows["a"]
        rows["a"] = [row for row in arrivals if not which(row)]
        try:
            return refusals(context, rows)
        finally:
            rows["a"] = arrivals

    def opened(self: SimStore, database: Any, gate: Any) -> None:
        start(self, database, gate)
        sql = self._appender._sql = dict(self._appender._sql)
        sql["insert_inbox"] = sql["insert_inbox"].replace("INSERT INTO", "INSERT OR IGNORE INTO")

    with mock.patch.object(appending, "refusals", forgetful), mock.patch.object(SimStore, "__init__", opened):
        yield


@contextmanager
def outbox_in_a_second_commit() -> Iterator[None]:
    """Messages are recorded after what they tell of."""
    append = Committer._append

    async def later(self: Committer, commits: list[Commit]) -> Any:
        answers = await append(self, [replace(commit, outbox=()) for commit in commits])
        rest = [Commit(tenant=c.tenant, stream=None, outbox=c.outbox) for c in commits if c.outbox]
        if rest:
            await append(self, rest)
        return answers

    with mock.patch.object(Committer, "_append", later):
        yield


@contextmanager
def new_key_on_retry() -> Iterator[None]:
    """A further attempt is another order."""
    send, made = recording._send, Envelope

    def fresh(rows: Any, effect: Any, *more: Any) -> None:
        def envelope(**fields: Any) -> Any:
            if effect.attempt > 1:
                fields["subject"] += f"/{effect.attempt}"
                fields["id"] = recording.command_id(fields["subject"])
            return made(**fields)

        with mock.patch.object(recording, "Envelope", envelope):
            send(rows, effect, *more)

    with mock.patch.object(recording, "_send", fresh):
        yield


@contextmanager
def result_not_deduplicated() -> Iterator[None]:
    """Whatever a step's module says is recorded, however often it says it."""
    done, record = outcomes.step_done, recording.record

    def again(run: Any, given: Any) -> Any:
        step: Step | None = run.state.step(given.step, given.visit)
        if step is not None and step.status == "succeeded":
            step.status = "open"
        return done(run, given)

    def no_keys(*given: Any, **more: Any) -> Any:
        return record(*given, **(more | {"input_keys": ()}))

    known = mock.patch.object(coordinator, "record", no_keys)
    with mock.patch.object(decide, "step_done", again), known, _arrivals_repeat(lambda row: row[8] is not None):
        yield


@contextmanager
def wrong_undo_order() -> Iterator[None]:
    """The oldest completion is undone first."""

    def oldest(state: RunState) -> Step | None:
        waiting = [
            step
            for step in (state.steps or {}).values()
            if step.undo is not None and step.undo_status == "" and (step.status == "succeeded" or step.ambiguous)
        ]
        return min(waiting, key=lambda step: step.completed, default=None)

    with mock.patch.object(unwind, "next_undo", oldest):
        yield


@contextmanager
def one_undo_skipped() -> Iterator[None]:
    """The first step of a run is never undone."""
    following = unwind.next_undo

    def skipping(state: RunState) -> Step | None:
        step = following(state)
        return None if step is not None and step.name == "reserve-0" else step

    with mock.patch.object(unwind, "next_undo", skipping):
        yield


@contextmanager
def lease_without_epoch() -> Iterator[None]:
    """Who appends is asked neither whether it was declared dead nor whether the run is still its own."""
    start = SimStore.__init__

    def opened(self: SimStore, database: Any, gate: Any) -> None:
        start(self, database, gate)
        sql = self._appender._sql = dict(self._appender._sql)
        sql["living"] = "SELECT 1 WHERE ?1 >= 0"
        asked = "(SELECT owner FROM open_runs WHERE run_id = ?1)"
        assert asked in sql["find_stream"]
        sql["find_stream"] = sql["find_stream"].replace(asked, "NULL")

    with mock.patch.object(SimStore, "__init__", opened):
        yield


@contextmanager
def checkpoint_outside_the_transaction() -> Iterator[None]:
    """How far a read model was written is recorded before its rows are."""
    apply = SimStore.apply

    async def parted(
        self: SimStore, view: str, lane: int, *, expected: int, position: int, changes: Sequence[Change]
    ) -> bool:
        if not await apply(self, view, lane, expected=expected, position=position, changes=()):
            return False
        await self.gate.before("apply")

        def work(cursor: Any) -> None:
            for change in changes:
                for step in self.view_statements[change.statement].steps:
                    cursor.executemany(step.sql, [tuple(shown_value(value) for value in row) for row in change.rows])

        self.database.transaction(work)
        return True

    with mock.patch.object(SimStore, "apply", parted):
        yield


@contextmanager
def gap_in_the_log() -> Iterator[None]:
    """A reader is shown positions whose predecessors are not committed yet, as without the lane's lock."""
    read = SimStore.read

    async def ahead(self: SimStore, lane: int, *, after: int, limit: int) -> list[Notification]:
        found = await read(self, lane, after=after, limit=limit)
        if len(found) > 1 and found[-1].position % 5 == 0:
            del found[-2]
        return found

    with mock.patch.object(SimStore, "read", ahead):
        yield


PLANTED: dict[str, Callable[[], AbstractContextManager[None]]] = {
    planted.__name__: planted
    for planted in (
        ack_first,
        no_dedup,
        outbox_in_a_second_commit,
        new_key_on_retry,
        result_not_deduplicated,
        wrong_undo_order,
        one_undo_skipped,
        lease_without_epoch,
        checkpoint_outside_the_transaction,
        gap_in_the_log,
    )
}
