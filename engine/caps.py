"""How many slots a workflow and a tenant may hold: settings of the catalog, read at most every few seconds, so that a
change needs no restart.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from contracts.problems import Unavailable
from engine.recording import Caps
from engine.store import Store

FRESH_SECONDS: Final = 5.0
EVERYONE: Final = "*"
SETTING: Final = "caps"
"""Value: {"tenant": n | null, "workflow": n | null, "workflows": {name: n}}."""


class CapsCache:
    """Answers at once with what was last read, and reads again in the background when that is old."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[float, dict[str, Any]]] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}

    def __call__(self, tenant: str, workflow: str) -> Caps:
        own, default = self._of(tenant), self._of(EVERYONE)
        per_workflow = own.get("workflows", {}).get(workflow, default.get("workflows", {}).get(workflow))
        return Caps(
            workflow=per_workflow if per_workflow is not None else own.get("workflow", default.get("workflow")),
            tenant=own.get("tenant", default.get("tenant")),
        )

    def _of(self, tenant: str) -> dict[str, Any]:
        read_at, value = self._known.get(tenant, (0.0, {}))
        if time.monotonic() - read_at > FRESH_SECONDS and tenant not in self._reading:
            self._reading[tenant] = asyncio.create_task(self.refresh(tenant))
        return value

    async def refresh(self, tenant: str) -> None:
        """Reads the setting now."""
        try:
            value = await self._store.setting(tenant, SETTING)
        except Unavailable:
            value = self._known.get(tenant, (0.0, {}))[1]
        finally:
            self._reading.pop(tenant, None)
        self._known[tenant] = (time.monotonic(), value or {})
