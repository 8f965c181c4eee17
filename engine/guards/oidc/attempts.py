"""A sign-in under way: what the browser takes along to the provider and back, sealed, in one cookie of ten minutes.

    state      ties the provider's answer to the browser that began (against a forged sign-in)
    nonce      ties the ID token to it
    verifier   ties the code to it (PKCE, RFC 7636)

Sealed under the platform's key with the issuer authenticated, so that the browser can neither read nor change it, and
every process of the installation can open it. An attempt is used once.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Final

import orjson

from contracts.tenant_events import PLATFORM
from engine.guards.oidc.vouched import OidcRefused
from engine.store.data_keys import FRAME_TENANT
from engine.store.keys import KeysNotLoaded, SealBroken, Vault
from engine.store.mapper import open_blob, seal_blob

LIFE_SECONDS: Final = 600
MAX_RETURN: Final = 1_000
MAX_SEALED: Final = 4_096
MOST_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """`return_to` is a path of this installation, `tenant` where to act, if that was said; `until` in seconds of the
    epoch.
    """

    state: str
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    return_to: str
    until: int
    tenant: str | None = None

    @classmethod
    def begin(cls, return_to: str, now: datetime, *, tenant: str | None = None) -> Attempt:
        """`return_to` has been checked (`is_path`)."""
        return cls(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            return_to=return_to,
            until=int(now.timestamp()) + LIFE_SECONDS,
            tenant=tenant,
        )

    @property
    def challenge(self) -> str:
        """S256 of the verifier."""
        return base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()

    async def seal(self, vault: Vault, issuer: str) -> str:
        """As the cookie holds it."""
        keys = await vault.keys_for(PLATFORM)
        plain = orjson.dumps(asdict(self))
        return base64.urlsafe_b64encode(seal_blob(keys, "sign_in", issuer, plain)).decode().rstrip("=")

    @classmethod
    async def open(cls, vault: Vault, issuer: str, sealed: str, now: datetime) -> Attempt:
        """Raises `OidcRefused`."""
        try:
            if len(sealed) > MAX_SEALED:
                raise ValueError
            body = base64.b64decode(sealed.encode() + b"=" * (-len(sealed) % 4), b"-_", validate=True)
            if body[:1] != bytes((FRAME_TENANT,)):
                raise ValueError
            plain = open_blob(await vault.ready(PLATFORM, [body]), "sign_in", issuer, body)
            assert isinstance(plain, bytes)
        except (ValueError, SealBroken, KeysNotLoaded):
            raise OidcRefused("the cookie of the sign-in does not open") from None
        attempt = cls(**orjson.loads(plain))
        if attempt.until < now.timestamp():
            raise OidcRefused("the sign-in took longer than ten minutes")
        return attempt


class Used:
    """Attempts that came back to this process, until they would be over anyway. A code that comes back to another
    process is refused by the provider, which takes each once (RFC 6749, section 4.1.2).
    """

    def __init__(self) -> None:
        self._used: OrderedDict[str, int] = OrderedDict()

    def take(self, attempt: Attempt, now: datetime) -> None:
        """Raises `OidcRefused` the second time."""
        while self._used and (len(self._used) >= MOST_REMEMBERED or next(iter(self._used.values())) < now.timestamp()):
            self._used.popitem(last=False)
        if attempt.state in self._used:
            raise OidcRefused("the sign-in came back twice")
        self._used[attempt.state] = attempt.until


def is_path(text: str) -> bool:
    """Whether a browser that follows this from here stays here: an absolute path, not `//host`, and nothing that
    browsers read as a slash or leave out.
    """
    return (
        0 < len(text) <= MAX_RETURN
        and text[0] == "/"
        and text[1:2] != "/"
        and "\\" not in text
        and text.isascii()
        and text.isprintable()
        and " " not in text
    )
