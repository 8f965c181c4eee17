"""The one command every shipped module obeys when it is started with rehearsals on: script how it will fail next.

Demos and tests use it to see a saga unwind without touching the module's code. A module started without rehearsals
refuses it; the permission belongs to platform operators only.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from contracts.manifest import Command, CommandModel, EventModel, FailureModel

FaultMode = Literal["retryable", "irrecoverable", "crash", "silent", "mute", "twice", "garbage"]
"""
retryable      answers the command's retryable failure, does nothing
irrecoverable  answers the command's irrecoverable failure, does nothing
crash          the handler raises an error nobody declared
silent         does nothing and answers nothing
mute           does the effect and answers nothing: an attempt of unknown fate
twice          does the effect once and sends the answer twice
garbage        does the effect once and answers something that is no envelope, then nothing
"""


class ScriptFaultV1(CommandModel):
    """Fail the next `times` commands of this tenant that match. `command` is a model's name such as `CreateUserV1`.
    `key` narrows it to idempotency keys that contain it. `times` 0 clears what was scripted for the command.
    """

    command: str = Field(min_length=1, max_length=100)
    mode: FaultMode
    times: int = Field(default=1, ge=0, le=1_000_000)
    key: str | None = None
    code: str = Field(default="scripted_fault", min_length=1, max_length=100)


class FaultScriptedV1(EventModel):
    command: str
    mode: FaultMode
    times: int


class FaultScriptRefusedV1(FailureModel):
    """The module runs without rehearsals, or has no such command."""


def rehearsal_permission(module: str) -> str:
    return f"{module}.rehearse"


def rehearsal(module: str) -> Command:
    """The command as `module` declares it."""
    return Command(
        ScriptFaultV1,
        success=FaultScriptedV1,
        irrecoverable=(FaultScriptRefusedV1,),
        coverage="retriable",
        permission=rehearsal_permission(module),
    )


SCRIPT_FAULT: Final = "ScriptFaultV1"
