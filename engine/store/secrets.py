"""The `SecretRows` port, once for both drivers. It seals and opens nothing (`engine.guards.secrets` does)."""

from __future__ import annotations

from datetime import datetime

from engine.store import SealedSecret, SecretNote
from engine.store import rows as read
from engine.store.statements import Caller

SCOPE = "secret/"
"""Begins the scope of a secret's data key in the table of keys; the name follows."""


class SecretVerbs(Caller):
    """See `engine.store.SecretRows`; docstrings are there."""

    async def put_secret(self, secret: SealedSecret, *, by: str, now: datetime | None = None) -> bool:
        return bool(
            await self.call(
                "put_secret",
                tenant=secret.tenant,
                name=secret.name,
                kind=secret.kind,
                version=secret.version,
                hosts=" ".join(secret.hosts),
                sealed=secret.sealed,
                scope=secret.key.scope,
                wrapped=secret.key.wrapped,
                root_id=secret.key.root_id,
                by=by,
                now=now,
            )
        )

    async def secret(self, tenant: str, name: str) -> SealedSecret | None:
        found = await self.call("secret", tenant=tenant, name=name)
        return read.sealed_secret(found[0]) if found else None

    async def secrets(self, tenant: str) -> list[SecretNote]:
        return [read.secret_note(row) for row in await self.call("secrets", tenant=tenant)]

    async def remove_secret(self, tenant: str, name: str) -> bool:
        return bool(await self.call("remove_secret", tenant=tenant, name=name, scope=SCOPE + name))
