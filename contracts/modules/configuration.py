"""Contract of the configuration module: what a tenant's edition entitles it to, and its feature flags."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from contracts.manifest import (
    AnswerModel,
    Command,
    CommandModel,
    Event,
    EventModel,
    FailureModel,
    Module,
    Query,
    QueryModel,
    UndoModel,
)
from contracts.modules.faults import rehearsal, rehearsal_permission


class EntitlementsAppliedV1(EventModel):
    """`entitlements` are limits by name (-1: unlimited), `flags` the default feature flags of the edition."""

    tenant: str
    edition: str
    entitlements: dict[str, int]
    flags: dict[str, bool]


class EntitlementsRevokedV1(EventModel):
    """`edition` is None when nothing was applied: a late application under the same key is refused."""

    tenant: str
    edition: str | None = None


class EntitlementsWithdrawnV1(EventModel):
    """What was applied when it was withdrawn, as its export; `edition` is None when nothing was."""

    tenant: str
    edition: str | None = None
    entitlements: dict[str, int] = Field(default_factory=dict)
    flags: dict[str, bool] = Field(default_factory=dict)
    applied_by: str | None = None
    """The order that had applied it."""


class EntitlementsRestoredV1(EventModel):
    tenant: str
    edition: str | None = None


class ConfigurationRefusedV1(FailureModel):
    """No retry will help: there is no such edition."""


class ConfigurationUnavailableV1(FailureModel):
    """Nothing was done; try again."""


class ApplyEntitlementsV1(CommandModel):
    edition: str = Field(min_length=1, max_length=50)
    subscription_id: str | None = None


class RevokeEntitlementsV1(UndoModel[ApplyEntitlementsV1, EntitlementsAppliedV1]):
    """The tenant is entitled to nothing."""


class WithdrawEntitlementsV1(CommandModel):
    """Takes away whatever is applied, whoever applied it, and answers with it: the tenant is closed."""


class RestoreEntitlementsV1(UndoModel[WithdrawEntitlementsV1, EntitlementsWithdrawnV1]):
    """Applies what was withdrawn, unless something else has been applied since."""


class GetEntitlementsV1(QueryModel):
    pass


class EntitlementsV1(AnswerModel):
    """`edition` is None when nothing is applied."""

    edition: str | None = None
    entitlements: dict[str, int] = Field(default_factory=dict)
    flags: dict[str, bool] = Field(default_factory=dict)


MANAGE: Final = "configuration.manage"
READ: Final = "configuration.read"


def _command(model: type[CommandModel], success: type[EventModel], undo: str | None = None) -> Command:
    return Command(
        model,
        success=success,
        failures=(ConfigurationUnavailableV1,),
        irrecoverable=(ConfigurationRefusedV1,),
        undo=undo,
        coverage="retriable" if undo is None else "compensatable",
        permission=MANAGE,
    )


MODULE: Final = Module(
    name="configuration",
    version="1.0.0",
    events=(
        Event(EntitlementsAppliedV1, keys={"tenant": "/tenant"}),
        Event(EntitlementsRevokedV1, keys={"tenant": "/tenant"}),
        Event(EntitlementsWithdrawnV1, keys={"tenant": "/tenant"}),
        Event(EntitlementsRestoredV1, keys={"tenant": "/tenant"}),
    ),
    commands=(
        _command(ApplyEntitlementsV1, EntitlementsAppliedV1, undo="RevokeEntitlementsV1"),
        _command(RevokeEntitlementsV1, EntitlementsRevokedV1),
        _command(WithdrawEntitlementsV1, EntitlementsWithdrawnV1, undo="RestoreEntitlementsV1"),
        _command(RestoreEntitlementsV1, EntitlementsRestoredV1),
        rehearsal("configuration"),
    ),
    queries=(Query(GetEntitlementsV1, answer=EntitlementsV1, permission=READ),),
    permissions=(MANAGE, READ, rehearsal_permission("configuration")),
)
