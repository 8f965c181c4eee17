"""What an action is given for one attempt at its step, in the engine and in a simulation alike: its key, what it works
on, and for an undo the receipt of what it takes back.

It performs nothing. Called by `consumers.worker`, which does, and by `engine.scripted`, which plays a script instead.
"""

from __future__ import annotations

from contracts.calls import ActionCall
from engine.run.react import Perform, Send
from engine.run.state import RunState, Step


def call_for(state: RunState, step: Step, attempt: Perform | Send, action: str) -> ActionCall:
    """The call of `action`, which is the step's own or its undo."""
    return ActionCall(
        tenant=state.tenant,
        run_id=state.run_id,
        key=step.key + "/undo" if attempt.undo else step.key,
        action=action,
        input=step.input,
        attempt=attempt.attempt,
        deadline=step.undo_deadline if attempt.undo else step.deadline,
        receipt=step.output if attempt.undo and step.status == "succeeded" else None,
        undo=attempt.undo,
        correlation_id=state.correlation_id,
        traceparent=state.traceparent,
        progress=None if attempt.undo else step.progress,
    )
