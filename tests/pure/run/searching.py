"""Walks every state that a small saga can reach: from each one every input there is, with and without a free slot. What
it finds is checked by `test_every_state.py` and drawn into docs/states.md (`python -m tests.pure.run.searching`)."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from contracts.calls import RetryPolicy
from contracts.run_events import TERMINAL
from engine.plan.code import Run, Saga, StepFailed, saga
from engine.plan.replay import CodePlan
from engine.run.decide import Decision, decide
from engine.run.inputs import Input
from engine.run.state import RunState
from tests.pure.run.telling import (
    ONCE,
    RUN,
    START,
    Heard,
    abandoned,
    admitted,
    approved,
    begun,
    cancelled,
    do,
    done,
    due,
    learned,
    lost,
    matched,
    moved,
    retried,
    skipped,
    stuck,
    terminated,
    undo_it,
    undo_lost,
    undone,
)

DIAGRAM = Path(__file__).resolve().parents[3] / "docs" / "states.md"
MOST_ATTEMPTS = 2
"""Operators may retry for ever; from here on one more attempt makes no new state."""


TWICE = RetryPolicy(attempts=2)


@saga("parking", version=1, timeout_seconds=3600, on_failure="park", parked_state="Stuck")
async def parking(run: Run, data: Any) -> Any:
    await run.gather(
        run.step("paid", do, undo=undo_it, retry=ONCE),
        run.wait_for("fact", "billing.PaidV1", key=("order", "1"), timeout_seconds=30),
    )


@saga("unwinding", version=1, timeout_seconds=3600)
async def unwinding(run: Run, data: Any) -> Any:
    answer = await run.approve("check", "Look", timeout_seconds=30)
    if not answer["approved"]:
        raise run.fail("refused")
    await run.step("paid", do, undo=undo_it, retry=TWICE)
    try:
        await run.step("soft", do, undo=undo_it, retry=ONCE, on_failure="continue")
    except StepFailed:
        raise run.fail("soft") from None


SAGAS = (parking, unwinding)
STEPS = ("paid", "soft")


def inputs() -> Iterator[tuple[str, Heard]]:
    """Every input, by the word the diagram uses for it."""
    for step in STEPS:
        yield "a step succeeds", done(step, {"of": step})
        yield "a step tells its progress", moved(step, {"of": step})
        yield "a step fails", lost(step)
        yield "a step's fate is unknown", lost(step, ambiguous=True)
        yield "a step can never work", lost(step, irrecoverable=True)
        yield "an undo succeeds", undone(step)
        yield "an undo fails", undo_lost(step)
        yield "an undo can never work", undo_lost(step, retryable=False)
        yield "an operator skips", skipped(step, {"by": "hand"})
        for attempt in range(1, MOST_ATTEMPTS + 1):
            yield "a retry is due", due(f"retry/{step}/1/{attempt}")
            yield "a step takes too long", due(f"deadline/{step}/1/{attempt}")
            yield "an undo is due again", due(f"undo-retry/{step}/1/{attempt}")
            yield "an undo takes too long", due(f"undo-deadline/{step}/1/{attempt}")
            for happened in (True, False, None):
                yield "a step's fate is learned", learned(step, attempt, happened)
    yield "a fact arrives", matched("fact")
    yield "a wait is over", due("wait/fact/1")
    yield "a wait is over", due("approval/check/1")
    yield "someone approves", approved("check")
    yield "someone refuses", approved("check", False)
    yield "the run is cancelled", cancelled()
    yield "the run is terminated", terminated()
    yield "an operator retries", retried()
    yield "an operator abandons", abandoned()
    yield "a slot is free", admitted()
    yield "the saga does not yield", stuck()
    yield "the run's deadline passes", due("run/deadline")
    yield "the run begins", begun()
    yield "the run begins without a slot", begun(queued=True)
    yield "nonsense", done("nobody")
    yield "nonsense", due("nothing/at/all")


@dataclass(frozen=True, slots=True)
class Found:
    """One decision of the search."""

    word: str
    given: Input
    hold: bool
    before: RunState
    decision: Decision


@dataclass(slots=True)
class Search:
    found: list[Found] = field(default_factory=list)
    states: int = 0


@cache
def search(definition: Saga) -> Search:
    """Breadth first over all reachable states; the run's time stands at ten seconds a step, far below its deadline."""
    plan = CodePlan(definition, {})
    result = Search()
    alphabet = list(inputs())
    first = RunState(RUN, "acme")
    seen = {shape(first)}
    ahead: deque[tuple[RunState, datetime]] = deque([(first, START)])
    while ahead:
        state, now = ahead.popleft()
        result.states += 1
        for word, heard in alphabet:
            given = heard(_when(word, state, now))
            plan.forget(state)
            decision = decide(state, given, plan)
            found = [Found(word, given, False, state, decision)]
            if decision.state.holds_slot and not state.holds_slot and word != "a slot is free":
                # What the coordinator does when the commit is Limited: it decides again, without a slot.
                plan.forget(state)
                found.append(Found(word, given, True, state, decide(state, given, plan, hold=True)))
            for one in found:
                after = one.decision.state
                if one.decision.events and shape(after) not in seen and _attempts(after) <= MOST_ATTEMPTS:
                    seen.add(shape(after))
                    ahead.append((after, given.at))
            result.found.extend(found)
    return result


