"""The spans of runs: which trace a step is in, and what is told of a commit once it is in the log.

A run's first trace is that of the message or request that began it. Nothing is kept open while a run waits: whatever
follows a wait is in a trace of its own, whose first span, made when the wait is over, links back to the run's beginning
and to the trace before; so does the unwinding. Every context follows from the run's id and what the span is about, so
that an owner, the next owner and a module name the same span without asking each other. What was asked for after a wait
belongs to that wait's trace, also when a branch beside it went on meanwhile.

`engine.coordinator` tells it of commits; the shells ask it for contexts. Without tracing there is none of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from contracts import run_events as ev
from contracts.envelope import Envelope
from contracts.run_events import RunEvent
from contracts.sdk.tracing import Told, Tracing
from contracts.traceparent import SpanContext, read, span_id, trace_id
from engine.answers import Result
from engine.clock import Clock
from engine.run.decide import TIMER
from engine.run.inputs import Input, TimerDue
from engine.run.state import Key, RunState
from engine.settings import Settings
from engine.store import Appended

UNDOS_REMEMBERED: Final = 10_000
"""Undos under way whose beginning is known here; the span of any other begins when it ends."""

_WAIT_OVER: Final = (ev.WaitMatched, ev.WaitTimedOut, ev.SleepEnded, ev.ApprovalDecided, ev.ApprovalTimedOut)


def open_tracing(settings: Settings, service: str) -> Tracing | None:
    """Where this process's spans go; None when no address is set. Raises `TracingMissing`."""
    given = settings.tracing
    if given.endpoint is None:
        return None
    headers = "" if given.headers is None else given.headers.get_secret_value()
    pairs = [part.partition("=") for part in headers.split(",") if part]
    return Tracing.to(
        given.endpoint,
        service=service,
        sample=given.sample,
        headers={name.strip(): value.strip() for name, _, value in pairs},
    )


