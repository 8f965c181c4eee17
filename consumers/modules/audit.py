"""The audit module: writes down every change of state the engine and tenancy tell of, once and in the order in which it
is told, and says that it did."""

from __future__ import annotations

from consumers.modules.rehearsal import SQL as REHEARSAL
from consumers.modules.rehearsal import Rehearsal
from consumers.modules.settings import ModuleSettings
from contracts.modules import audit as contract
from contracts.modules import tenancy
from contracts.notices import UNWIND, RunEndedV1, RunStateEnteredV1
from contracts.sdk import Call, Question, Service, Transport, Tx
from contracts.sdk.statements import statements

SQL = statements("audit.sql", "consumers.modules")

TENANCY_FACTS = (
    tenancy.TenantRegisteredV1,
    tenancy.TenantProvisioningStartedV1,
    tenancy.ProvisioningStepCompletedV1,
    tenancy.TenantProvisionedV1,
    tenancy.TenantProvisioningFailedV1,
    tenancy.TenantProvisioningTimedOutV1,
    tenancy.TenantSuspendedV1,
    tenancy.TenantReinstatedV1,
    tenancy.TenantDecommissionedV1,
)
"""One for each transition of a tenant."""


def make(transport: Transport, settings: ModuleSettings) -> Service:
    service = Service(
        contract.MODULE,
        transport=transport,
        database=settings.database("audit"),
        schemas=(SQL["schema"], REHEARSAL["schema"]),
        max_attempts=settings.max_attempts,
        drain_seconds=settings.drain_seconds,
        relay_lease_seconds=settings.relay_lease_seconds,
        prefetch=1,  # of two at once the later could come first, and would be the earlier entry
    )
    Rehearsal(service, allowed=settings.rehearsals)
    for model in TENANCY_FACTS:
        service.on(tenancy.MODULE, model)(tenant_moved)
    service.on(UNWIND, RunStateEnteredV1)(run_entered_state)
    service.on(UNWIND, RunEndedV1)(run_ended)
    service.answers(contract.ListAuditEntriesV1)(list_entries)
    return service


async def tenant_moved(fact: tenancy.TenantFact, call: Call, tx: Tx) -> None:
    await _record(f"tenant/{fact.tenant}", fact.state, getattr(fact, "previous", None), call, tx)


async def run_entered_state(notice: RunStateEnteredV1, call: Call, tx: Tx) -> None:
    await _record(f"run/{notice.run_id}", notice.state, notice.previous, call, tx)


async def run_ended(notice: RunEndedV1, call: Call, tx: Tx) -> None:
    await _record(f"run/{notice.run_id}", notice.status, None, call, tx)


async def list_entries(query: contract.ListAuditEntriesV1, question: Question, tx: Tx) -> contract.AuditEntriesV1:
    if query.subject is None:
        rows = await tx.rows(SQL["entries"], question.tenant, query.after, query.limit)
    else:
        rows = await tx.rows(SQL["entries_of"], question.tenant, query.after, query.limit, query.subject)
    return contract.AuditEntriesV1(entries=[contract.AuditEntryV1(**row) for row in rows])


async def _record(subject: str, state: str, previous: str | None, call: Call, tx: Tx) -> None:
    if previous is None:
        last = await tx.row(SQL["previous"], call.tenant, subject)
        previous = None if last is None else last["state"]
    entry = call.new_id("aud")
    about = call.envelope
    await tx.run(SQL["add"], call.tenant, entry, about.id, about.type, subject, state, previous, about.time)
    call.publish(
        contract.AuditEntryRecordedV1(
            entry_id=entry,
            about_id=about.id,
            about_type=about.type,
            subject=subject,
            state=state,
            previous=previous,
            happened_at=about.time,
        ),
        subject=subject,
    )
