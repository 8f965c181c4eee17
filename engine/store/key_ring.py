"""The root keys, in a file apart from the database: they wrap the data keys of `engine.store.keys` and nothing else.

The file is JSON, `{"current": id, "keys": {id: base64 of 32 bytes}}`, mode 0600, never overwritten in place. A
missing,
open or damaged file is refused with its remedy. Called by `unwind keys`, and once by the assembly at start.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from contracts.problems import Problem
from engine.store import WrappedKey

_WRAPPED: Final = 0x10
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16


class KeyRingMissing(Problem):
    code = "key_ring_missing"
    title = "The key ring file is missing"
    exit_code = 8


class KeyRingUnsafe(Problem):
    code = "key_ring_unsafe"
    title = "The key ring file is open to others"
    exit_code = 8


class KeyRingInvalid(Problem):
    code = "key_ring_invalid"
    title = "The key ring file cannot be used"
    exit_code = 8


class KeyRingMismatch(Problem):
    code = "key_ring_mismatch"
    title = "The key ring does not belong to this database"
    exit_code = 8


class SealBroken(Problem):
    """The bytes were changed, or moved to another tenant, stream, version or topic. Trying again cannot help."""

    code = "seal_broken"
    title = "A sealed body does not open"


def create_key_ring(path: str | os.PathLike[str]) -> KeyRing:
    """Makes a new ring with one root key in a 0600 file that did not exist before. Back it up apart from the
    database: without it nothing opens.
    """
    root = secrets.token_bytes(_KEY_BYTES)
    ring = KeyRing(_root_id(root), {_root_id(root): root})
    _write_new(Path(path), ring)
    return ring


class KeyRing:
    """Root keys by id; `current` wraps. An id is derived from its key, so a file that names the right ids holds the
    right keys.
    """

    __slots__ = ("_aead", "_roots", "current")

    def __init__(self, current: str, roots: Mapping[str, bytes]) -> None:
        if current not in roots:
            raise KeyRingInvalid(
                f"current names root key {current!r}, which is not among keys; restore the file from its backup",
                field="current",
            )
        self.current = current
        self._roots = dict(roots)
        self._aead = {root_id: AESGCM(root) for root_id, root in roots.items()}

    def __repr__(self) -> str:
        return f"KeyRing(current={self.current!r}, ids={sorted(self._roots)!r})"

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(self._roots)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> KeyRing:
        """Reads the file and refuses it when it is missing, readable by others, or damaged."""
        file = Path(path)
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise KeyRingMissing(
                f"key file {file} does not exist; restore it from its backup, or make one for a new installation "
                "with `unwind keys init`",
                field="key_file",
            ) from None
        except OSError as error:
            raise KeyRingInvalid(f"key file {file} cannot be read: {error.strerror}", field="key_file") from None
        with os.fdopen(descriptor, "rb") as handle:
            status = os.fstat(handle.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise KeyRingInvalid(f"key file {file} is not a regular file", field="key_file")
            if stat.S_IMODE(status.st_mode) & 0o077:
                raise KeyRingUnsafe(
                    f"key file {file} has mode {stat.S_IMODE(status.st_mode):04o}; only its owner may read it: "
                    f"chmod 600 {file}",
                    field="key_file",
                )
            content = handle.read(1 << 20)
        return cls(*_parse(content, file))

    def with_new_root(self) -> KeyRing:
        """A ring with one more root key, which becomes current; the others stay to open what they wrapped."""
        root = secrets.token_bytes(_KEY_BYTES)
        return KeyRing(_root_id(root), {**self._roots, _root_id(root): root})

    def without(self, root_id: str) -> KeyRing:
        """A ring without a retired root key. The current one cannot go."""
        return KeyRing(self.current, {known: root for known, root in self._roots.items() if known != root_id})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Replaces the file in one move, so that a crash leaves the old ring or the new one."""
        file = Path(path)
        beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        _write_new(beside, self)
        os.replace(beside, file)
        _sync_folder(file.parent)

    def wrap(self, tenant: str, scope: str, key_id: int, key: bytes) -> WrappedKey:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._aead[self.current].encrypt(nonce, key, _wrap_aad(tenant, scope, key_id))
        return WrappedKey(tenant, scope, key_id, bytes((_WRAPPED,)) + nonce + sealed, self.current)

    def unwrap(self, wrapped: WrappedKey) -> bytes:
        aead = self._aead.get(wrapped.root_id)
        if aead is None:
            raise KeyRingMismatch(
                f"root key {wrapped.root_id} is not in the key file (it holds {', '.join(sorted(self._roots))}); "
                "restore the file that belongs to this database",
                field="key_file",
            )
        body = wrapped.wrapped
        if len(body) != 1 + _NONCE_BYTES + _KEY_BYTES + _TAG_BYTES or body[0] != _WRAPPED:
            raise SealBroken(
                f"key {wrapped.key_id} of scope {wrapped.scope} has an unknown form", tenant=wrapped.tenant
            )
        try:
            return aead.decrypt(
                body[1 : 1 + _NONCE_BYTES],
                body[1 + _NONCE_BYTES :],
                _wrap_aad(wrapped.tenant, wrapped.scope, wrapped.key_id),
            )
        except InvalidTag:
            raise SealBroken(
                f"key {wrapped.key_id} of scope {wrapped.scope} was changed or moved here from elsewhere; "
                "restore the keys table from its backup",
                tenant=wrapped.tenant,
            ) from None


def _root_id(root: bytes) -> str:
    return "r" + hashlib.sha256(b"unwind root key\x00" + root).hexdigest()[:15]


def _wrap_aad(tenant: str, scope: str, key_id: int) -> bytes:
    return b"%d|%s|%s|%d" % (_WRAPPED, tenant.encode(), scope.encode(), key_id)


def _parse(content: bytes, file: Path) -> tuple[str, dict[str, bytes]]:
    damaged = f"key file {file} is damaged: restore it from its backup"
    try:
        document = json.loads(content)
        current, listed = document["current"], document["keys"]
        roots = {str(root_id): base64.b64decode(text, validate=True) for root_id, text in listed.items()}
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error, RecursionError):
        raise KeyRingInvalid(f"{damaged} (expected JSON with current and keys)", field="key_file") from None
    for root_id, root in roots.items():
        if len(root) != _KEY_BYTES or _root_id(root) != root_id:
            raise KeyRingInvalid(f"{damaged} (root key {root_id} does not match its id)", field="key_file")
    return str(current), roots


def _write_new(file: Path, ring: KeyRing) -> None:
    document = {
        "current": ring.current,
        "keys": {root_id: base64.b64encode(root).decode() for root_id, root in ring._roots.items()},
    }
    try:
        write_private(file, json.dumps(document, indent=2).encode() + b"\n")
    except FileExistsError:
        raise KeyRingInvalid(
            f"{file} exists already and is never overwritten; move it away first", field="key_file"
        ) from None


def write_private(file: Path, content: bytes) -> None:
    """Writes a new 0600 file durably. Raises FileExistsError when something stands in its place."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        os.fchmod(handle.fileno(), 0o600)
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    _sync_folder(file.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
