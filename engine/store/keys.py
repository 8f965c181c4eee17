"""The keys that seal what is stored: wrapped in the catalog, opened once, kept in memory.

    key ring  --wraps-->  tenant key · index key · one key per data subject  --seal-->  log, journal, outbox, dead
    letters

It knows no events (`engine.store.mapper` does) and no SQL. `Vault` is asynchronous because it reads the catalog; the
`TenantKeys` it hands out are synchronous, for the hot path. Dropping a data subject's key erases what it sealed:
opening then answers `Erased`. Rotating a root key rewraps data keys and never touches a body. Called by the
coordinator, intake, the projector and the web through the mapper, and by `unwind keys`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, Final, Protocol

from contracts.problems import TenantOffboarded, Unavailable
from engine.store import WrappedKey
from engine.store.data_keys import (
    FRAME_MARKED,
    FRAME_SUBJECT,
    Erased,
    KeysNotLoaded,
    SubjectKeys,
    TenantKeys,
    scope_of_frame,
    split_frames,
    subject_key_of_frame,
)
from engine.store.key_ring import KeyRing, KeyRingMismatch, SealBroken, create_key_ring

__all__ = [
    "Erased",
    "KeyCatalog",
    "KeyRing",
    "KeysNotLoaded",
    "SealBroken",
    "SubjectKeys",
    "TenantKeys",
    "Vault",
    "create_key_ring",
    "describe_root_ids",
]

OFFBOARDING: Final = "offboarding"
"""Setting of a tenant that leaves: who said so, since when, why, and whether its keys are to be `gone`."""

_KEY_BYTES: Final = 32
_SUBJECT_BYTE: Final = bytes((FRAME_SUBJECT,))
_MARKED_BYTE: Final = bytes((FRAME_MARKED,))

SEALS_PER_KEY: Final = 1 << 28
"""A process asks for a new tenant key after this many seals: random 96-bit nonces are safe up to 2**32 under one key,
over all processes.
"""


class KeyCatalog(Protocol):
    """The part of the store that keeps wrapped keys."""

    async def lane_of(self, tenant: str) -> int: ...

    async def keys(self, tenant: str, *, scopes: Sequence[str] | None = None) -> list[WrappedKey]: ...

    async def keys_not_under(self, root_id: str, *, limit: int) -> list[WrappedKey]: ...

    async def add_key(self, key: WrappedKey) -> WrappedKey: ...

    async def rewrap_key(self, key: WrappedKey) -> None: ...

    async def drop_key(self, tenant: str, scope: str) -> int: ...

    async def root_ids(self) -> dict[str, int]: ...

    async def setting(self, tenant: str, name: str) -> Any: ...


class Vault:
    """Opens data keys and keeps them. `start` refuses a key ring that does not belong to the database."""

    def __init__(
        self,
        catalog: KeyCatalog,
        ring: KeyRing,
        *,
        tenants_in_memory: int = 20_000,
        subjects_in_memory: int = 20_000,
        subject_seconds: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self.ring = ring
        self._tenants: dict[str, TenantKeys] = {}
        self._loading: dict[str, asyncio.Future[TenantKeys]] = {}
        self._barred: set[str] = set()
        self._tenants_in_memory = tenants_in_memory
        self._subjects_in_memory = subjects_in_memory
        # Another process may drop a subject's key; this bounds how long ours still opens what it sealed.
        self._subject_seconds = subject_seconds
        self._monotonic = monotonic

    async def start(self) -> None:
        """Raises `KeyRingMismatch` when the database holds keys that this ring cannot open."""
        missing = sorted(set(await self._catalog.root_ids()) - self.ring.ids)
        if missing:
            raise KeyRingMismatch(
                f"the database's keys are wrapped by root key {', '.join(missing)}, "
                f"the key file holds {', '.join(sorted(self.ring.ids))}; "
                "restore the key file that belongs to this database",
                field="key_file",
            )

    def cached(self, tenant: str) -> TenantKeys | None:
        """The tenant's keys if they are in memory, without waiting."""
        return self._tenants.get(tenant)

    async def keys_for(self, tenant: str) -> TenantKeys:
        """The tenant's keys; made on first sight. When processes race, the catalog keeps the first and all use it.
        Raises `TenantOffboarded`."""
        known = self._tenants.get(tenant)
        if tenant in self._barred:
            raise _offboarded(tenant)
        if known is not None and known.seals < SEALS_PER_KEY:
            return known
        loading = self._loading.get(tenant)
        if loading is None:
            # Asked for, or renewed, once, however many events of a tenant come before its keys are here.
            work = self._load(tenant) if known is None else self.rotate_tenant_key(tenant)
            loading = self._loading[tenant] = asyncio.ensure_future(work)
            loading.add_done_callback(lambda _: self._loading.pop(tenant, None))
        return await asyncio.shield(loading)

    async def subject_keys(self, tenant: str, subject: str) -> SubjectKeys:
        """The keys of one data subject, made when there are none."""
        keys = await self.keys_for(tenant)
        scope = keys.subject_scope(subject)
        found = await self._load_subject(keys, scope)
        if isinstance(found, SubjectKeys):
            return found
        key = secrets.token_bytes(_KEY_BYTES)
        # A random id, never used again: a frame sealed under a dropped key can then never be mistaken for one under
        # its successor.
        await self._catalog.add_key(self.ring.wrap(tenant, scope, 1 + secrets.randbelow(0x7FFFFFFE), key))
        # Whoever made a key at the same moment has sealed with it: all of them are the subject's.
        await self._load_subjects(keys, [scope])
        made = keys._subjects[scope]
        if isinstance(made, Erased):
            raise Unavailable("the data subject is being erased; try again")
        return made

    async def keys_of_run(
        self, tenant: str, subject: str | None, bodies: Iterable[bytes]
    ) -> SubjectKeys | Erased | None:
        """The keys of the data subject of a run that holds these bodies. Once they were dropped, no new one is made:
        `Erased`, if any of the bodies was sealed for the subject; who it was is not known then. None: the run has none.
        """
        keys = await self.keys_for(tenant)
        sealed_for = {scope_of_frame(split_frames(body)[1]) for body in bodies if body[:1] == _MARKED_BYTE}
        if subject is None:
            return await self._load_subject(keys, min(sealed_for)) if sealed_for else None
        scope = keys.subject_scope(subject)
        found = await self._load_subject(keys, scope)
        if isinstance(found, Erased) and scope in sealed_for:
            return found
        return found if isinstance(found, SubjectKeys) else await self.subject_keys(tenant, subject)

    async def ready(self, tenant: str, bodies: Iterable[bytes]) -> TenantKeys:
        """The tenant's keys with every key that these bodies name in memory, dropped ones known as `Erased`. Call it
        before opening stored bodies.
        """
        keys = await self.keys_for(tenant)
        wanted: dict[str, set[int]] = {}
        for body in bodies:
            frame = body
            if frame[:1] == _MARKED_BYTE:
                frame, personal = split_frames(body)
                wanted.setdefault(scope_of_frame(personal), set()).add(subject_key_of_frame(personal))
            if frame[:1] == _SUBJECT_BYTE:
                wanted.setdefault(scope_of_frame(frame), set()).add(subject_key_of_frame(frame))
            elif not keys.knows(frame):
                keys = await self._load(tenant)
        now = self._monotonic()
        stale = [scope for scope, ids in wanted.items() if self._is_stale(keys._subjects.get(scope), now, ids)]
        if stale:
            await self._load_subjects(keys, stale)
        return keys

    async def rotate_tenant_key(self, tenant: str) -> TenantKeys:
        """From now on new bodies are sealed under a new key, the head of those answered; the old ones stay as they are
        and still open.
        """
        wrapped = await self._catalog.keys(tenant, scopes=("tenant",))
        newest = max((key.key_id for key in wrapped), default=0)
        await self._catalog.add_key(self.ring.wrap(tenant, "tenant", newest + 1, secrets.token_bytes(_KEY_BYTES)))
        return await self._load(tenant)

    async def scope_of(self, tenant: str, subject: str) -> str:
        """Under which scope the catalog keeps the keys of this data subject."""
        return (await self.keys_for(tenant)).subject_scope(subject)

    async def erase(self, tenant: str, subject: str) -> int:
        """Drops the subject's keys for good and answers how many there were. What they sealed opens as `Erased` from
        now on.
        """
        return await self.erase_scope(tenant, await self.scope_of(tenant, subject))

    async def erase_scope(self, tenant: str, scope: str) -> int:
        """`erase`, for whoever knows the scope and not the subject: an erasure that is applied again."""
        keys = await self.keys_for(tenant)
        dropped = await self._catalog.drop_key(tenant, scope)
        keys._subjects[scope] = Erased(tenant, scope)
        return dropped

    def forget(self, tenant: str) -> None:
        """Drops the tenant's opened keys from memory; they are read again when needed."""
        self._tenants.pop(tenant, None)

    def bar(self, tenant: str) -> None:
        """From now on this tenant has no keys: asking for them raises `TenantOffboarded`."""
        self._barred.add(tenant)
        self.forget(tenant)

    async def rewrap(self, *, batch: int = 500) -> int:
        """Wraps every key under the ring's current root key and answers how many it wrapped. May be stopped and
        started again.
        """
        done = 0
        while True:
            left = await self._catalog.keys_not_under(self.ring.current, limit=batch)
            if not left:
                return done
            for wrapped in left:
                await self._catalog.rewrap_key(
                    self.ring.wrap(wrapped.tenant, wrapped.scope, wrapped.key_id, self.ring.unwrap(wrapped))
                )
            done += len(left)

    async def _load(self, tenant: str) -> TenantKeys:
        wrapped = await self._catalog.keys(tenant, scopes=("tenant", "index"))
        opened: dict[str, dict[int, bytes]] = {"tenant": {}, "index": {}}
        for key in wrapped:
            opened[key.scope][key.key_id] = self.ring.unwrap(key)
        if not opened["tenant"] or not opened["index"]:
            leaving: Any = await self._catalog.setting(tenant, OFFBOARDING)
            if leaving and leaving["gone"]:
                self.bar(tenant)
                raise _offboarded(tenant)
            await self._catalog.lane_of(tenant)
            for scope, keys in opened.items():
                if not keys:
                    first = await self._catalog.add_key(
                        self.ring.wrap(tenant, scope, 1, secrets.token_bytes(_KEY_BYTES))
                    )
                    keys[first.key_id] = self.ring.unwrap(first)
        if tenant in self._barred:  # meanwhile
            raise _offboarded(tenant)
        loaded = TenantKeys(tenant, opened["tenant"], opened["index"])
        previous = self._tenants.pop(tenant, None)
        if previous is not None:
            loaded._subjects = previous._subjects
            if previous._head == loaded._head:
                loaded.seals = previous.seals
        elif len(self._tenants) >= self._tenants_in_memory:
            del self._tenants[next(iter(self._tenants))]
        self._tenants[tenant] = loaded
        return loaded

    async def _load_subject(self, keys: TenantKeys, scope: str) -> SubjectKeys | Erased:
        known = keys._subjects.get(scope)
        if isinstance(known, SubjectKeys) and not self._is_stale(known, self._monotonic()):
            return known
        await self._load_subjects(keys, [scope])
        return keys._subjects[scope]

    async def _load_subjects(self, keys: TenantKeys, scopes: list[str]) -> None:
        opened: dict[str, dict[int, bytes]] = {scope: {} for scope in scopes}
        for wrapped in await self._catalog.keys(keys.tenant, scopes=scopes):
            opened[wrapped.scope][wrapped.key_id] = self.ring.unwrap(wrapped)
        now = self._monotonic()
        for scope, found in opened.items():
            keys.remember(
                scope,
                SubjectKeys(keys.tenant, scope, found, now) if found else Erased(keys.tenant, scope),
                limit=self._subjects_in_memory,
            )

    def _is_stale(self, known: SubjectKeys | Erased | None, now: float, ids: Set[int] = frozenset()) -> bool:
        # An erased subject may come back with a new key, so `Erased` is looked up again; it is rare. A key that is not
        # in memory is dropped, or was made elsewhere since: only the catalog knows.
        return (
            not isinstance(known, SubjectKeys) or now - known.loaded_at > self._subject_seconds or not known.holds(ids)
        )


def _offboarded(tenant: str) -> TenantOffboarded:
    return TenantOffboarded(f"tenant {tenant} was offboarded: nothing of it can be read or begun", field="tenant")


def describe_root_ids(counts: Mapping[str, int], ring: KeyRing) -> list[dict[str, Any]]:
    """One row per root key for `unwind keys list`: its id, how many data keys it wraps, whether it is in the file,
    whether it is current.
    """
    return [
        {
            "root_id": root_id,
            "wraps": counts.get(root_id, 0),
            "in_file": root_id in ring.ids,
            "current": root_id == ring.current,
        }
        for root_id in sorted({*counts, *ring.ids})
    ]
