"""Running an ended run once more, as a run of its own that knows what the first one did: `inherit` tells it, the rest
is what going forward asks.

Effects that stand are not done again: their steps are reused, with the receipts that their undos need. A step whose
fate nobody knows is done again under its old key, so that whoever keeps keys answers as before. One that was undone, or
that failed for certain, gets a new key: the old one is remembered as refused. Pure; called by `engine.run.forward` and
by whoever begins a rerun.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal

from contracts import run_events as ev
from contracts.problems import Conflict
from engine.plan import ApprovalAsked, Operation, SleepAsked, StepAsked, ValueAsked, WaitAsked, recorded_form
from engine.run.draft import Draft
from engine.run.evolve import texts
from engine.run.state import Inherited, Key, RunState, Step

Fate = Literal["stands", "unknown", "again", "closed", "repeat"]


def inherit(before: RunState, *, from_step: str | None = None, repeat: Collection[str] = ()) -> tuple[Inherited, ...]:
    """What a rerun of the ended run `before` is told. With `from_step`, that step and all that was asked for after its
    first visit are done again, under the keys they had; steps named in `repeat` get new keys, and so a second effect.

    Raises `Conflict` (`field` says which parameter) for a step that the run never came to, and for one whose undo has
    been tried and has not succeeded, unless `repeat` names it.
    """
    asked = [key for key, (kind, _, _) in (before.recorded or {}).items() if kind != "state"]
    never = [key for key in before.inherited or {} if key not in (before.recorded or {})]
    names = dict.fromkeys(name for name, visit in asked + never if _is_step(before, (name, visit)))
    for field, name in [("from_step", from_step), *(("repeat_effects", name) for name in repeat)]:
        if name is not None and name not in names:
            had = ", ".join(names) or "none"
            raise Conflict(f"the run came to no step {name!r}; its steps are: {had}", field=field)
    cut = next((place for place, (name, _) in enumerate(asked) if name == from_step), len(asked))
    found = [one for place, key in enumerate(asked) for one in _result(before, key, place >= cut, repeat)]
    for key in never:
        found.extend(_passed_on((before.inherited or {})[key], from_step is not None, repeat))
    return tuple(found)


def adopt(before: RunState) -> tuple[ev.StepReused, ...]:
    """What of the ended run `before` stands and can be undone, oldest completion first, for a run that unwinds it."""
    assert before.started_at is not None
    standing = [
        step
        for step in (before.steps or {}).values()
        if step.undo is not None and step.status == "succeeded" and step.undo_status != "done"
    ]
    return tuple(
        ev.StepReused(
            at=before.started_at,
            step=step.name,
            visit=step.visit,
            key=step.key,
            action=step.action,
            kind=step.kind,
            input=step.input,
            input_hash=step.input_hash,
            output=step.output,
            undo=step.undo,
            timeout_seconds=step.timeout_seconds,
            marks=step.marks + step.output_marks,
        )
        for step in sorted(standing, key=lambda step: step.completed)
    )


def _is_step(before: RunState, key: Key) -> bool:
    known = (before.inherited or {}).get(key)
    return key in (before.steps or {}) or (known is not None and known.kind == "step")


def _result(before: RunState, key: Key, cut: bool, repeat: Collection[str]) -> Iterator[Inherited]:
    name, visit = key
    kind, what, digest = (before.recorded or {})[key]
    if kind == "step":
        step = (before.steps or {})[key]
        fate = _fate(step, cut, repeat)
        value = step.output if fate == "stands" else None
        yield Inherited(
            name=name,
            visit=visit,
            kind="step",
            what=what,
            digest=digest,
            fate=fate,
            key=step.key,
            undoable=step.status != "skipped",
            value=value,
            marks=_marks(before, value, tuple("/value" + m.removeprefix("/output") for m in step.output_marks)),
        )
    elif not cut:
        result = next((one for one in before.completions or () if (one.name, one.visit) == key), None)
        if result is not None and result.ok and _lasts(kind, result.value):
            yield Inherited(
                name=name,
                visit=visit,
                kind=kind,  # type: ignore[arg-type]
                what=what,
                digest=digest,
                fate="stands",
                value=result.value,
                marks=_marks(before, result.value, ()),
            )


def _fate(step: Step, cut: bool, repeat: Collection[str]) -> Fate:
    if step.name in repeat:
        return "repeat"
    if step.undo_status == "done":
        return "closed"
    if step.undo_status:
        raise Conflict(
            f"an undo of step {step.name!r} was tried and nobody knows what is left of its effect; look, then name it "
            "in repeat_effects to have it done again",
            field="repeat_effects",
        )
    if step.status in ("succeeded", "skipped"):
        return "again" if cut else "stands"
    return "unknown" if step.ambiguous or step.status in ("open", "backoff") else "closed"


def _passed_on(known: Inherited, cut: bool, repeat: Collection[str]) -> Iterator[Inherited]:
    """What a rerun was told and never came to. A second effect that it was to have is not had without being asked for
    once more.
    """
    fate: Fate = known.fate
    if known.name in repeat and known.kind == "step":
        fate = "repeat"
    elif known.fate == "repeat" or (known.fate == "stands" and cut):
        fate = "again"
    if known.kind == "step" or not cut:
        keeps = fate == "stands"
        yield Inherited(
            known.name, known.visit, known.kind, known.what, known.digest, fate, known.key, known.undoable,
            known.value if keeps else None, known.marks if keeps else (),
        )  # fmt: skip


def _lasts(kind: str, value: Any) -> bool:
    """A wait in vain, a refusal and an approval that nobody gave are asked for again."""
    match kind:
        case "fact":
            return value is not None
        case "approval":
            return bool(value["approved"])
        case _:
            return True


def _marks(before: RunState, value: Any, declared: tuple[str, ...]) -> tuple[str, ...]:
    """What is personal in `value`: what was marked, and what repeats a personal text of the run before."""
    covered = set(declared)
    return declared + tuple(
        pointer
        for pointer, text in texts(value, "/value")
        if pointer not in covered and any(personal in text for personal in before.personal)
    )


# ------------------------------------------------------------------------------------------------------------------
# what going forward asks


def reuse(run: Draft, operation: Operation) -> bool:
    """Answers `operation` with what the run before has; False when it has nothing that lasts, or what it has is about
    something else: a mail about an account that was undone is sent once more about the new one.
    """
    known = (run.state.inherited or {}).get((operation.name, operation.visit))
    if known is None or known.fate != "stands" or recorded_form(operation) != _form_before(known):
        return False
    match operation:
        case StepAsked():
            marks = run.marks(operation.input, operation.spec.input_marks, "/input") + tuple(
                "/output" + mark.removeprefix("/value") for mark in known.marks
            )
            run.emit(
                ev.StepReused(
                    at=run.at,
                    step=operation.name,
                    visit=operation.visit,
                    key=known.key,
                    action=operation.spec.name,
                    kind=operation.spec.kind,
                    input=operation.input,
                    input_hash=operation.input_hash,
                    output=known.value,
                    undo=operation.undo if known.undoable else None,
                    on_failure=operation.on_failure,
                    timeout_seconds=operation.timeout_seconds,
                    marks=marks,
                )
            )
        case ValueAsked():
            run.emit(
                ev.ValueRecorded(
                    at=run.at, name=operation.name, visit=operation.visit, value=known.value, marks=known.marks
                )
            )
        case SleepAsked() | WaitAsked() | ApprovalAsked():
            assert known.kind in ("sleep", "fact", "approval")
            run.emit(
                ev.ResultReused(
                    at=run.at,
                    name=operation.name,
                    visit=operation.visit,
                    kind=known.kind,
                    what=known.what,
                    digest=known.digest,
                    value=known.value,
                    marks=known.marks,
                )
            )
        case _:
            return False
    return True


def unlike_before(state: RunState, operations: Sequence[Operation]) -> str | None:
    """Where a step that has an undo, and stands, is now asked for otherwise, one line each; None when all fit. If it
    were done once more, nobody would undo the first effect.
    """
    lines = []
    for operation in operations:
        known = (state.inherited or {}).get((operation.name, operation.visit))
        if known is None or known.fate != "stands" or not isinstance(operation, StepAsked):
            continue
        now, was = recorded_form(operation), _form_before(known)
        if now != was and known.undoable and operation.undo is not None:
            place = f"{operation.name!r} (visit {operation.visit})"
            if now[:2] == was[:2]:
                lines.append(f"~ {place}: {was[1]} stands and is now asked with another input than the run before had")
            else:
                lines.append(f"~ {place}: {was[0]} {was[1]} stands, the code now asks for {now[0]} {now[1]}")
    return "\n".join(lines) or None


def _form_before(known: Inherited) -> tuple[str, str, str]:
    return known.kind, known.what, known.digest


def step_key(state: RunState, operation: StepAsked) -> str:
    """The idempotency key of a step that is to be performed: `scope/step/visit`. In a rerun a step of which the run
    before has closed the key gets the next visit that nobody has used.
    """
    name, visit = operation.name, operation.visit
    inherited = state.inherited or {}
    known = inherited.get((name, visit))
    if known is not None and known.fate in ("unknown", "again"):
        return known.key
    if known is not None and known.fate == "repeat":
        return f"{state.run_id}/{name}/{visit}"
    known = known or next((one for one in inherited.values() if one.name == name and one.kind == "step"), None)
    if known is None:
        return f"{state.scope}/{name}/{visit}"
    root = known.key.rpartition("/")[0]
    used = [one.key for one in inherited.values() if one.name == name]
    used += [step.key for step in (state.steps or {}).values() if step.name == name]
    last = max(int(number) for head, _, number in (key.rpartition("/") for key in used) if head == root)
    return f"{root}/{last + 1}"
