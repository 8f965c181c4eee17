"""Seeing open runs to their end, for who can go on only without them: an erasure, and the end of a tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, Literal
from uuid import UUID

from contracts.problems import Conflict, Unavailable
from engine.door import Door

OpenRuns = Literal["refuse", "cancel", "terminate"]
"""What becomes of open runs: they are left alone and hold up who asks, are undone, or are closed at once."""

LISTED: Final = 200
NAMED: Final = 5
LOOK_SECONDS: Final = 0.1


def refuse(whose: str, runs: Sequence[UUID]) -> None:
    """Raises `Conflict` when there is one; `whose` is "subject" or "tenant"."""
    if runs:
        raise Conflict(
            f"runs of this {whose} are open ({_named(runs)}); let them end, or ask for them to be cancelled or "
            "terminated",
            field="open_runs",
            open_runs=[str(run) for run in runs[:LISTED]],
        )


async def end_runs(
    door: Door,
    tenant: str,
    still_open: Callable[[], Awaitable[Sequence[UUID]]],
    how: OpenRuns,
    *,
    whose: str,
    by: str,
    reason: str,
    seconds: float,
) -> None:
    """Until `still_open` names no run. It is asked again and again, and each run that it names is told once. Raises
    `Conflict` for open runs that are to be left alone, `Unavailable` when they have not ended after `seconds`.
    """
    told: set[UUID] = set()
    tell = door.cancel if how == "cancel" else door.terminate
    runs: Sequence[UUID] = ()
    try:
        async with asyncio.timeout(seconds):
            while runs := await still_open():
                if how == "refuse":
                    refuse(whose, runs)
                for run in runs:
                    if run not in told:
                        told.add(run)
                        with suppress(Conflict):  # it has ended meanwhile
                            await tell(tenant, run, by=by, reason=reason)
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise Unavailable(
            f"runs of this {whose} have not ended yet ({_named(runs)}); nothing is gone, ask again"
        ) from None


def _named(runs: Sequence[UUID]) -> str:
    return ", ".join(str(run) for run in runs[:NAMED])
