"""Handlers of a data subject's rights: export, erasure, and erasing again after a restore."""

from __future__ import annotations

from dataclasses import asdict

from consumers.subjects import Subjects
from consumers.web import asked
from consumers.web.routes import Answer, Call


async def erase_subject(call: Call) -> Answer:
    given: asked.EraseSubject = call.body
    erased = await _subjects(call).erase(
        call.named_tenant, given.subject, by=call.principal.name, reason=given.reason, open_runs=given.open_runs
    )
    return Answer(content=asdict(erased))


async def export_subject(call: Call) -> Answer:
    given: asked.ExportSubject = call.body
    return Answer(
        content=await _subjects(call).export(
            call.named_tenant, given.subject, by=call.principal.name, reason=given.reason
        )
    )


async def list_erasures(call: Call) -> Answer:
    query: asked.ErasuresQuery = call.query
    page = await call.deps.reader.erasures(call.tenant, after=query.cursor, limit=query.limit)
    return Answer(content={"items": page.items, "next": page.next, "as_of": page.as_of})


async def apply_erasures(call: Call) -> Answer:
    given: asked.ApplyErasures = call.body
    applied = await _subjects(call).apply_again(call.named_tenant, given.scopes, by=call.principal.name)
    return Answer(content={"items": [asdict(one) for one in applied]})


def _subjects(call: Call) -> Subjects:
    return Subjects(call.deps.door, call.deps.reader)
