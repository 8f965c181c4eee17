"""The keys that seal what is stored: wrapped in the catalog, opened once, kept in memory.

    key ring  --wraps-->  tenant key · index key · one key per data subject  --seal-->  log, journal, outbox, dead
    letters

It knows no events (`engine.store.mapper` does) and no SQL. `Vault` is asynchronous because it reads the catalog; the
`TenantKeys` it hands out are synchronous, for the hot path. Dropping a data subject's key erases what it sealed:
opening then answers `Erased`. Rotating a root key rewraps data keys and never touches a body. Called by the
coordinator, intake, the projector and the web through the mapper, and by `unwind keys`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from contracts.problems import Unavailable
from engine.store import WrappedKey
from engine.store.key_ring import KeyRing, KeyRingMismatch, SealBroken, create_key_ring

__all__ = [
    "FRAME_MARKED",
    "FRAME_SUBJECT",
    "FRAME_TENANT",
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
    "join_frames",
    "split_frames",
]

FRAME_TENANT: Final = 0x01
FRAME_SUBJECT: Final = 0x02
FRAME_MARKED: Final = 0x03
"""A tenant frame and a data subject's frame in one body."""

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_SCOPE_BYTES: Final = 16
_SUBJECT_BYTE: Final = bytes((FRAME_SUBJECT,))
_MARKED_BYTE: Final = bytes((FRAME_MARKED,))
_TENANT_HEAD: Final = 1 + 4 + _NONCE_BYTES
_SUBJECT_HEAD: Final = 1 + _SCOPE_BYTES + 4 + _NONCE_BYTES

SEALS_PER_KEY: Final = 1 << 28
"""A process asks for a new tenant key after this many seals: random 96-bit nonces are safe up to 2**32 under one key,
over all processes.
"""


class KeysNotLoaded(Unavailable):
    """A key that another process made is not in memory yet: `await vault.ready(...)`, then open again."""

    code = "keys_not_loaded"
    title = "A key is not in memory yet"


@dataclass(frozen=True, slots=True)
class Erased:
    """What opening answers when the data subject's key was dropped: the content is gone for good."""

    tenant: str
    scope: str


# --------------------------------------------------------------------------------------------------------- opened keys
_nonces: list[bytes] = []
# A forked child must never use a nonce that its parent uses too.
os.register_at_fork(after_in_child=_nonces.clear)


def _fresh_nonces() -> bytes:
    """Fills the stock and answers one: a system call per nonce would cost half as much as the sealing."""
    random = os.urandom(_NONCE_BYTES * 256)
    _nonces.extend(random[at : at + _NONCE_BYTES] for at in range(_NONCE_BYTES, len(random), _NONCE_BYTES))
    return random[:_NONCE_BYTES]


