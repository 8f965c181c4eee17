"""Data keys, opened: what seals and opens frames on the hot path. Synchronous, knows no catalog and no key ring.

    tenant frame     0x01 · key id (4) · nonce (12) · ciphertext and tag
    subject frame    0x02 · hashed subject (16) · key id (4) · nonce (12) · ciphertext and tag
    marked body      0x03 · length (4) · tenant frame · subject frame

AES-256-GCM throughout; the caller says in `aad` where a frame belongs. Made by `engine.store.keys.Vault`, used by
`engine.store.mapper`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from contracts.problems import Unavailable
from engine.store.key_ring import SealBroken

FRAME_TENANT: Final = 0x01
FRAME_SUBJECT: Final = 0x02
FRAME_MARKED: Final = 0x03
"""A tenant frame and a data subject's frame in one body."""

_SUBJECT_BYTE: Final = bytes((FRAME_SUBJECT,))
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_SCOPE_BYTES: Final = 16
_TENANT_HEAD: Final = 1 + 4 + _NONCE_BYTES
_SHORTEST: Final = _TENANT_HEAD + _TAG_BYTES
_SUBJECT_HEAD: Final = 1 + _SCOPE_BYTES + 4 + _NONCE_BYTES


class KeysNotLoaded(Unavailable):
    """A key that another process made is not in memory yet: `await vault.ready(...)`, then open again."""

    code = "keys_not_loaded"
    title = "A key is not in memory yet"


@dataclass(frozen=True, slots=True)
class Erased:
    """What opening answers when the data subject's key was dropped: the content is gone for good."""

    tenant: str
    scope: str


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

    def holds(self, ids: Set[int]) -> bool:
        """Whether all keys of these ids are in memory."""
        return self._aead.keys() >= ids

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
        "_open",
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
        self._open = self._aead[current.to_bytes(4, "big")].decrypt
        self._head = bytes((FRAME_TENANT,)) + current.to_bytes(4, "big")
        self._index = [_IndexKey(index[index_id]) for index_id in sorted(index, reverse=True)]
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
        """The plain bytes of a tenant frame. Raises `SealBroken`, or `KeysNotLoaded` for a key made elsewhere since."""
        if frame[:5] == self._head and len(frame) >= _SHORTEST:
            try:
                return self._open(frame[5:_TENANT_HEAD], frame[_TENANT_HEAD:], aad)
            except InvalidTag:
                raise self._broken() from None
        if len(frame) < _SHORTEST or frame[0] != FRAME_TENANT:
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
            raise self._broken() from None

    def _broken(self) -> SealBroken:
        return SealBroken(
            "the frame was changed, or belongs to another place; restore the row from a backup", tenant=self.tenant
        )

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
        aead = subject._aead.get(subject_key_of_frame(frame))
        if aead is None:
            # Ids of subject keys are random and never used again, and `Vault.ready` has looked for it: it was dropped.
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


def subject_key_of_frame(frame: bytes) -> int:
    return int.from_bytes(frame[1 + _SCOPE_BYTES : _SUBJECT_HEAD - _NONCE_BYTES], "big")


def frame_of_scope(scope: str) -> bytes:
    """How every frame under the keys of this data subject begins."""
    return _SUBJECT_BYTE + subject_of_scope(scope)


def subject_of_scope(scope: str) -> bytes:
    return bytes.fromhex(scope.removeprefix("subject/"))
