"""Tokens that are made and revoked leave an entry in the audit: in their tenant's, or in that of `platform`.

The entry comes first and the token second, so that none is good for anything before it stands in the audit; what dies
in between has named a token that nobody holds. Called by the API, by `unwind tokens` and by the first start; the last
two are for that moment processes of their own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from contracts.tenant_events import PLATFORM, TokenCreated, TokenRevoked
from engine.brief_log import brief_log
from engine.clock import Clock
from engine.store import Store, Token
from engine.store.key_ring import KeyRing
from engine.tenant_log import TenantLog

PROCESS = "token-changes"


class RecordedTokens:
    """Makes and revokes tokens, each with its entry, for whoever has a log open."""

    def __init__(self, store: Store, log: TenantLog, clock: Clock) -> None:
        self._store, self._log, self._clock = store, log, clock

    async def add(self, token: Token, *, by: str) -> Token:
        """The token as kept: with the name of who made it."""
        event = TokenCreated(
            at=self._clock.now(),
            prefix=token.prefix,
            name=token.name,
            roles=token.roles,
            expires_at=token.expires_at,
            by=by,
        )
        made = replace(token, made_by=by)
        await self._log.record(token.tenant or PLATFORM, event)
        await self._store.add_token(made)
        return made

    async def revoke(self, token: Token, *, by: str) -> bool:
        """False when it was revoked before."""
        if token.revoked_at is not None:
            return False
        event = TokenRevoked(at=self._clock.now(), prefix=token.prefix, name=token.name, roles=token.roles, by=by)
        await self._log.record(token.tenant or PLATFORM, event)
        return await self._store.revoke_token(token.prefix)


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
        async with brief_log(self._store, KeyRing.load(self._key_path), self._clock, PROCESS) as log:
            await RecordedTokens(self._store, log, self._clock).add(token, by=self._by)

    async def revoke_token(self, prefix: str) -> bool:
        """False when there is none, or it was revoked before."""
        token = await self._store.token(prefix)
        if token is None or token.revoked_at is not None:
            return False
        async with brief_log(self._store, KeyRing.load(self._key_path), self._clock, PROCESS) as log:
            return await RecordedTokens(self._store, log, self._clock).revoke(token, by=self._by)