class _IndexKey:
    """HMAC-SHA256 with the key's two blocks hashed beforehand, which takes a third of the time of `hmac.digest`."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = key.ljust(64, b"\x00")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def digest(self, message: bytes) -> bytes:
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


class SubjectKeys:
    """The opened keys of one data subject of one tenant; `current` seals."""

    __slots__ = ("_aead", "_head", "_seal", "loaded_at", "scope", "tenant")

    def __init__(self, tenant: str, scope: str, keys: Mapping[int, bytes], loaded_at: float) -> None:
        self.tenant = tenant
        self.scope = scope
        self.loaded_at = loaded_at
        self._aead = {key_id: AESGCM(key) for key_id, key in keys.items()}
        current = max(keys)
        self._seal = self._aead[current].encrypt
        self._head = bytes((FRAME_SUBJECT,)) + subject_of_scope(scope) + current.to_bytes(4, "big")

    def __repr__(self) -> str:
        return f"SubjectKeys(scope={self.scope!r})"

    def seal(self, aad: bytes, plain: bytes) -> bytes:
        try:
            nonce = _nonces.pop()
        except IndexError:
            nonce = _fresh_nonces()
        return self._head + nonce + self._seal(nonce, plain, aad)


class TenantKeys:
    """The opened keys of one tenant. Seals and opens frames `scheme · key id · nonce · ciphertext`; the caller says
    in `aad` where the frame belongs.
    """

    __slots__ = (
        "_aead",
        "_head",
        "_index",
        "_index_ids",
        "_seal",
        "_subject_index",
        "_subjects",
        "aad_prefix",
        "seals",
        "tenant",
    )

    def __init__(self, tenant: str, keys: Mapping[int, bytes], index: Mapping[int, bytes]) -> None:
        self.tenant = tenant
        self.seals = 0
        name = tenant.encode()
        self.aad_prefix = len(name).to_bytes(2, "big") + name
        self._aead = {key_id.to_bytes(4, "big"): AESGCM(key) for key_id, key in keys.items()}
        current = max(keys)
        self._seal = self._aead[current.to_bytes(4, "big")].encrypt
        self._head = bytes((FRAME_TENANT,)) + current.to_bytes(4, "big")
        self._index_ids = sorted(index)
        self._index = [_IndexKey(index[index_id]) for index_id in reversed(self._index_ids)]
        # The oldest, so that replacing the index key leaves the scopes of data subjects where they are.
        self._subject_index = self._index[-1]
        self._subjects: dict[str, SubjectKeys | Erased] = {}

    def __repr__(self) -> str:
        return f"TenantKeys(tenant={self.tenant!r})"

    def seal(self, aad: bytes, plain: bytes) -> bytes:
        """A frame under the tenant's current key."""
        self.seals += 1
        try:
            nonce = _nonces.pop()
        except IndexError:
            nonce = _fresh_nonces()
        return self._head + nonce + self._seal(nonce, plain, aad)

    def open(self, aad: bytes, frame: bytes) -> bytes:
        """The plain bytes of a tenant frame. Raises `SealBroken`, or `KeysNotLoaded` for a key made elsewhere since.
        """
        if len(frame) < _TENANT_HEAD + _TAG_BYTES or frame[0] != FRAME_TENANT:
            raise SealBroken(
                "the frame is cut short or has an unknown scheme; restore the row from a backup", tenant=self.tenant
            )
        aead = self._aead.get(frame[1:5])
        if aead is None:
            raise KeysNotLoaded(
                f"key {int.from_bytes(frame[1:5], 'big')} of the tenant is not loaded; call Vault.ready first",
                tenant=self.tenant,
            )
        try:
            return aead.decrypt(frame[5:_TENANT_HEAD], frame[_TENANT_HEAD:], aad)
        except InvalidTag:
            raise SealBroken(
                "the frame was changed, or belongs to another place; restore the row from a backup", tenant=self.tenant
            ) from None

    def open_subject(self, aad: bytes, frame: bytes) -> bytes | Erased:
        """The plain bytes of a data subject's frame, or `Erased` when its key was dropped."""
        if len(frame) < _SUBJECT_HEAD + _TAG_BYTES or frame[0] != FRAME_SUBJECT:
            raise SealBroken(
                "the subject frame is cut short or has an unknown scheme; restore the row from a backup",
                tenant=self.tenant,
            )
        scope = scope_of_frame(frame)
        subject = self._subjects.get(scope)
        if subject is None:
            raise KeysNotLoaded(f"the keys of scope {scope} are not loaded; call Vault.ready first", tenant=self.tenant)
        if isinstance(subject, Erased):
            return subject
        aead = subject._aead.get(int.from_bytes(frame[1 + _SCOPE_BYTES : _SUBJECT_HEAD - _NONCE_BYTES], "big"))
        if aead is None:
            # Ids of subject keys are random and never used again, so a missing one was dropped.
            return Erased(self.tenant, scope)
        try:
            return aead.decrypt(frame[_SUBJECT_HEAD - _NONCE_BYTES : _SUBJECT_HEAD], frame[_SUBJECT_HEAD:], aad)
        except InvalidTag:
            raise SealBroken(
                "the subject frame was changed, or belongs to another place; restore the row from a backup",
                tenant=self.tenant,
            ) from None

    def index_hash(self, name: str, value: str) -> bytes:
        """What is stored and matched instead of a correlation key, a searchable attribute or a timer key: HMAC-SHA256
        under the newest index key.
        """
        return self._index[0].digest(b"%s\x00%s" % (name.encode(), value.encode()))

    def index_hashes(self, name: str, value: str) -> tuple[bytes, ...]:
        """The hash under every live index key, newest first; more than one only while the index key is being
        replaced.
        """
        message = b"%s\x00%s" % (name.encode(), value.encode())
        return tuple(key.digest(message) for key in self._index)

    def subject_scope(self, subject: str) -> str:
        """The catalog's scope of a data subject: a keyed hash, so that the table of keys names nobody."""
        hashed = self._subject_index.digest(b"\x00subject\x00" + subject.encode())
        return "subject/" + hashed[:_SCOPE_BYTES].hex()

    def subject(self, subject: str) -> SubjectKeys | None:
        """The subject's keys if they are in memory; `await vault.subject_keys(...)` otherwise."""
        known = self._subjects.get(self.subject_scope(subject))
        return known if isinstance(known, SubjectKeys) else None

    def remember(self, scope: str, found: SubjectKeys | Erased, *, limit: int = 20_000) -> None:
        """Keeps a data subject's keys in memory, the newest `limit` of them."""
        self._subjects.pop(scope, None)
        if len(self._subjects) >= limit:
            del self._subjects[next(iter(self._subjects))]
        self._subjects[scope] = found

    def knows(self, frame: bytes) -> bool:
        """Whether the key that this tenant frame names is in memory."""
        return frame[1:5] in self._aead


