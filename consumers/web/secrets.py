"""Handlers of secrets: set, rotate, remove, and what may be known of them. No answer holds a value."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from consumers.web import asked
from consumers.web.routes import Answer, Call
from contracts.envelope import format_time
from engine.store import SecretNote


async def list_secrets(call: Call) -> Answer:
    notes = await call.deps.door.secrets.notes(call.named_tenant)
    return Answer(content={"items": [_told(note) for note in notes]})


async def get_secret(call: Call) -> Answer:
    return Answer(content=_told(await call.deps.door.secrets.note(call.named_tenant, call.path("secret"))))


async def put_secret(call: Call) -> Answer:
    given: asked.PutSecret = call.body
    note = await call.deps.door.secrets.put(
        call.named_tenant, call.path("secret"), given.kind, given.hosts, given.value, by=call.principal.name
    )
    return Answer(content=_told(note))


async def rotate_secret(call: Call) -> Answer:
    given: asked.RotateSecret = call.body
    note = await call.deps.door.secrets.rotate(
        call.named_tenant, call.path("secret"), given.value, by=call.principal.name
    )
    return Answer(content=_told(note))


async def remove_secret(call: Call) -> Answer:
    note = await call.deps.door.secrets.remove(call.named_tenant, call.path("secret"), by=call.principal.name)
    return Answer(content=_told(note))


def _told(note: SecretNote) -> dict[str, Any]:
    times = {"created_at": format_time(note.created_at), "changed_at": format_time(note.changed_at)}
    return asdict(note) | times
