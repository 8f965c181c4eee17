"""What bounds a run from within, captured when it starts: `trigger.limits` of its first event names the quotas
(`steps`, `depth`, `run_seconds`) that are narrower than what the engine allows everybody. Absent: none is. And that a
quota, of a run or of its tenant, was met, as a value. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from contracts.values import value

QUOTA_EXCEEDED: Final = "quota_exceeded"
"""Error code of what a run may not do for want of quota."""


@value()
class Breach:
    """A full quota was met: `amount` is what would have become of it, at least; `workflow` None: it is the tenant's."""

    quota: str
    amount: int
    limit: int
    workflow: str | None = None


_NONE: Final[Mapping[str, int]] = {}


def limits_of(trigger: Mapping[str, Any] | None) -> Mapping[str, int]:
    """By quota; of a run without limits none."""
    found: Mapping[str, int] = (trigger or {}).get("limits") or _NONE
    return found


def seconds_allowed(declared: float | None, limits: Mapping[str, int]) -> float | None:
    """How long a run may take whose workflow declares so much; None: for ever."""
    return min((one for one in (declared, limits.get("run_seconds")) if one), default=None)
