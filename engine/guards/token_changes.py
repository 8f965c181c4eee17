"""Tokens that are made and revoked leave an entry in the audit: in their tenant's, or in that of `platform`.

The entry comes first and the token second, so that none is good for anything before it stands in the audit; what dies
in between has named a token that nobody holds. Called by `unwind tokens` and by the first start, each of which is for
that moment a process of its own.
"""

from __future__ import annotations

from pathlib import Path

from contracts.run_events import RunEvent
from contracts.tenant_events import PLATFORM, TokenCreated, TokenRevoked
from engine.brief_log import brief_log
from engine.clock import Clock
from engine.store import Store, Token

PROCESS = "token-changes"


class TokenChanges:
    """The tokens of a store, by whoever may open it. `by` names him in the audit."""

    def __init__(self, store: Store, key_path: Path, clock: Clock, *, by: str) -> None:
        self._store, self._key_path, self._clock, self._by = store, key_path, clock, by

    async def root_ids(self) -> dict[str, int]:
        return await self._store.root_ids()

    async def token(self, prefix: str) -> Token | None:
        return await self._store.token(prefix)

    async def tokens(self, tenant: str | None) -> list[Token]:
        return await self._store.tokens(tenant)

    async def add_token(self, token: Token) -> None:
        await self._record(
            token,
            TokenCreated(
                at=self._clock.now(),
                prefix=token.prefix,
                name=token.name,
                roles=token.roles,
                expires_at=token.expires_at,
                by=self._by,
            ),
        )
        await self._store.add_token(token)

    async def revoke_token(self, prefix: str) -> bool:
        """False when there is none, or it was revoked before."""
        token = await self._store.token(prefix)
        if token is None or token.revoked_at is not None:
            return False
        await self._record(
            token, TokenRevoked(at=self._clock.now(), prefix=prefix, name=token.name, roles=token.roles, by=self._by)
        )
        return await self._store.revoke_token(prefix)

    async def _record(self, token: Token, event: RunEvent) -> None:
        async with brief_log(self._store, self._key_path, self._clock, PROCESS) as log:
            await log.record(token.tenant or PLATFORM, event)
