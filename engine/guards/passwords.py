"""Passwords of people: which may be chosen, and how one is kept and proven.

Kept is an Argon2id hash in PHC form with parameters of its own, made again with today's when somebody proves his
password. A hash takes memory and tens of milliseconds on purpose: it is made on a thread, a few at once, and whoever
would wait behind too many is told to come again. Who has no password is checked against one that nobody has, so that
time tells nothing. Called by sign-in and by whoever sets a password.
"""

from __future__ import annotations

import asyncio
import os
import re
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from contracts.problems import PayloadInvalid, Unavailable

T = TypeVar("T")

SHORTEST: Final = 12
"""Characters; NIST SP 800-63B asks for 8 at least and for length rather than for kinds of characters."""
LONGEST_BYTES: Final = 256
FEWEST_KINDS: Final = 5
"""Different characters."""

MEMORY_KIB: Final = 19_456
ITERATIONS: Final = 2
LANES: Final = 1
"""The first choice of OWASP's Password Storage Cheat Sheet for Argon2id: 19 MiB, 2 passes, 1 lane."""
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_PHC: Final = re.compile(r"\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+")

AT_ONCE: Final = 2
MOST_WAITING: Final = 50

_SERVICE: Final = "unwind"
_SHORTEST_NAMED: Final = 4
"""A shorter local part of an address may well be in a password by chance."""

COMMON: Final = frozenset(
    {
        "123456789012", "1234567890123", "12345678901234", "123456789123", "123456123456", "123123123123",
        "987654321098", "111222333444", "112233445566", "121212121212", "0123456789ab", "1q2w3e4r5t6y",
        "1q2w3e4r5t6y7u", "q1w2e3r4t5y6", "1qaz2wsx3edc", "qazwsxedcrfv", "zaq12wsxcde3", "qwertyuiop12",
        "qwertyuiop123", "qwertyuiop[]", "qwerty123456", "qwertyqwerty", "asdfghjkl123", "asdfasdfasdf",
        "zxcvbnm12345", "abcdefghijkl", "abcdefg12345", "abcd12345678", "abc123abc123", "a1b2c3d4e5f6",
        "password1234", "password12345", "password123!", "password1234!", "password2024", "password2025",
        "password2026", "passwordpassword", "p@ssw0rd1234", "p@ssword1234", "passw0rd1234", "mypassword12",
        "mypassword123", "administrator", "administrator1", "adminadmin12", "admin1234567", "admin12345678",
        "rootrootroot", "letmeinletmein", "letmein12345", "welcome12345", "welcome123456", "welcomewelcome",
        "changeme1234", "changemechangeme", "iloveyou1234", "iloveyouiloveyou", "ilovemyfamily", "sunshine1234",
        "football1234", "baseball1234", "princess1234", "superman1234", "monkeymonkey", "dragondragon",
        "trustno1trustno1", "correcthorsebatterystaple", "correct horse battery staple", "testtesttest", "test12345678",
    }
)  # fmt: skip
"""Of passwords that are long enough, those that are tried first."""


def check_new(password: str, *, email: str) -> None:
    """Raises `PayloadInvalid` for a password that nobody should choose."""
    plain = _plain(password)
    if len(plain) < SHORTEST:
        raise PayloadInvalid(f"choose a password of at least {SHORTEST} characters", field="password")
    if len(plain.encode("utf-8", "surrogatepass")) > LONGEST_BYTES:
        raise PayloadInvalid(f"choose a password of at most {LONGEST_BYTES} bytes", field="password")
    if any(unicodedata.category(one) in ("Cc", "Cs") for one in plain):
        raise PayloadInvalid("a password has no control characters", field="password")
    folded = plain.casefold()
    if folded in COMMON or len(set(folded)) < FEWEST_KINDS:
        raise PayloadInvalid("this password is one of those that are tried first; choose another", field="password")
    local = email.partition("@")[0].casefold()
    for name in (local, _SERVICE):
        if len(name) >= _SHORTEST_NAMED and name in folded:
            raise PayloadInvalid(
                "this password says your address or this service; choose one that does not", field="password"
            )


def is_stale(kept: str) -> bool:
    """Whether it was made with less than today's parameters."""
    found = _PHC.fullmatch(kept)
    return found is None or any(
        int(was) < now for was, now in zip(found.groups(), (MEMORY_KIB, ITERATIONS, LANES), strict=True)
    )


class Passwords:
    """One per process: hashes and proves, few at once."""

    def __init__(self, *, at_once: int = AT_ONCE, most_waiting: int = MOST_WAITING) -> None:
        self._at_once, self._most = at_once, at_once + most_waiting
        self._threads: ThreadPoolExecutor | None = None
        self._asked = 0
        self._nobodys: str | None = None

    async def hashed(self, password: str) -> str:
        """The PHC form of its hash. Raises `Unavailable` when too many wait."""
        return await self._on_thread(lambda: _hash(password))

    async def proves(self, password: str, kept: str | None) -> bool:
        """Whether this is the password of that hash; None: nobody's, which takes as long. Raises `Unavailable` when
        too many wait.
        """
        return await self._on_thread(lambda: self._check(password, kept))

    def stop(self) -> None:
        """Lets its threads go; who asks again has new ones. Twice is fine."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)

    def _check(self, password: str, kept: str | None) -> bool:
        if self._nobodys is None:
            self._nobodys = _hash(os.urandom(16).hex())
        same = _verify(password, kept or self._nobodys)
        return same and kept is not None

    async def _on_thread(self, work: Callable[[], T]) -> T:
        if self._asked >= self._most:
            raise Unavailable("too many people prove their passwords at this moment; try again")
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._at_once, thread_name_prefix="password")
        self._asked += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._asked -= 1


def _plain(password: str) -> str:
    """One form for what looks the same, whichever keyboard it comes from."""
    return unicodedata.normalize("NFC", password)


def _bytes(password: str) -> bytes:
    return _plain(password).encode("utf-8", "surrogatepass")


def _hash(password: str) -> str:
    kdf = Argon2id(
        salt=os.urandom(_SALT_BYTES), length=_HASH_BYTES, iterations=ITERATIONS, lanes=LANES, memory_cost=MEMORY_KIB
    )
    return kdf.derive_phc_encoded(_bytes(password))


def _verify(password: str, kept: str) -> bool:
    try:
        Argon2id.verify_phc_encoded(_bytes(password), kept)
    except (InvalidKey, ValueError):
        return False
    return True
