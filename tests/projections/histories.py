"""Run histories as the engine could have written them, one per shape of life, and a way to put them into a real log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import uuid_utils

from contracts import run_events as ev
from contracts.run_events import RunEvent
from engine.store import Closed, Commit, Opened, Recorded, Start, Store
from engine.store.keys import Vault
from engine.store.mapper import Mapper

START = datetime(2030, 1, 31, 23, 59, 58, tzinfo=UTC)


class Teller:
    """Makes events in a row, half a second apart."""

    def __init__(self, at: datetime = START) -> None:
        self._at = at
        self.events: list[RunEvent] = []

    def __call__(self, kind: type[RunEvent], /, **fields: Any) -> Teller:
        self._at += timedelta(milliseconds=500)
        self.events.append(kind(at=self._at, **fields))
        return self

    def started(self, workflow: str = "onboarding", **fields: Any) -> Teller:
        given: dict[str, Any] = {
            "workflow": workflow,
            "workflow_version": 1,
            "trigger": {
                "kind": "manual",
                "id": "manual/1",
                "type": "unwind.StartRequestedV1",
                "source": "/modules/unwind",
            },
            "data": {"plan": "pro", "email": "ada@example.org"},
            "marks": ("/data/email", "/attributes/email"),
            "scope": "scope",
            "initiator": "ops",
            "correlation_id": "story-1",
            "attributes": {"plan": "pro", "email": "ada@example.org"},
        }
        return self(ev.RunStarted, **(given | fields))

    def step(self, name: str, *, kind: str = "local", undo: str | None = None, **fields: Any) -> Teller:
        return self(
            ev.StepScheduled, step=name, visit=1, key=f"scope/{name}/1", action=f"billing.{name}", kind=kind,
            input={"amount": 3}, input_hash="h", undo=undo, **fields,
        )  # fmt: skip

    def done(self, name: str, output: Any = None, cost: float = 0.0) -> Teller:
        return self(ev.StepSucceeded, step=name, visit=1, attempt=1, output=output, cost=cost)

    def failed(self, name: str, *, attempt: int = 1, final: bool = True, **fields: Any) -> Teller:
        error = {"code": "declined", "message": "card declined", "stack": ["charge.py:3 charge"]}
        return self(ev.StepFailed, step=name, visit=1, attempt=attempt, error=error, final=final, **fields)

    def ended(self, status: str = "succeeded", **fields: Any) -> Teller:
        return self(ev.RunEnded, status=status, **fields)


def straight() -> list[RunEvent]:
    tell = Teller().started().step("charge", undo="billing.refund").done("charge", {"receipt": "r1"}, 0.25)
    return tell.step("mail").done("mail", {"sent": True}, 0.000001).ended(output={"ok": True}).events


def retried() -> list[RunEvent]:
    tell = Teller().started().step("charge")
    tell.failed("charge", final=False, retry_at=START + timedelta(seconds=30))
    tell(ev.StepAttempted, step="charge", visit=1, attempt=2)
    return tell.done("charge", {"receipt": "r2"}).ended().events


def unwound() -> list[RunEvent]:
    tell = Teller().started().step("charge", kind="command", undo="billing.refund").done("charge", {"receipt": "r1"})
    tell.step("ship", kind="command").failed("ship", irrecoverable=True)
    tell(ev.CompensationStarted, cause="failed", by="engine", error={"code": "declined", "message": "card declined"})
    tell(
        ev.UndoScheduled, step="charge", visit=1, key="scope/charge/1/undo", action="billing.refund", kind="command",
        input={"amount": 3}, receipt={"receipt": "r1"},
    )  # fmt: skip
    tell(ev.UndoSucceeded, step="charge", visit=1, attempt=1, output={"refunded": True})
    return tell.ended("compensated", error={"code": "declined", "message": "card declined"}).events


def parked() -> list[RunEvent]:
    tell = Teller().started().step("charge", on_failure="park").failed("charge")
    tell(ev.IncidentOpened, incident="i1", reason="step_failed", detail="card declined", step="charge", visit=1)
    tell(ev.IncidentResolved, incident="i1", how="retry", by="ops")
    tell(ev.StepAttempted, step="charge", visit=1, attempt=2)
    return tell.done("charge", {"receipt": "r3"}).ended().events


def undo_parked() -> list[RunEvent]:
    tell = Teller().started().step("charge", undo="billing.refund").done("charge", {"receipt": "r1"})
    tell(ev.CompensationStarted, cause="cancelled", by="ops")
    undo = {"step": "charge", "visit": 1, "key": "scope/charge/1/undo", "action": "billing.refund", "kind": "local"}
    tell(ev.UndoScheduled, **undo, input={}, receipt={"receipt": "r1"})
    tell(ev.UndoFailed, step="charge", visit=1, attempt=1, error={"code": "down", "message": "no"}, final=True)
    tell(ev.IncidentOpened, incident="i2", reason="undo_failed", detail="no", step="charge", visit=1)
    tell(ev.IncidentResolved, incident="i2", how="retry", by="ops")
    tell(ev.UndoScheduled, **undo, input={}, receipt={"receipt": "r1"}, attempt=2)
    tell(ev.UndoSucceeded, step="charge", visit=1, attempt=2)
    return tell.ended("cancelled").events


def waiting() -> list[RunEvent]:
    tell = Teller().started(queued=True)(ev.RunAdmitted).step("charge")
    tell(ev.SleepStarted, name="nap", visit=1, due=START + timedelta(hours=1)).done("charge")
    tell(ev.SleepEnded, name="nap", visit=1)(ev.RunHeld)(ev.RunAdmitted)
    tell(
        ev.WaitStarted, name="paid", visit=1, event="billing.PaidV1", key_name="customer", key_value="c1",
        look_back=START, due=None,
    )  # fmt: skip
    tell(ev.WaitMatched, name="paid", visit=1, event_id="e9", data={"amount": 3})
    tell(ev.StateEntered, name="Active", visit=1)
    return tell.ended().events


def approved() -> list[RunEvent]:
    tell = Teller().started()
    tell(ev.ApprovalRequested, name="review", visit=1, title="Look", role="approver", context={"company": "x"})
    tell(ev.ApprovalDecided, name="review", visit=1, approved=True, by="eve", comment="fine")
    tell(ev.ApprovalRequested, name="second", visit=1, title="Again", role="approver", due=START + timedelta(days=1))
    return tell(ev.ApprovalTimedOut, name="second", visit=1).ended().events


def abandoned_approval() -> list[RunEvent]:
    tell = Teller().started()
    tell(ev.ApprovalRequested, name="review", visit=1, title="Look", role="approver")
    tell(ev.CompensationStarted, cause="cancelled", by="ops")
    return tell.ended("cancelled").events


def asked_what_became_of_it() -> list[RunEvent]:
    tell = Teller().started().step("first").done("first").step("charge", kind="command", undo="billing.refund")
    error = {"code": "timeout", "message": "no outcome within 30 s"}
    doubt: dict[str, Any] = {"step": "charge", "visit": 1, "attempt": 1, "error": error}
    tell(ev.StepDoubted, **doubt)
    tell(ev.IncidentOpened, incident="i1", reason="fate_unknown", detail="no answer", step="charge", visit=1)
    tell(ev.IncidentResolved, incident="i1", how="retry", by="ops")
    tell(ev.StepDoubted, **doubt)
    tell(ev.StepCleared, step="charge", visit=1, attempt=1, closing=False)
    tell(ev.StepFailed, **doubt, final=True, ambiguous=True)
    tell(ev.CompensationStarted, cause="failed", by="engine", error=error)
    tell(ev.StepDoubted, **doubt, retryable=False)
    tell(ev.IncidentOpened, incident="i2", reason="undo_failed", detail="no answer", step="charge", visit=1)
    tell(ev.IncidentResolved, incident="i2", how="retry", by="ops")
    tell(ev.StepDoubted, **doubt, retryable=False)
    tell(ev.StepCleared, step="charge", visit=1, attempt=1, closing=True)
    return tell.ended("failed", error=error).events


def skipped_step() -> list[RunEvent]:
    tell = Teller().started().step("charge", on_failure="park").failed("charge")
    tell(ev.IncidentOpened, incident="i1", reason="step_failed", detail="card declined", step="charge", visit=1)
    tell(ev.StepSkipped, step="charge", visit=1, output={"receipt": "by hand"}, by="ops", reason="paid in cash")
    tell(ev.IncidentResolved, incident="i1", how="skip", by="ops")
    tell.step("mail")(ev.StepCancelled, step="mail", visit=1, ambiguous=True)
    return tell.ended("failed", error={"code": "raised", "message": "boom \x00 NUL"}, left=("charge",)).events


def long() -> list[RunEvent]:
    tell = Teller().started()
    for n in range(40):
        tell.step(f"s{n:02}").done(f"s{n:02}", {"n": n}, 0.1)
    return tell.ended().events


SHAPES = (
    straight, retried, unwound, parked, undo_parked, waiting, approved, abandoned_approval, skipped_step, long,
    asked_what_became_of_it,
)  # fmt: skip


def _open_run(events: Sequence[RunEvent], *, first: bool) -> Opened | Closed | None:
    if isinstance(events[-1], ev.RunEnded):
        return None if first else Closed()
    return Opened(status="running", slot=False) if first else None


async def record(
    store: Store, vault: Vault, tenant: str, events: Sequence[RunEvent], *, epoch: int, at_once: int = 3
) -> UUID:
    """Appends the history as a run of the tenant, a few events per commit; answers its id."""
    run_id = UUID(str(uuid_utils.uuid7()))
    keys = await vault.keys_for(tenant)
    subject = await vault.subject_keys(tenant, "ada")
    mapper = Mapper()
    for begin in range(0, len(events), at_once):
        recorded: list[Recorded] = [
            mapper.encode(keys, run_id, begin + offset + 1, event, subject)
            for offset, event in enumerate(events[begin : begin + at_once])
        ]
        first = begin == 0
        commit = Commit(
            tenant=tenant,
            stream=run_id,
            expected=begin,
            events=tuple(recorded),
            start=Start(key=f"manual/{run_id}", workflow="onboarding", workflow_version=1) if first else None,
            open_run=_open_run(events[begin : begin + at_once], first=first),
        )
        [outcome] = await store.append([commit], epoch=epoch)
        assert type(outcome).__name__ == "Appended", outcome
    return run_id
