"""What a tenant's runs may use: one document per tenant, and one for everybody, which says what a tenant's own leaves
open. Set with `PUT /v1/tenants/{tenant}/quotas` or `unwind quotas set`, in force within a second everywhere.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from contracts.envelope import MAX_ENVELOPE_BYTES

ALL_WORKFLOWS: Final = "*"
"""In `Quotas.workflows`: each workflow that is not named."""

MOST_STEPS: Final = 1_000
"""Operations that the engine lets one run ask for; a longer saga continues in another run."""

MOST_DEPTH: Final = 10
"""How deep children of children may go, whatever a quota says."""

MOST_WEIGHT: Final = 100

_Count = Annotated[int, Field(ge=0, le=2_000_000_000)]
_Slots = Annotated[int, Field(ge=1, le=2_000_000_000)]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]


_Budget = Annotated[int, Field(ge=0, le=9_000_000_000_000_000)]
"""In millionths of the platform's currency, as costs of steps are summed."""


class WorkflowQuotas(BaseModel):
    """Of one workflow of a tenant; null: only the tenant's bound it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    concurrent_runs: _Slots | None = Field(None, description="Runs of it that may hold a slot at once")
    daily_runs: _Count | None = Field(None, description="Runs of it that may begin on one day (UTC)")
    daily_cost_micros: _Budget | None = Field(
        None, description="What its steps may cost on one day (UTC), in millionths of the platform's currency"
    )
    monthly_cost_micros: _Budget | None = Field(
        None, description="What its steps may cost in one month (UTC), in millionths of the platform's currency"
    )


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
    daily_cost_micros: _Budget | None = Field(
        None,
        description="What steps may cost on one day (UTC), in millionths of the platform's currency; once it is "
        "spent, no step begins",
    )
    monthly_cost_micros: _Budget | None = Field(
        None,
        description="What steps may cost in one month (UTC), in millionths of the platform's currency; once it is "
        "spent, no step begins",
    )
    at_limit: Literal["queue", "refuse"] | None = Field(
        None,
        description="What becomes of a start when no slot is free or a budget is spent: it waits in fair order, or is "
        "refused",
    )
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = Field(
        None, description="Operations (steps, waits and all else a saga awaits) of one run; one more fails it"
    )
    depth: Annotated[int, Field(ge=0, le=MOST_DEPTH)] | None = Field(
        None, description="How deep children of children may go; a step that asks for one deeper fails"
    )
    run_seconds: _Slots | None = Field(
        None, description="How long a run may take, parks not counted, where its workflow allows no less"
    )
    payload_bytes: Annotated[int, Field(ge=1, le=MAX_ENVELOPE_BYTES)] | None = Field(
        None, description="Size, as JSON, of what a run is started with; a larger start is refused"
    )
    weight: Annotated[int, Field(ge=1, le=MOST_WEIGHT)] | None = Field(
        None,
        description="How many turns the tenant has where tenants wait for slots or for room, while one of weight 1 has "
        "one; 1 where nobody says",
    )
    workflows: dict[_Name, WorkflowQuotas] = Field(
        default_factory=dict, max_length=1_000, description="By workflow; `*` is each that is not named"
    )


FRESH: Final = Quotas(
    concurrent_runs=10_000,
    open_runs=1_000_000,
    daily_runs=10_000_000,
    at_limit="queue",
    steps=MOST_STEPS,
    depth=MOST_DEPTH,
    payload_bytes=MAX_ENVELOPE_BYTES,
)
"""Everybody's on a fresh installation: the first process that starts puts it there."""
