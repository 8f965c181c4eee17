"""Who may use how much: the documents of tenants and of everybody (`contracts.quotas`), and the word that changes one.

What bounds starts, open runs and runs of a day, the append itself reads with the counts, in one transaction. How many
slots there are is asked before (`KnownQuotas`): a process reads every second what was changed, so that a change needs
no restart, and before it takes anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import orjson

from contracts.notices import UNWIND, WorkflowQuotaBreachedV1
from contracts.problems import PayloadOverQuota, QuotaExceeded, Unavailable
from contracts.quotas import ALL_WORKFLOWS, FRESH, MOST_DEPTH, MOST_STEPS, Quotas, WorkflowQuotas
from contracts.tenant_events import PLATFORM, QuotasChanged
from engine.clock import Clock
from engine.endless import Endless
from engine.recording import Caps
from engine.run.state import RunState
from engine.store import Catalog, Limited
from engine.tenant_log import TenantLog

EVERYONE: Final = "*"
SETTING: Final = "quotas"
OLD_SETTING: Final = "caps"
"""Slots alone, as they were set before quotas: {"tenant": n | null, "workflow": n | null, "workflows": {name: n}}. What
it says still bounds, beside the quotas.
"""

BREACHED: Final = UNWIND.type_of(WorkflowQuotaBreachedV1)
"""A run started by this fact was never refused a quota itself: there is one such fact per window, so nothing goes round
in a circle.
"""

BUDGETS: Final = ("daily_cost_micros", "monthly_cost_micros")

READ_EVERY_SECONDS: Final = 1.0
READ_WHOLE_SECONDS: Final = 300.0

_ENGINE: Final = {"steps": MOST_STEPS, "depth": MOST_DEPTH}
"""What the engine lets every run do; a run is told only what is less."""


class QuotaBook:
    """The documents. A change is recorded in the stream of whom it concerns before it takes hold."""

    def __init__(self, catalog: Catalog, log: TenantLog, clock: Clock) -> None:
        self._catalog, self._log, self._clock = catalog, log, clock

    async def own(self, tenant: str) -> Quotas | None:
        """The tenant's own document, or that of `EVERYONE`."""
        found = (await self._catalog.settings_named(SETTING)).get(tenant)
        return None if found is None else _read(found)

    async def holding(self, tenant: str) -> Quotas:
        """What bounds the tenant: its own document, completed from everybody's."""
        found = await self._catalog.settings_named(SETTING)
        return completed(_read(found.get(tenant)), _read(found.get(EVERYONE)))

    async def put(self, tenant: str, quotas: Quotas, *, by: str) -> bool:
        """False: they were so before."""
        before = await self.own(tenant)
        if before == quotas:
            return False
        event = QuotasChanged(
            at=self._clock.now(),
            before=None if before is None else before.model_dump(mode="json"),
            after=quotas.model_dump(mode="json"),
            by=by,
        )
        await self._log.record(PLATFORM if tenant == EVERYONE else tenant, event)
        await self._catalog.put_setting(tenant, SETTING, event.after)
        return True


def completed(own: Quotas, everyone: Quotas) -> Quotas:
    """`own`, with everybody's where it says nothing."""
    said = {name: value for name, value in own if value is not None and name != "workflows"}
    named = dict.fromkeys((*everyone.workflows, *own.workflows))
    workflows = {name: of_workflow(name, own.workflows, everyone.workflows) for name in named}
    return everyone.model_copy(update={**said, "workflows": workflows})


def of_workflow(workflow: str, *documents: Mapping[str, WorkflowQuotas]) -> WorkflowQuotas:
    """For each quota what the first of these documents says of it; named before unnamed."""
    said: dict[str, int] = {}
    for document in documents:
        for one in (document.get(workflow), document.get(ALL_WORKFLOWS)):
            for name, value in one or ():
                if value is not None:
                    said.setdefault(name, value)
    return WorkflowQuotas(**said)


def _read(document: Any) -> Quotas:
    """A document as it is kept; a later release may have quotas that are not known here, which bind its processes."""
    known = {name: value for name, value in (document or {}).items() if name in Quotas.model_fields}
    workflows = {
        workflow: {name: value for name, value in said.items() if name in WorkflowQuotas.model_fields}
        for workflow, said in known.get("workflows", {}).items()
    }
    return Quotas.model_validate({**known, "workflows": workflows})


def exceeded(limited: Limited, workflow: str) -> QuotaExceeded:
    """The refusal of a start."""
    whose = f"of workflow {workflow}" if limited.scope == "workflow" else "of the tenant"
    wait = {
        "concurrent_runs": "start it again when a run has ended",
        "open_runs": "start it again when a run has ended",
        "daily_runs": "start it again tomorrow (UTC)",
        "daily_cost_micros": "it is spent; start it again tomorrow (UTC)",
        "monthly_cost_micros": "it is spent; start it again next month (UTC)",
    }[limited.quota]
    context = {"workflow": workflow} if limited.scope == "workflow" else {}
    return QuotaExceeded(
        f"the quota {limited.quota} {whose} is {limited.cap}; {wait}, or have the quota raised",
        cap=limited.quota,
        limit=limited.cap,
        **context,
    )


def bounded(state: RunState, platforms: Collection[str]) -> bool:
    """Whether a spent budget keeps the run from beginning anything: not while it is unwound, not what the platform does
    to a tenant, and not the saga that is to do something about a full quota.
    """
    return state.cause is None and state.workflow not in platforms and (state.trigger or {}).get("type") != BREACHED


