"""The two catalogs that guards need, kept in dictionaries: for rules that do not depend on a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from engine.store import PresentedToken, Token, WrappedKey


class MemoryCatalog:
    """Wrapped keys and tokens. `reads` counts look-ups of keys, to see what a cache saves."""

    def __init__(self) -> None:
        self.wrapped: dict[tuple[str, str, int], WrappedKey] = {}
        self.kept_tokens: dict[str, Token] = {}
        self.tenants: list[str] = []
        self.reads = 0
        self.settings: dict[tuple[str, str], Any] = {}

    async def setting(self, tenant: str, name: str) -> Any:
        return self.settings.get((tenant, name))

    async def lane_of(self, tenant: str) -> int:
        if tenant not in self.tenants:
            self.tenants.append(tenant)
        return 0

    async def keys(self, tenant: str, *, scopes: Sequence[str] | None = None) -> list[WrappedKey]:
        self.reads += 1
        return [
            key for key in self.wrapped.values() if key.tenant == tenant and (scopes is None or key.scope in scopes)
        ]

    async def keys_not_under(self, root_id: str, *, limit: int) -> list[WrappedKey]:
        return [key for key in self.wrapped.values() if key.root_id != root_id][:limit]

    async def add_key(self, key: WrappedKey) -> WrappedKey:
        return self.wrapped.setdefault((key.tenant, key.scope, key.key_id), key)

    async def rewrap_key(self, key: WrappedKey) -> None:
        self.wrapped[key.tenant, key.scope, key.key_id] = key

    async def drop_key(self, tenant: str, scope: str) -> int:
        gone = [place for place in self.wrapped if place[:2] == (tenant, scope)]
        for place in gone:
            del self.wrapped[place]
        return len(gone)

    async def root_ids(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for key in self.wrapped.values():
            counts[key.root_id] = counts.get(key.root_id, 0) + 1
        return counts

    async def add_token(self, token: Token) -> None:
        self.kept_tokens[token.prefix] = token

    async def token(self, prefix: str) -> Token | None:
        return self.kept_tokens.get(prefix)

    async def presented(self, prefix: str) -> PresentedToken | None:
        token = self.kept_tokens.get(prefix)
        return None if token is None else PresentedToken(token)

    async def tokens(self, tenant: str | None) -> list[Token]:
        return [token for token in self.kept_tokens.values() if tenant is None or token.tenant == tenant]

    def revoke(self, prefix: str) -> None:
        token = self.kept_tokens[prefix]
        self.kept_tokens[prefix] = replace(token, revoked_at=token.created_at)
