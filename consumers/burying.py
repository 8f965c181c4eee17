"""Dead letters: a message that cannot be taken is kept whole, sealed, with why, before the broker may forget it. Called
by the intake and by whoever collects what consumers refused.
"""

from __future__ import annotations

import hashlib
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

import orjson

from contracts import envelope as wire
from contracts.problems import Problem, TenantOffboarded
from contracts.sdk.transport import Delivery
from engine.clock import Clock
from engine.guards.redaction import redact, redact_text
from engine.store import DeadLetter, Store
from engine.store.keys import Vault
from engine.store.mapper import seal_blob

NOBODY: Final = "unknown"
"""The tenant under which letters are kept whose envelope names none that can be trusted, or one that is gone."""


async def bury(store: Store, vault: Vault, clock: Clock, delivery: Delivery, problem: Problem) -> UUID:
    """One dead letter per message body and reason, with everything needed to send it again. Answers its id."""
    claims = claims_of(delivery)
    tenant = claims.get("tenantid") or NOBODY
    identity = uuid5(
        NAMESPACE_URL,
        f"{delivery.exchange}|{delivery.routing_key}|{hashlib.blake2b(delivery.body, digest_size=16).hexdigest()}",
    )
    try:
        keys = await vault.keys_for(tenant)
    except TenantOffboarded:
        tenant = NOBODY
        keys = await vault.keys_for(tenant)
    await store.bury(
        DeadLetter(
            id=identity,
            tenant=tenant,
            reason=problem.code,
            detail=_storable(redact_text(problem.detail)),
            source=delivery.exchange,
            routing_key=_storable(delivery.routing_key),
            event_id=claims.get("id"),
            type=claims.get("type"),
            attempts=[
                {"at": wire.format_time(clock.now()), "code": problem.code, "delivery_count": delivery.delivery_count}
            ],
            envelope=seal_blob(keys, "dead_letter", str(identity), delivery.body),
            headers=redact(
                {
                    _storable(name): _storable(value) if isinstance(value, str) else value
                    for name, value in delivery.headers.items()
                    if isinstance(value, str | int | float | bool)
                }
            ),
            state="dead",
            created_at=clock.now(),
        )
    )
    return identity


def _storable(text: str) -> str:
    """Text that every database takes: no NUL, no lone surrogate. The message itself is kept byte for byte."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def claims_of(delivery: Delivery) -> dict[str, str]:
    """What a message says about itself, as far as it can be read; nothing of it is trusted."""
    try:
        wire.check_depth(delivery.body)
        document = orjson.loads(delivery.body)
    except (Problem, ValueError):
        return {}
    if not isinstance(document, dict):
        return {}
    found = {
        name: document[name]
        for name in ("id", "type", "tenantid")
        if isinstance(document.get(name), str) and len(document[name]) <= 200 and "\x00" not in document[name]
    }
    if not wire.is_tenant(found.get("tenantid", "")):
        found.pop("tenantid", None)
    return found
