"""The configuration module: entitlements and default feature flags by edition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson

from consumers.modules.rehearsal import SQL as REHEARSAL
from consumers.modules.rehearsal import Rehearsal
from consumers.modules.settings import ModuleSettings
from contracts.modules import configuration as contract
from contracts.sdk import Call, Question, Refused, Service, Transport, Tx
from contracts.sdk.call import UNDO_SUFFIX
from contracts.sdk.statements import statements

SQL = statements("configuration.sql", "consumers.modules")

EDITIONS: Final[Mapping[str, tuple[Mapping[str, int], Mapping[str, bool]]]] = {
    "free": (
        {"users": 3, "projects": 1, "runs_per_day": 100},
        {"canvas": True, "audit_export": False, "single_sign_on": False},
    ),
    "standard": (
        {"users": 25, "projects": 20, "runs_per_day": 10_000},
        {"canvas": True, "audit_export": True, "single_sign_on": False},
    ),
    "enterprise": (
        {"users": -1, "projects": -1, "runs_per_day": -1},
        {"canvas": True, "audit_export": True, "single_sign_on": True},
    ),
}
"""Entitlements (-1: unlimited) and default flags of each edition."""


def make(transport: Transport, settings: ModuleSettings) -> Service:
    service = Service(
        contract.MODULE,
        transport=transport,
        database=settings.database("configuration"),
        schemas=(SQL["schema"], REHEARSAL["schema"]),
        max_attempts=settings.max_attempts,
        drain_seconds=settings.drain_seconds,
        relay_lease_seconds=settings.relay_lease_seconds,
    )
    Rehearsal(service, allowed=settings.rehearsals)
    service.handles(contract.ApplyEntitlementsV1)(apply)
    service.handles(contract.RevokeEntitlementsV1)(revoke)
    service.handles(contract.WithdrawEntitlementsV1)(withdraw)
    service.handles(contract.RestoreEntitlementsV1)(restore)
    service.answers(contract.GetEntitlementsV1)(get_entitlements)
    return service


async def apply(command: contract.ApplyEntitlementsV1, call: Call, tx: Tx) -> contract.EntitlementsAppliedV1:
    if command.edition not in EDITIONS:
        raise Refused("edition_unknown", f"choose one of {', '.join(EDITIONS)}")
    entitlements, flags = EDITIONS[command.edition]
    await tx.run(
        SQL["apply"],
        call.tenant,
        command.edition,
        orjson.dumps(entitlements).decode(),
        orjson.dumps(flags).decode(),
        call.key,
        call.at,
    )
    return contract.EntitlementsAppliedV1(
        tenant=call.tenant, edition=command.edition, entitlements=dict(entitlements), flags=dict(flags)
    )


async def revoke(command: contract.RevokeEntitlementsV1, call: Call, tx: Tx) -> contract.EntitlementsRevokedV1:
    if command.receipt is None:
        return contract.EntitlementsRevokedV1(tenant=call.tenant)
    await tx.run(SQL["revoke"], call.tenant, call.key.removesuffix(UNDO_SUFFIX))
    return contract.EntitlementsRevokedV1(tenant=call.tenant, edition=command.receipt.edition)


async def withdraw(command: contract.WithdrawEntitlementsV1, call: Call, tx: Tx) -> contract.EntitlementsWithdrawnV1:
    row = await tx.row(SQL["find"], call.tenant)
    if row is None:
        return contract.EntitlementsWithdrawnV1(tenant=call.tenant)
    await tx.run(SQL["revoke"], call.tenant, row["applied_by"])
    return contract.EntitlementsWithdrawnV1(
        tenant=call.tenant,
        edition=row["edition"],
        entitlements=orjson.loads(row["entitlements"]),
        flags=orjson.loads(row["flags"]),
        applied_by=row["applied_by"],
    )


async def restore(command: contract.RestoreEntitlementsV1, call: Call, tx: Tx) -> contract.EntitlementsRestoredV1:
    taken = command.receipt
    if taken is None or taken.edition is None:
        return contract.EntitlementsRestoredV1(tenant=call.tenant)
    await tx.run(
        SQL["restore"],
        call.tenant,
        taken.edition,
        orjson.dumps(taken.entitlements).decode(),
        orjson.dumps(taken.flags).decode(),
        taken.applied_by,
        call.at,
    )
    return contract.EntitlementsRestoredV1(tenant=call.tenant, edition=taken.edition)


async def get_entitlements(query: contract.GetEntitlementsV1, question: Question, tx: Tx) -> contract.EntitlementsV1:
    row = await tx.row(SQL["find"], question.tenant)
    if row is None:
        return contract.EntitlementsV1()
    return contract.EntitlementsV1(
        edition=row["edition"], entitlements=orjson.loads(row["entitlements"]), flags=orjson.loads(row["flags"])
    )
