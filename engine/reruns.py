"""Running an ended run once more. `ask` checks that it can be done and journals it like any start; `told` is what the
worker that takes it begins with: the first run's data, and what is known of everything it did.

A run is rerun once: whoever wants it a third time reruns the second one, which knows more. So receipts have one owner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from contracts.problems import Conflict, NotFound
from contracts.run_events import RunEvent
from engine.notes import Started
from engine.run.evolve import fold
from engine.run.replay import is_erased
from engine.run.rerun import inherit
from engine.run.state import RunState
from engine.store import Store
from engine.store.keys import Vault
from engine.store.mapper import Mapper

if TYPE_CHECKING:
    from engine.door import Begun, Door

KIND = "rerun"


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
    has emptied it, when it was rerun in another way, and for what `engine.run.rerun.inherit` refuses.
    """
    before = _ended(run_id, tenant, await door.events(tenant, run_id))
    if before.workflow not in door.plans.names:
        raise Conflict(f"workflow {before.workflow!r} is not installed; install it first", field="workflow")
    inherit(before, from_step=from_step, repeat=repeat_effects)
    known = await door.store.started(tenant, f"{KIND}/{run_id}")
    try:
        return await door.start_run(
            tenant,
            before.workflow,
            {"run_id": str(run_id), "from_step": from_step, "repeat_effects": sorted(repeat_effects), "reason": reason},
            key=str(run_id),
            kind=KIND,
            initiator=by,
            correlation_id=before.correlation_id,
            traceparent=traceparent,
        )
    except Conflict:
        name = known or "another run"
        raise Conflict(f"this run was rerun as {name}; rerun that one", field="run_id") from None


async def told(store: Store, vault: Vault, mapper: Mapper, tenant: str, started: Started) -> Started:
    """What a journaled rerun begins with. Raises `Conflict` when the run before it has been erased meanwhile."""
    asked: dict[str, Any] = started.data
    run_id = UUID(asked["run_id"])
    stored = await store.load(tenant, run_id)
    if not stored:
        raise Conflict("the run that was to be rerun is not there any more", field="run_id")
    keys = await vault.ready(tenant, [one.body for one in stored])
    before = _ended(run_id, tenant, mapper.decode_all(keys, run_id, stored))
    trigger = {**started.trigger, "id": str(run_id)}
    if asked["reason"]:
        trigger["reason"] = asked["reason"]
    return replace(
        started,
        trigger=trigger,
        data=before.data,
        marks=tuple(mark.removeprefix("/data") for mark in before.data_marks if mark.startswith("/data")),
        subject=before.subject,
        scope=before.scope,
        inherited=inherit(before, from_step=asked["from_step"], repeat=asked["repeat_effects"]),
    )


def _ended(run_id: UUID, tenant: str, log: Sequence[RunEvent]) -> RunState:
    if not log:
        raise NotFound("there is no such run", field="run_id")
    if any(is_erased(event) for event in log):
        raise Conflict("what this run knew of its data subject was erased; it cannot be run again", field="run_id")
    state = fold(RunState(run_id, tenant), log)
    if state.ended is None:
        raise Conflict(
            "the run has not ended; retry what is parked, or cancel it first",
            status_of_run=state.status,
            field="run_id",
        )
    return state
