"""What may follow an ended run: a run that runs it once more, or one that undoes what it did. `ask` and `undo` check
that it can be done and journal it like any start; `told` is what the worker that takes it begins with: the first run's
data, and what is known of everything it did.

An ended run has one successor at most, so receipts have one owner: whoever wants a third run reruns the second one,
which knows more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from contracts.problems import Conflict, NotFound
from contracts.run_events import RunEvent
from engine.notes import Started, successor_key
from engine.run.evolve import fold
from engine.run.replay import is_erased
from engine.run.rerun import adopt, inherit
from engine.run.state import RunState
from engine.store import Store
from engine.store.keys import Vault
from engine.store.mapper import Mapper

if TYPE_CHECKING:
    from engine.door import Begun, Door

KINDS: Final = frozenset({"rerun", "unwind"})


async def ask(
    door: Door,
    tenant: str,
    run_id: UUID,
    *,
    by: str,
    from_step: str | None = None,
    repeat_effects: Sequence[str] = (),
    reason: str = "",
    traceparent: str | None = None,
) -> Begun:
    """Accepts a rerun of the ended run; asked again alike, it answers with the first one's run as a duplicate.

    Raises `NotFound` for no such run; `Conflict` while it is open, when its workflow is not installed, when an erasure
    has emptied it, when it has another successor, while it is the child of an open run, and for what
    `engine.run.rerun.inherit` refuses.
    """
    before = await _before(door, tenant, run_id)
    inherit(before, from_step=from_step, repeat=repeat_effects)
    asked = {"from_step": from_step, "repeat_effects": sorted(repeat_effects), "reason": reason}
    return await _follow(door, before, "rerun", asked, by=by, traceparent=traceparent)


async def undo(
    door: Door, tenant: str, run_id: UUID, *, by: str, reason: str = "", traceparent: str | None = None
) -> Begun:
    """Accepts a run that unwinds the ended run, newest effect first, with the receipts of that one. Raises as `ask`
    does, and `Conflict` when nothing of the run stands.
    """
    before = await _before(door, tenant, run_id)
    if not adopt(before):
        raise Conflict("nothing that this run did stands and can be undone", field="run_id")
    return await _follow(door, before, "unwind", {"reason": reason}, by=by, traceparent=traceparent)


async def told(store: Store, vault: Vault, mapper: Mapper, tenant: str, started: Started) -> Started:
    """What a successor begins with. Raises `Conflict` when the run before it has been erased meanwhile."""
    asked: dict[str, Any] = started.data
    run_id = UUID(asked["run_id"])
    stored = await store.load(tenant, run_id)
    if not stored:
        raise Conflict("the run that was to be followed is not there any more", field="run_id")
    keys = await vault.ready(tenant, [one.body for one in stored])
    before = _ended(run_id, tenant, mapper.decode_all(keys, run_id, stored))
    trigger = {**started.trigger, "id": str(run_id)}
    if asked["reason"]:
        trigger["reason"] = asked["reason"]
    again = started.trigger["kind"] == "rerun"
    return replace(
        started,
        trigger=trigger,
        data=before.data,
        marks=tuple(mark.removeprefix("/data") for mark in before.data_marks if mark.startswith("/data")),
        subject=before.subject,
        scope=before.scope,
        inherited=inherit(before, from_step=asked["from_step"], repeat=asked["repeat_effects"]) if again else (),
        adopted=() if again else adopt(before),
    )


async def _before(door: Door, tenant: str, run_id: UUID) -> RunState:
    before = _ended(run_id, tenant, await door.events(tenant, run_id))
    if before.workflow not in door.plans.names:
        raise Conflict(f"workflow {before.workflow!r} is not installed; install it first", field="workflow")
    parent = (before.trigger or {}).get("parent")
    if parent is not None and await door.store.open_run(tenant, UUID(parent["run_id"])) is not None:
        raise Conflict(f"this run is a child of run {parent['run_id']}, which is open: it decides", field="run_id")
    return before


async def _follow(
    door: Door, before: RunState, kind: str, asked: Mapping[str, Any], *, by: str, traceparent: str | None
) -> Begun:
    key = successor_key(before.run_id)
    try:
        return await door.start_run(
            before.tenant,
            before.workflow,
            {"run_id": str(before.run_id), **asked},
            key=str(before.run_id),
            start_key=key,
            kind=kind,
            initiator=by,
            correlation_id=before.correlation_id,
            traceparent=traceparent,
            permissions=(before.trigger or {}).get("permissions"),
        )
    except Conflict:
        name = await door.store.started(before.tenant, key) or "another run"
        raise Conflict(f"this run is followed by run {name}; rerun or undo that one", field="run_id") from None


def _ended(run_id: UUID, tenant: str, log: Sequence[RunEvent]) -> RunState:
    if not log:
        raise NotFound("there is no such run", field="run_id")
    if any(is_erased(event) for event in log):
        raise Conflict("what this run knew of its data subject was erased; nothing can follow it", field="run_id")
    state = fold(RunState(run_id, tenant), log)
    if state.ended is None:
        raise Conflict(
            "the run has not ended; retry what is parked, or cancel it first",
            status_of_run=state.status,
            field="run_id",
        )
    return state
