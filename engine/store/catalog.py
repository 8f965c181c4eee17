"""The `Catalog` port, once for both drivers: tenants and lanes, wrapped keys, tokens, settings. A tenant's lane never
changes, so it is remembered here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from contracts.problems import Conflict
from engine.store import ARRIVALS_AT_ONCE, ChangedSetting, Guard, Hook, PresentedToken, Token, WrappedKey
from engine.store import rows as read
from engine.store.outlets import OutletVerbs


class CatalogVerbs(OutletVerbs):
    """See `engine.store.Catalog`; docstrings are there."""

    def __init__(self) -> None:
        self._lane_by_tenant: dict[str, int] = {}

    async def lane_of(self, tenant: str) -> int:
        lane = self._lane_by_tenant.get(tenant)
        if lane is None:
            found = await self.call("lane_of", tenant=tenant)
            lane = self._lane_by_tenant[tenant] = int(found[0]["lane"])
        return lane

    async def lanes(self) -> list[int]:
        return [row["lane"] for row in await self.call("lanes")]

    async def keys(self, tenant: str, *, scopes: Sequence[str] | None = None) -> list[WrappedKey]:
        bounds = None if scopes is None else list(scopes)
        return [read.wrapped_key(row) for row in await self.call("keys", tenant=tenant, scopes=bounds)]

    async def keys_not_under(self, root_id: str, *, limit: int) -> list[WrappedKey]:
        return [read.wrapped_key(row) for row in await self.call("keys_not_under", root_id=root_id, limit=limit)]

    async def add_key(self, key: WrappedKey) -> WrappedKey:
        found = await self.call("add_key", **_columns(key))
        return read.wrapped_key(found[0])

    async def rewrap_key(self, key: WrappedKey) -> None:
        await self.call("rewrap_key", **_columns(key))

    async def drop_key(self, tenant: str, scope: str) -> int:
        return len(await self.call("drop_key", tenant=tenant, scope=scope))

    async def root_ids(self) -> dict[str, int]:
        return {row["root_id"]: row["held"] for row in await self.call("root_ids")}

    async def guards(self) -> list[Guard]:
        return [Guard(row["name"], bool(row["holds"]), row["detail"]) for row in await self.call("guards")]

    async def add_token(self, token: Token) -> None:
        await self.call(
            "add_token",
            prefix=token.prefix,
            digest=token.digest,
            tenant=token.tenant,
            name=token.name,
            roles=list(token.roles),
            created_at=token.created_at,
            expires_at=token.expires_at,
            revoked_at=token.revoked_at,
            last_used_at=token.last_used_at,
            made_by=token.made_by,
            made_with=token.made_with,
            maker=token.maker,
        )

    async def token(self, prefix: str) -> Token | None:
        found = await self.call("token", prefix=prefix)
        return read.token(found[0]) if found else None

    async def presented(self, prefix: str) -> PresentedToken | None:
        found = await self.call("presented", prefix=prefix)
        return read.presented_token(found[0]) if found else None

    async def tokens(self, tenant: str | None) -> list[Token]:
        return [read.token(row) for row in await self.call("tokens", tenant=tenant)]

    async def touch_token(self, prefix: str, *, now: datetime, before: datetime) -> bool:
        return bool(await self.call("touch_token", prefix=prefix, now=now, before=before))

    async def revoke_token(self, prefix: str, *, now: datetime | None = None) -> bool:
        return bool(await self.call("revoke_token", prefix=prefix, now=now))

    async def add_hook(self, hook: Hook) -> bool:
        given = {name: getattr(hook, name) for name in _HOOK}
        return bool(await self.call("add_hook", **given, fields=orjson.dumps(hook.fields).decode()))

    async def hook(self, tenant: str, name: str) -> Hook | None:
        found = await self.call("hook", tenant=tenant, name=name)
        return read.hook(found[0]) if found else None

    async def hooks(self, tenant: str | None) -> list[Hook]:
        return [read.hook(row) for row in await self.call("hooks", tenant=tenant)]

    async def rotate_hook(self, hook: Hook, secret: bytes, *, old_until: datetime, now: datetime) -> bool:
        found = await self.call(
            "rotate_hook",
            tenant=hook.tenant,
            name=hook.name,
            version=hook.version,
            secret=secret,
            old_until=old_until,
            rotated_at=now,
        )
        return bool(found)

    async def remove_hook(self, tenant: str, name: str) -> bool:
        return bool(await self.call("remove_hook", tenant=tenant, name=name))

    async def forget_tenant(self, tenant: str, *, most: int = ARRIVALS_AT_ONCE) -> dict[str, int]:
        arrivals = 0
        while gone := len(await self.call("forget_arrivals", tenant=tenant, limit=most)):
            arrivals += gone
        found = await self._forgotten(tenant)
        if not found:
            raise Conflict(f"a run of tenant {tenant} is open; it must end first", field="tenant")
        counted = {name: int(found[0][name]) for name in ("arrivals", "letters", "tokens", "keys")}
        return {**counted, "arrivals": arrivals + counted["arrivals"]}

    async def _forgotten(self, tenant: str) -> Sequence[Mapping[str, Any]]:
        """What went, in one row; none, and nothing went, while a run of the tenant is open."""
        return await self.call("forget_tenant", tenant=tenant)

    async def setting(self, tenant: str, name: str) -> Any:
        found = await self.call("setting", tenant=tenant, name=name)
        return read.document(found[0]["value"]) if found and found[0]["value"] is not None else None

    async def egress_rules(self, tenant: str) -> Any:
        found = await self.call("egress_rules", tenant=tenant)
        return read.document(found[0]["value"]) if found and found[0]["value"] is not None else None

    async def settings_named(self, name: str) -> dict[str, Any]:
        return {row["tenant"]: read.document(row["value"]) for row in await self.call("settings_named", name=name)}

    async def settings_changed(self, names: Sequence[str], *, after: int) -> list[ChangedSetting]:
        found = await self.call("settings_changed", names=list(names), after=after)
        return [ChangedSetting(r["tenant"], r["name"], read.document(r["value"]), r["changed"]) for r in found]

    async def lease_egress(self, tenant: str, *, slot: int, width_ms: int, slots: int, most: int, wanted: int) -> int:
        found = await self.call(
            "lease_egress", tenant=tenant, slot=slot, width_ms=width_ms, slots=slots, most=most, wanted=wanted
        )
        return int(found[0]["granted"])

    async def put_setting(self, tenant: str, name: str, value: Any) -> None:
        await self.call("put_setting", tenant=tenant, name=name, value=orjson.dumps(value).decode())


_HOOK = ("tenant", "name", "workflow", "scheme", "id_pointer", "version", "secret", "created_at", "created_by")


def _columns(key: WrappedKey) -> dict[str, Any]:
    return {
        "tenant": key.tenant,
        "scope": key.scope,
        "key_id": key.key_id,
        "wrapped": key.wrapped,
        "root_id": key.root_id,
    }