def join_frames(skeleton: bytes, personal: bytes) -> bytes:
    """One body of a tenant frame and a data subject's frame."""
    return b"%c%s%s%s" % (FRAME_MARKED, len(skeleton).to_bytes(4, "big"), skeleton, personal)


def split_frames(body: bytes) -> tuple[bytes, bytes]:
    """The two frames of a body that `join_frames` made."""
    end = 5 + int.from_bytes(body[1:5], "big")
    return body[5:end], body[end:]


def scope_of_frame(frame: bytes) -> str:
    return "subject/" + frame[1 : 1 + _SCOPE_BYTES].hex()


def subject_of_scope(scope: str) -> bytes:
    return bytes.fromhex(scope.removeprefix("subject/"))


# ----------------------------------------------------------------------------------------------------------- the vault


class KeyCatalog(Protocol):
    """The part of the store that keeps wrapped keys."""

    async def lane_of(self, tenant: str) -> int: ...

    async def keys(self, tenant: str, *, scopes: Sequence[str] | None = None) -> list[WrappedKey]: ...

    async def keys_not_under(self, root_id: str, *, limit: int) -> list[WrappedKey]: ...

    async def add_key(self, key: WrappedKey) -> WrappedKey: ...

    async def rewrap_key(self, key: WrappedKey) -> None: ...

    async def drop_key(self, tenant: str, scope: str) -> int: ...

    async def root_ids(self) -> dict[str, int]: ...


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
        """The tenant's keys; made on first sight. When processes race, the catalog keeps the first and all use it."""
        known = self._tenants.get(tenant)
        if known is not None:
            if known.seals < SEALS_PER_KEY:
                return known
            await self.rotate_tenant_key(tenant)
        return await self._load(tenant)

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
        wrapped = await self._catalog.add_key(self.ring.wrap(tenant, scope, 1 + secrets.randbelow(0x7FFFFFFE), key))
        made = SubjectKeys(tenant, scope, {wrapped.key_id: self.ring.unwrap(wrapped)}, self._monotonic())
        keys.remember(scope, made, limit=self._subjects_in_memory)
        return made

    async def ready(self, tenant: str, bodies: Iterable[bytes]) -> TenantKeys:
        """The tenant's keys with every key that these bodies name in memory, dropped ones known as `Erased`. Call it
        before opening stored bodies.
        """
        keys = await self.keys_for(tenant)
        scopes: set[str] = set()
        for body in bodies:
            frame = body
            if frame[:1] == _MARKED_BYTE:
                frame, personal = split_frames(body)
                scopes.add(scope_of_frame(personal))
            if frame[:1] == _SUBJECT_BYTE:
                scopes.add(scope_of_frame(frame))
            elif not keys.knows(frame):
                keys = await self._load(tenant)
        now = self._monotonic()
        stale = [scope for scope in scopes if self._is_stale(keys._subjects.get(scope), now)]
        if stale:
            await self._load_subjects(keys, stale)
        return keys

    async def rotate_tenant_key(self, tenant: str) -> None:
        """From now on new bodies are sealed under a new key; the old ones stay as they are and still open."""
        wrapped = await self._catalog.keys(tenant, scopes=("tenant",))
        newest = max((key.key_id for key in wrapped), default=0)
        await self._catalog.add_key(self.ring.wrap(tenant, "tenant", newest + 1, secrets.token_bytes(_KEY_BYTES)))
        await self._load(tenant)

    async def erase(self, tenant: str, subject: str) -> int:
        """Drops the subject's keys for good and answers how many there were. What they sealed opens as `Erased` from
        now on.
        """
        keys = await self.keys_for(tenant)
        scope = keys.subject_scope(subject)
        dropped = await self._catalog.drop_key(tenant, scope)
        keys._subjects[scope] = Erased(tenant, scope)
        return dropped

    def forget(self, tenant: str) -> None:
        """Drops the tenant's opened keys from memory; they are read again when needed."""
        self._tenants.pop(tenant, None)

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
            await self._catalog.lane_of(tenant)
            for scope, keys in opened.items():
                if not keys:
                    first = await self._catalog.add_key(
                        self.ring.wrap(tenant, scope, 1, secrets.token_bytes(_KEY_BYTES))
                    )
                    keys[first.key_id] = self.ring.unwrap(first)
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

    def _is_stale(self, known: SubjectKeys | Erased | None, now: float) -> bool:
        # An erased subject may come back with a new key, so `Erased` is looked up again; it is rare.
        return not isinstance(known, SubjectKeys) or now - known.loaded_at > self._subject_seconds


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