def _when(word: str, state: RunState, now: datetime) -> datetime:
    """Timers come when they are due, everything else a second later."""
    if word == "the run's deadline passes" and state.deadline is not None:
        return max(now, state.deadline)
    return now + timedelta(seconds=1)


def _attempts(state: RunState) -> int:
    return max((max(step.attempt, step.undo_attempt) for step in (state.steps or {}).values()), default=0)


def shape(state: RunState) -> tuple[Any, ...]:
    """What makes two states different for what may follow: no times, no versions."""
    steps = sorted(
        (step.name, step.status, step.attempt, step.ambiguous, step.undo_status, step.undo_attempt, step.undo or "")
        for step in (state.steps or {}).values()
    )
    order = tuple(
        step.name for step in sorted((state.steps or {}).values(), key=lambda step: step.completed) if step.completed
    )
    waits = sorted((wait.name, wait.open) for wait in (state.waits or {}).values())
    incidents = sorted({(one.reason, one.step or "") for one in (state.incidents or {}).values()})
    answers = tuple((one.name, one.ok, str(one.value)[:8]) for one in state.completions or ())
    return (
        bool(state.version),
        state.status if state.version else "",
        state.queued,
        state.cause,
        state.timed_out,
        state.business_state,
        tuple(steps),
        order,
        tuple(waits),
        tuple(incidents),
        answers,
    )


def diagram() -> str:
    """docs/states.md: which inputs move a run between its statuses, as found by the search."""
    words: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for definition in SAGAS:
        for one in search(definition).found:
            if not one.decision.events:
                continue
            before = one.before.status if one.before.version else "[*]"
            after = one.decision.state.status
            if before != after:
                words[before, after].add(one.word)
    lines = [f"    {before} --> {after}" for before, after in sorted(words)]
    ends = [f"    {status} --> [*]" for status in sorted({after for _, after in words} & TERMINAL)]
    rows = [f"| {before} | {after} | {', '.join(sorted(words[before, after]))} |" for before, after in sorted(words)]
    return "\n".join(
        [
            "# The states of a run",
            "",
            "Found by a search through every state that two small sagas can reach; a test keeps this page current",
            "(`python -m tests.pure.run.searching` writes it). `[*]` is before the beginning and after the end.",
            "",
            "```mermaid",
            "stateDiagram-v2",
            *lines,
            *ends,
            "```",
            "",
            "| from | to | when |",
            "|---|---|---|",
            *rows,
            "",
            "## What is refused",
            "",
            "Every other input either changes no status or is ignored, with one of these reasons: an operator's order",
            "is answered with it, an event's is in the journal. Names and numbers are examples.",
            "",
            "| reason | said to | where |",
            "|---|---|---|",
            *refused(),
            "",
        ]
    )


def refused() -> list[str]:
    """Each reason for which an input changes nothing, with the inputs and the statuses that meet it."""
    met: defaultdict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for definition in SAGAS:
        for one in search(definition).found:
            if one.decision.ignored is not None:
                words, statuses = met[_general(one.decision.ignored)]
                words.add(one.word)
                statuses.add(one.before.status if one.before.version else "[*]")
    everything = {word for word, _ in inputs()}
    return [
        f"| {reason} | {'everything' if words >= everything - BEGINNINGS else ', '.join(sorted(words))} "
        f"| {', '.join(sorted(statuses))} |"
        for reason, (words, statuses) in sorted(met.items())
    ]


BEGINNINGS = {"the run begins", "the run begins without a slot"}


def _general(reason: str) -> str:
    """Steps of one name stand for all, and so do attempts."""
    reason = re.sub(r"attempt \d+", "attempt 1", reason.replace("'soft'", "'paid'").replace("'check'", "'fact'"))
    return re.sub(r"the run has ended \(\w+\)", "the run has ended", reason)


if __name__ == "__main__":
    DIAGRAM.write_text(diagram(), encoding="utf-8")
