"""Contract of the audit module: one entry for each change of state it hears of, from the engine and from tenancy.

It only listens; it obeys no command but the rehearsal one. The entries say what changed and why, never a personal
value.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pydantic import Field

from contracts.manifest import AnswerModel, Event, EventModel, Module, Query, QueryModel
from contracts.modules.faults import rehearsal, rehearsal_permission


class AuditEntryRecordedV1(EventModel):
    """`about` is the event that told of the change, `subject` what changed (a run or a tenant)."""

    entry_id: str
    about_id: str
    about_type: str
    subject: str
    state: str
    previous: str | None = None
    happened_at: datetime


class ListAuditEntriesV1(QueryModel):
    """Entries of the asking tenant in the order they were recorded, after `after` (an entry's number)."""

    subject: str | None = None
    after: int = Field(default=0, ge=0)
    limit: int = Field(default=100, ge=1, le=1000)


class AuditEntryV1(AnswerModel):
    number: int
    entry_id: str
    about_id: str
    about_type: str
    subject: str
    state: str
    previous: str | None = None
    happened_at: datetime


class AuditEntriesV1(AnswerModel):
    entries: list[AuditEntryV1] = Field(default_factory=list)


READ: Final = "audit.read"

MODULE: Final = Module(
    name="audit",
    version="1.0.0",
    events=(Event(AuditEntryRecordedV1, keys={"about": "/about_id", "subject": "/subject"}),),
    commands=(rehearsal("audit"),),
    queries=(Query(ListAuditEntriesV1, answer=AuditEntriesV1, permission=READ),),
    permissions=(READ, rehearsal_permission("audit")),
)
