"""What a tenant's runs may use: one document per tenant, and one for everybody, which says what a tenant's own leaves
open. Set with `PUT /v1/tenants/{tenant}/quotas` or `unwind quotas set`, in force within a second everywhere.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

ALL_WORKFLOWS: Final = "*"
"""In `Quotas.workflows`: each workflow that is not named."""

_Count = Annotated[int, Field(ge=0, le=2_000_000_000)]
_Slots = Annotated[int, Field(ge=1, le=2_000_000_000)]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]


class WorkflowQuotas(BaseModel):
    """Of one workflow of a tenant; null: only the tenant's bound it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    concurrent_runs: _Slots | None = Field(None, description="Runs of it that may hold a slot at once")
    daily_runs: _Count | None = Field(None, description="Runs of it that may begin on one day (UTC)")


class Quotas(BaseModel):
    """null: as everybody's; in everybody's own document: no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    concurrent_runs: _Slots | None = Field(
        None, description="Runs that may hold a slot at once; one that waits, sleeps or is parked holds none"
    )
    open_runs: _Count | None = Field(None, description="Runs that may be open at once; one more is refused")
    daily_runs: _Count | None = Field(
        None, description="Runs that may begin on one day (UTC), children too; one more is refused"
    )
    at_limit: Literal["queue", "refuse"] | None = Field(
        None, description="What becomes of a start when no slot is free: it waits in fair order, or is refused"
    )
    workflows: dict[_Name, WorkflowQuotas] = Field(
        default_factory=dict, max_length=1_000, description="By workflow; `*` is each that is not named"
    )


FRESH: Final = Quotas(concurrent_runs=10_000, open_runs=1_000_000, daily_runs=10_000_000, at_limit="queue")
"""Everybody's on a fresh installation: the first process that starts puts it there."""
