"""What a provider says of itself (OpenID Connect Discovery 1.0) and its keys, fetched once and kept for an hour.

A document counts only when it names the very issuer that an operator configured. A key that is not known is looked for
again at once, but once a minute at most: whoever invents key ids must not make us ask the provider as often as he
likes. While the provider does not answer, what was known goes on for a day.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from joserfc.jwk import KeySet
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.guards.oidc.id_tokens import keys_of
from engine.guards.oidc.vouched import ProviderUnavailable
from engine.guards.oidc.wire import Wire
from engine.logs import logger

WELL_KNOWN: Final = "/.well-known/openid-configuration"
FRESH_SECONDS: Final = 3_600.0
"""How long a description and keys are taken as they are."""
STALE_SECONDS: Final = 86_400.0
"""How long they are taken while the provider does not answer."""
AGAIN_SECONDS: Final = 60.0
"""How old keys must be before they are fetched again for the sake of one that is not among them."""
PAUSE_SECONDS: Final = 5.0
"""How long nothing is asked after a failure: those who wait do not fail one after the other."""

Kept = TypeVar("Kept")

_log = logger("oidc")


class Metadata(BaseModel):
    """The members that are used; the defaults are the specification's."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = Field(("client_secret_basic",), max_length=50)
    authorization_response_iss_parameter_supported: bool = False


class Directory:
    """Of one issuer. However many sign-ins wait, each document is fetched once."""

    def __init__(self, issuer: str, wire: Wire, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.issuer = issuer
        self._wire, self._monotonic = wire, monotonic
        self._turn = asyncio.Lock()
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, KeySet] | None = None
        self._failed: float | None = None
        """When a document was last asked for without success."""

    async def metadata(self) -> Metadata:
        """Raises `ProviderUnavailable`."""
        async with self._turn:
            return await self._known_metadata()

    async def keys(self, *, newer_than: KeySet | None = None) -> KeySet:
        """The keys; newer ones than these, if they may be asked for again. Raises `ProviderUnavailable`."""
        async with self._turn:
            known = self._keys
            if known is not None and known[1] is newer_than:
                fresh_seconds = AGAIN_SECONDS
            else:
                fresh_seconds = FRESH_SECONDS
            if known is not None and not self._due(known[0], fresh_seconds):
                return known[1]
            metadata = await self._known_metadata()
            self._keys = await self._renewed(known, lambda: self._fetch_keys(metadata))
            return self._keys[1]

    async def _known_metadata(self) -> Metadata:
        known = self._metadata
        if known is not None and not self._due(known[0], FRESH_SECONDS):
            return known[1]
        self._metadata = await self._renewed(known, self._fetch_metadata)
        return self._metadata[1]

    def _due(self, fetched_at: float, fresh_seconds: float) -> bool:
        return self._monotonic() - fetched_at >= fresh_seconds and not self._pausing()

    def _pausing(self) -> bool:
        return self._failed is not None and self._monotonic() - self._failed < PAUSE_SECONDS

    async def _renewed(
        self, known: tuple[float, Kept] | None, fetching: Callable[[], Awaitable[Kept]]
    ) -> tuple[float, Kept]:
        """What is fetched now, with its time; or what is known, while the provider does not answer."""
        try:
            if self._pausing():
                raise ProviderUnavailable(f"{self.issuer} did not answer a moment ago")
            return self._monotonic(), await fetching()
        except ProviderUnavailable as failed:
            if not self._pausing():
                self._failed = self._monotonic()
            if known is None or self._monotonic() - known[0] > STALE_SECONDS:
                raise
            _log.warning("provider_stale", issuer=self.issuer, cause=failed.cause)
            return known

    async def _fetch_metadata(self) -> Metadata:
        status, document = await self._wire.get(self.issuer.removesuffix("/") + WELL_KNOWN)
        if status != 200:
            raise ProviderUnavailable(f"the description of {self.issuer} was answered with {status}")
        try:
            found = Metadata.model_validate(document)
        except ValidationError as invalid:
            wrong = ", ".join(str(error["loc"][0]) for error in invalid.errors(include_input=False))
            raise ProviderUnavailable(f"the description of {self.issuer} lacks a good {wrong}") from None
        if found.issuer != self.issuer:
            raise ProviderUnavailable(
                f"{self.issuer} calls itself {found.issuer[:200]!r}; set that as issuer if it is meant"
            )
        for address in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri, found.userinfo_endpoint):
            if address is not None:
                self._wire.address(address)
        return found

    async def _fetch_keys(self, metadata: Metadata) -> KeySet:
        status, document = await self._wire.get(metadata.jwks_uri)
        keys = keys_of(document) if status == 200 else None
        if keys is None:
            raise ProviderUnavailable(f"the keys of {self.issuer} were answered with {status} and hold no usable key")
        return keys
