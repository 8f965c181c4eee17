"""What a tenant forbids itself beyond permissions. Kept among its settings, changed by its admin, each change an entry
of its audit. Called by the API.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Protocol

from contracts.tenant_events import PolicyChanged
from engine.clock import Clock
from engine.guards.permission_sets import SettingsCatalog

SETTING: Final = "policies"

Own = Literal["allow", "forbid"]


class Recorder(Protocol):
    async def record(self, tenant: str, event: PolicyChanged) -> object: ...


@dataclass(frozen=True, slots=True)
class Policies:
    """`approvals_own`: whether somebody who triggered a run may decide on its approvals."""

    approvals_own: Own = "allow"


async def policies_of(catalog: SettingsCatalog, tenant: str) -> Policies:
    kept: Any = await catalog.setting(tenant, SETTING)
    forbids = isinstance(kept, dict) and kept.get("approvals_own") == "forbid"
    return Policies("forbid" if forbids else "allow")


async def change(
    catalog: SettingsCatalog, log: Recorder, clock: Clock, tenant: str, policies: Policies, *, by: str
) -> None:
    """Recorded first: a policy that is in force is in the audit."""
    await log.record(tenant, PolicyChanged(at=clock.now(), approvals_own=policies.approvals_own, by=by))
    await catalog.put_setting(tenant, SETTING, asdict(policies))