def check_payload(most: int | None, message_bytes: int, data: Any, *, field: str) -> None:
    """Raises `PayloadOverQuota` where `data`, which came in a message of so many bytes, is larger than the quota."""
    if most is None or message_bytes <= most:
        return
    size = len(orjson.dumps(data))
    if size > most:
        raise PayloadOverQuota(
            f"the quota payload_bytes of the tenant is {most}, and {field} has {size} bytes; send less, or have the "
            "quota raised",
            cap="payload_bytes",
            value=size,
            limit=most,
            field=field,
        )


class KnownQuotas:
    """One per process: what bounds a workflow and a tenant, as last read. Every second it reads what was changed since;
    once in a while all, for what was taken away with its tenant. `on_change` hears of what is new.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.on_change: Callable[[], None] = lambda: None
        self._change = -1
        self._whole_at = 0.0
        self._quotas: dict[str, Quotas] = {}
        self._old: dict[str, dict[str, Any]] = {}
        self._made: dict[tuple[str, str], Caps] = {}
        self._bounds: dict[str, tuple[dict[str, int] | None, int | None]] = {}
        self._weight = 1
        self._weights: dict[str, int] = {}
        """Of the tenants that weigh something else than `_weight`."""
        self._work = Endless()

    async def start(self) -> None:
        """Reads before anything is taken. A fresh installation gets its quotas here: what the append does not find in
        the catalog bounds nobody.
        """
        if EVERYONE not in await self._catalog.settings_named(SETTING):
            await self._catalog.put_setting(EVERYONE, SETTING, FRESH.model_dump(mode="json"))
        await self.refresh()
        self._work.begin("quotas", self._read_forever())

    async def stop(self) -> None:
        await self._work.end()

    def failed(self) -> BaseException | None:
        return self._work.failed()

    def __call__(self, tenant: str, workflow: str) -> Caps:
        known = self._made.get((tenant, workflow))
        if known is None:
            known = self._made[tenant, workflow] = self._make(tenant, workflow)
        return known

    def limits(self, tenant: str) -> Mapping[str, int] | None:
        """What of the engine's own bounds on one run a quota of the tenant narrows; None: nothing."""
        return self._bounding(tenant)[0]

    def payload_bytes(self, tenant: str) -> int | None:
        """The most that a run of the tenant may be started with; None: only the envelope bounds it."""
        return self._bounding(tenant)[1]

    def weight(self, tenant: str) -> int:
        """How many turns the tenant has while one of weight 1 has one."""
        return self._weights.get(tenant, self._weight)

    @property
    def alike(self) -> bool:
        """Whether no tenant weighs more than another."""
        return not self._weights

    def _bounding(self, tenant: str) -> tuple[dict[str, int] | None, int | None]:
        known = self._bounds.get(tenant)
        if known is None:
            quotas = completed(self._quotas.get(tenant, Quotas()), self._quotas.get(EVERYONE, Quotas()))
            asked = {"steps": quotas.steps, "depth": quotas.depth, "run_seconds": quotas.run_seconds}
            limits = {name: most for name, most in asked.items() if most is not None and most != _ENGINE.get(name)}
            known = self._bounds[tenant] = (limits or None, quotas.payload_bytes)
        return known

    def _make(self, tenant: str, workflow: str) -> Caps:
        quotas, everyone = self._quotas.get(tenant, Quotas()), self._quotas.get(EVERYONE, Quotas())
        one = of_workflow(workflow, quotas.workflows, everyone.workflows)
        quotas = completed(quotas, everyone)
        own, default = self._old.get(tenant, {}), self._old.get(EVERYONE, {})
        old = own.get("workflows", {}).get(workflow, default.get("workflows", {}).get(workflow))
        if old is None:
            old = own.get("workflow", default.get("workflow"))
        return Caps(
            workflow=_least(one.concurrent_runs, old),
            tenant=_least(quotas.concurrent_runs, own.get("tenant", default.get("tenant"))),
            refuse=quotas.at_limit == "refuse",
            budget=any(getattr(bounds, name) is not None for bounds in (one, quotas) for name in BUDGETS),
        )

    def read_whole(self) -> None:
        """The next time all is read."""
        self._whole_at = 0.0

    async def refresh(self) -> None:
        """Reads now what is new. Raises `Unavailable`."""
        whole = time.monotonic() >= self._whole_at
        found = await self._catalog.settings_changed((SETTING, OLD_SETTING), after=-1 if whole else self._change)
        if whole:
            self._quotas, self._old = {}, {}
            self._whole_at = time.monotonic() + READ_WHOLE_SECONDS
        elif not found:
            return
        for one in found:
            if one.name == SETTING:
                self._quotas[one.tenant] = _read(one.value)
            else:
                self._old[one.tenant] = one.value or {}
            self._change = max(self._change, one.change)
        self._made = {}
        self._bounds = {}
        everyone = self._quotas.get(EVERYONE)
        self._weight = (everyone and everyone.weight) or 1
        said = {tenant: quotas.weight or self._weight for tenant, quotas in self._quotas.items()}
        self._weights = {tenant: weight for tenant, weight in said.items() if weight != self._weight}
        self.on_change()

    async def _read_forever(self) -> None:
        while True:
            await asyncio.sleep(READ_EVERY_SECONDS)
            try:
                await self.refresh()
            except Unavailable:
                pass  # what was known holds on


def _least(*caps: int | None) -> int | None:
    return min((cap for cap in caps if cap is not None), default=None)