class RunTracing:
    """One per process that decides runs."""

    def __init__(self, tracing: Tracing, clock: Clock) -> None:
        self.tracing, self._clock = tracing, clock
        self._undos: OrderedDict[tuple[UUID, str, int, int], datetime] = OrderedDict()

    def now(self) -> datetime:
        return self._clock.now()

    # ------------------------------------------------------------------------------------------------ contexts

    def arrival(self, envelope: Envelope) -> SpanContext:
        """The span of an event's intake."""
        about = ("arrival", envelope.tenantid, envelope.source, envelope.id)
        return self.tracing.about(read(envelope.traceparent), *about)

    def origin(self, state: RunState) -> SpanContext:
        """The span of the run's start."""
        return self.tracing.about(read(state.traceparent), "run", state.run_id)

    def wait(self, run_id: UUID, key: Key, *, sampled: bool = True) -> SpanContext:
        """The first span after a wait."""
        about = ("wait", run_id, *key)
        return SpanContext(trace_id(*about), span_id(*about), sampled)

    def attempt(self, state: RunState, step: str, visit: int, attempt: int, *, undo: bool) -> SpanContext:
        """The span of one attempt at a step, or at its undo; a command carries it to its module."""
        parent = self._unwinding(state) if undo else self.leg(state, (step, visit))
        return parent.child("undo" if undo else "step", state.run_id, step, visit, attempt)

    def leg(self, state: RunState, key: Key | None = None) -> SpanContext:
        """The first span of the trace in which `key` was asked for; without it, of what comes last."""
        origin = self.origin(state)
        waits = state.waits
        if waits:
            asked = list(state.recorded or ())
            before = asked[: asked.index(key)] if key is not None and key in (state.recorded or {}) else asked
            for earlier in reversed(before):
                wait = waits.get(earlier)
                if wait is not None and (key is not None or not wait.open):
                    return self.wait(state.run_id, earlier, sampled=origin.sampled)
        return origin

    def here(self, state: RunState) -> SpanContext:
        """The first span of the trace that the run is in now."""
        return self.leg(state) if state.cause is None else self._unwinding(state)

    def _unwinding(self, state: RunState) -> SpanContext:
        about = ("unwinding", state.run_id)
        return SpanContext(trace_id(*about), span_id(*about), self.origin(state).sampled)

    # ------------------------------------------------------------------------------------------------ arrivals

    def taken(self, envelope: Envelope, queue: str, result: Result, began: datetime) -> None:
        """An event was taken from the bus, and this became of it. A repeat goes on from the one that counted."""
        context, parent = self.arrival(envelope), read(envelope.traceparent)
        if not isinstance(result, Appended):
            context, parent = self.tracing.fresh(context), context
        self.tracing.record(
            f"take {envelope.type}",
            context,
            began=began,
            ended=self.now(),
            parent=parent,
            kind="consumer",
            tenant=envelope.tenantid,
            destination=queue,
            outcome=type(result).__name__.lower(),
        )

    def given(self, envelope: Envelope, run_id: UUID, wait: Key | None, began: datetime) -> None:
        """An event was given to a run: to this wait of it, or as the reply to one of its commands."""
        parent = self.arrival(envelope)
        self.tracing.record(
            f"{'match' if wait else 'reply'} {envelope.type}",
            parent.child("given", run_id, *(wait or ())),
            began=began,
            ended=self.now(),
            parent=parent,
            links=[self.wait(run_id, wait)] if wait else (),
            tenant=envelope.tenantid,
            run_id=str(run_id),
        )

    # ------------------------------------------------------------------------------------------------ commits

    def committed(self, before: RunState, events: Sequence[RunEvent], after: RunState, inputs: Iterable[Input]) -> None:
        """Records what has ended with these events, which are in the log now."""
        if not self.origin(after).sampled:
            return
        now = self.now()
        told: Told = {"tenant": after.tenant, "run_id": str(after.run_id), "workflow": after.workflow}
        for event in events:
            match event:
                case ev.RunStarted():
                    parent = read(after.traceparent)
                    self._record(f"start {after.workflow}", self.origin(after), event.at, now, told, parent=parent)
                case ev.UndoScheduled():
                    self._undos[after.run_id, event.step, event.visit, event.attempt] = event.at
                    if len(self._undos) > UNDOS_REMEMBERED:
                        self._undos.popitem(last=False)
                case (
                    ev.StepSucceeded() | ev.StepFailed() | ev.StepSkipped() | ev.StepCancelled()
                    | ev.UndoSucceeded() | ev.UndoFailed()
                ):  # fmt: skip
                    self._attempt_over(before, event, after, told)
                case _ if isinstance(event, _WAIT_OVER):
                    key = (event.name, event.visit)
                    context = self.wait(after.run_id, key)
                    links = [self.origin(after), self.leg(after, key)]
                    self._record(f"wake {event.name}", context, event.at, now, told, links=links, step=event.name)
                case ev.CompensationStarted():
                    links = [self.origin(after), self.leg(after)]
                    name = f"unwind {after.workflow}"
                    self._record(name, self._unwinding(after), event.at, now, told, links=links, outcome=event.cause)
                case ev.IncidentOpened():
                    self._beside(f"park {event.reason}", after, event.at, now, told, failed=True)
                case ev.IncidentResolved():
                    self._beside(f"resume {event.how}", after, event.at, now, told)
                case ev.RunEnded():
                    failed = event.status not in ("succeeded", "cancelled", "skipped")
                    links = [self.origin(after)]
                    more: dict[str, Any] = {"links": links, "failed": failed, "outcome": event.status}
                    self._beside(f"end {after.workflow}", after, event.at, now, told, **more)
                case _:
                    pass
        for given in inputs:
            if isinstance(given, TimerDue):
                self._timer(given, after, now, told)

    def _attempt_over(self, before: RunState, event: Any, after: RunState, told: Told) -> None:
        step = after.step(event.step, event.visit)
        assert step is not None
        undo = isinstance(event, ev.UndoSucceeded | ev.UndoFailed)
        attempt = getattr(event, "attempt", step.attempt)
        if undo:
            began = self._undos.pop((after.run_id, event.step, event.visit, attempt), event.at)
            parent = self._unwinding(after)
        else:
            known = before.step(event.step, event.visit) or step
            began = known.began if known.began is not None and known.attempt == attempt else event.at
            parent = self.leg(after, (event.step, event.visit))
        self._record(
            f"{'undo' if undo else 'step'} {step.undo if undo else step.action}",
            self.attempt(after, event.step, event.visit, attempt, undo=undo),
            began,
            event.at,
            told,
            parent=parent,
            failed=isinstance(event, ev.StepFailed | ev.UndoFailed),
            step=event.step,
            attempt=attempt,
            outcome=_outcome(event),
        )

    def _timer(self, given: TimerDue, after: RunState, now: datetime, told: Told) -> None:
        timer = TIMER.fullmatch(given.key)
        kind, parent = given.key, self.here(after)
        if timer is not None:
            kind, key = timer["kind"] or timer["wait"], (timer["name"], int(timer["visit"]))
            parent = self.leg(after, key) if timer["kind"] else self.wait(after.run_id, key)
        self._record(f"timer {kind}", self.tracing.fresh(parent), given.at, now, told, parent=parent)

    def _beside(self, name: str, after: RunState, began: datetime, ended: datetime, told: Told, **more: Any) -> None:
        """A moment of the run, in the trace that it is in."""
        parent = self.here(after)
        context = parent.child(name, after.run_id, after.version)
        self._record(name, context, began, ended, told, parent=parent, **more)

    def _record(
        self, name: str, context: SpanContext, began: datetime, ended: datetime, told: Told, **more: Any
    ) -> None:
        self.tracing.record(name, context, began=began, ended=ended, **told, **more)


def _outcome(event: RunEvent) -> str:
    match event:
        case ev.StepSucceeded() | ev.UndoSucceeded():
            return "succeeded"
        case ev.StepFailed(ambiguous=True):
            return "ambiguous"
        case ev.StepFailed(final=False) | ev.UndoFailed(final=False):
            return "retried"
        case ev.StepSkipped():
            return "skipped"
        case ev.StepCancelled():
            return "cancelled"
        case _:
            return "failed"
