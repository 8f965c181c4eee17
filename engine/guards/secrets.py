"""Secrets of tenants: what a call outside is proven with. Set over the API, never read back, opened in one step's
scope.

    key ring  --wraps-->  a data key per secret and version  --seals-->  the value

A value is sealed with AES-256-GCM; the additional data are scheme, tenant, name, version, kind and hosts, so a row that
was copied to another tenant or name, or sent to other hosts by a change of its row, does not open. A new version takes
the place of the one before, whose data key is destroyed. Each change is recorded in the tenant's stream before it takes
hold. Called by the web, and by `engine.actions.http` in the worker.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote, quote_plus

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from contracts.problems import Conflict, NotFound, PayloadInvalid
from contracts.run_events import RunEvent
from contracts.tenant_events import SecretRemoved, SecretRotated, SecretStored
from contracts.values import value
from engine.clock import Clock
from engine.guards.addresses import EgressRefused, HostRule, SafeUrl, Target
from engine.guards.redaction import REDACTED
from engine.store import SealedSecret, SecretNote, SecretRows
from engine.store.key_ring import SealBroken
from engine.store.keys import Vault
from engine.store.secrets import SCOPE
from engine.tenant_log import TenantLog

Kind = Literal["api_key", "basic", "oauth2"]

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
MOST: Final = 500
"""Secrets of one tenant."""
MOST_HOSTS: Final = 20

_SCHEME: Final = 0x20
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32

Sent = Annotated[SecretStr, Field(min_length=4, max_length=8_000)]
"""At least four characters: what is shorter could not be masked without masking everything."""


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @property
    def hidden(self) -> tuple[str, ...]:
        """What must be seen nowhere."""
        return tuple(found.get_secret_value() for _, found in self if isinstance(found, SecretStr))


class ApiKey(_Value):
    """Sent as it is in `header`, behind `prefix`."""

    key: Sent
    header: str = Field("X-API-Key", pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")
    prefix: str = Field("", max_length=100, pattern=r"^[\x20-\x7e]*$")

    @field_validator("key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr) -> SecretStr:
        return _visible(value)


class Basic(_Value):
    """Name and password of RFC 7617."""

    username: str = Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f:]*$")
    password: Sent

    @property
    def hidden(self) -> tuple[str, ...]:
        return (self.password.get_secret_value(), self.credentials.get_secret_value())

    @property
    def credentials(self) -> SecretStr:
        pair = f"{self.username}:{self.password.get_secret_value()}"
        return SecretStr(base64.b64encode(pair.encode()).decode())


class OAuth2(_Value):
    """A client of RFC 6749: with `refresh_token`, that grant; without, client credentials. `client_auth` says how it
    proves itself to `token_url`: HTTP Basic, or in the body.
    """

    client_id: str = Field(min_length=1, max_length=500, pattern=r"^[\x20-\x7e]*$")
    client_secret: Sent
    token_url: str = Field(max_length=2_048)
    scope: str = Field("", max_length=1_000, pattern=r"^[\x20-\x7e]*$")
    refresh_token: Sent | None = None
    client_auth: Literal["basic", "body"] = "basic"

    @field_validator("token_url")
    @classmethod
    def _parses(cls, value: str) -> str:
        try:
            return str(SafeUrl.parse(value))
        except EgressRefused as refused:
            raise ValueError(refused.detail) from None

    @property
    def credentials(self) -> SecretStr:
        """Of the Authorization header, both parts encoded as section 2.3.1 says."""
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret.get_secret_value())}"
        return SecretStr(base64.b64encode(pair.encode()).decode())

    @property
    def hidden(self) -> tuple[str, ...]:
        return (*super().hidden, self.credentials.get_secret_value())


SecretValue = ApiKey | Basic | OAuth2
_KINDS: Final[Mapping[str, type[SecretValue]]] = {"api_key": ApiKey, "basic": Basic, "oauth2": OAuth2}


@value(kw_only=True)
class OpenedSecret:
    """A secret in the scope of one step; nothing of its value shows in its repr."""

    tenant: str
    name: str
    kind: str
    version: int
    hosts: tuple[str, ...]
    value: SecretValue
    seal: bytes = field(repr=False)
    """Tells this version from any other that ever had the name and number."""

    def require(self, target: Target) -> None:
        """Raises `EgressRefused` when it may not be sent there."""
        if not any(HostRule.parse(host).fits(target) for host in self.hosts):
            raise EgressRefused(
                f"secret {self.name} may not be sent to {target.text}; its hosts are {', '.join(self.hosts)}",
                field="auth",
            )


class Secrets:
    """Sets, rotates and removes secrets of tenants, and opens them for a step."""

    def __init__(self, rows: SecretRows, vault: Vault, log: TenantLog, clock: Clock) -> None:
        self._rows, self._vault, self._log, self._clock = rows, vault, log, clock

    async def notes(self, tenant: str) -> list[SecretNote]:
        return await self._rows.secrets(tenant)

    async def note(self, tenant: str, name: str) -> SecretNote:
        """Raises `NotFound`."""
        for known in await self._rows.secrets(tenant):
            if known.name == name:
                return known
        raise _unknown(name)

    async def put(
        self, tenant: str, name: str, kind: Kind, hosts: Iterable[str], given: Mapping[str, Any], *, by: str
    ) -> SecretNote:
        """Sets a secret, or replaces all of it. Raises `PayloadInvalid`; `Conflict` when somebody else was faster."""
        if not NAME.fullmatch(name):
            raise PayloadInvalid("name must be lower-case letters, digits, dots, dashes and underscores", field="name")
        made, allowed = parse_value(kind, given), parse_hosts(hosts)
        known = await self._rows.secrets(tenant)
        before = next((note.version for note in known if note.name == name), 0)
        if not before and len(known) >= MOST:
            raise Conflict(f"a tenant may have {MOST} secrets; remove one first", field="name")
        stored = SecretStored(at=self._clock.now(), name=name, kind=kind, version=before + 1, by=by)
        await self._keep(tenant, stored, allowed, made)
        return await self.note(tenant, name)

    async def rotate(self, tenant: str, name: str, given: Mapping[str, Any], *, by: str) -> SecretNote:
        """A new value of the same kind, for the same hosts. Raises `NotFound`, `PayloadInvalid`, `Conflict`."""
        known = await self.note(tenant, name)
        made = parse_value(known.kind, given)
        rotated = SecretRotated(at=self._clock.now(), name=name, kind=known.kind, version=known.version + 1, by=by)
        await self._keep(tenant, rotated, known.hosts, made)
        return await self.note(tenant, name)

    async def remove(self, tenant: str, name: str, *, by: str) -> SecretNote:
        """Raises `NotFound`. A step that has opened it goes on with it."""
        known = await self.note(tenant, name)
        removed = SecretRemoved(at=self._clock.now(), name=name, kind=known.kind, version=known.version, by=by)
        await self._log.record(tenant, removed)
        await self._rows.remove_secret(tenant, name)
        return known

    async def open(self, tenant: str, name: str) -> OpenedSecret:
        """Raises `NotFound`, and `SealBroken` for a row that was changed or copied here from elsewhere."""
        found = await self._rows.secret(tenant, name) if NAME.fullmatch(name) else None
        if found is None:
            raise _unknown(name)
        return open_secret(self._vault, found)

    async def replace_refresh_token(self, opened: OpenedSecret, token: SecretStr) -> None:
        """Keeps what a server handed out in the place of the refresh token that was used. When another process was
        faster, its token stays.
        """
        assert isinstance(opened.value, OAuth2)
        made = opened.value.model_copy(update={"refresh_token": token})
        rotated = SecretRotated(
            at=self._clock.now(), name=opened.name, kind=opened.kind, version=opened.version + 1, by="engine"
        )
        await self._keep(opened.tenant, rotated, opened.hosts, made)

    async def _keep(
        self, tenant: str, event: SecretStored | SecretRotated, hosts: tuple[str, ...], made: SecretValue
    ) -> None:
        # Refuses a tenant that was offboarded, and makes one that was never seen known.
        await self._vault.keys_for(tenant)
        sealed = seal_secret(self._vault, tenant, event.name, event.kind, event.version, hosts, made)
        await self._record(tenant, event)
        if not await self._rows.put_secret(sealed, by=event.by, now=self._clock.database_now()):
            raise Conflict(f"secret {event.name} was changed by somebody else meanwhile; look, and ask again")

    async def _record(self, tenant: str, event: RunEvent) -> None:
        await self._log.record(tenant, event)


def parse_value(kind: str, given: Mapping[str, Any]) -> SecretValue:
    """Raises `PayloadInvalid` naming the field, and nothing of the value."""
    model = _KINDS.get(kind)
    if model is None:
        raise PayloadInvalid(f"kind must be one of {', '.join(_KINDS)}", field="kind")
    try:
        return model.model_validate(dict(given))
    except ValidationError as invalid:
        first = invalid.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(("value", *(str(part) for part in first["loc"])))[:200]
        raise PayloadInvalid(f"{place}: {first['msg'].removeprefix('Value error, ')}", field=place) from None


def parse_hosts(given: Iterable[str]) -> tuple[str, ...]:
    """Canonical, each once. Raises `PayloadInvalid`."""
    hosts = []
    for text in given:
        try:
            hosts.append(HostRule.parse(text).text)
        except EgressRefused as refused:
            raise PayloadInvalid(f"hosts: {refused.detail}", field="hosts") from None
    if not 0 < len(hosts) <= MOST_HOSTS:
        raise PayloadInvalid(f"hosts must name 1 to {MOST_HOSTS} hosts that the secret may be sent to", field="hosts")
    return tuple(dict.fromkeys(hosts))


def seal_secret(
    vault: Vault, tenant: str, name: str, kind: str, version: int, hosts: tuple[str, ...], made: SecretValue
) -> SealedSecret:
    plain = {
        part: found.get_secret_value() if isinstance(found, SecretStr) else found
        for part, found in made
        if found is not None
    }
    key, nonce = secrets.token_bytes(_KEY_BYTES), os.urandom(_NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, orjson.dumps(plain), _aad(tenant, name, version, kind, hosts))
    return SealedSecret(
        tenant=tenant,
        name=name,
        kind=kind,
        version=version,
        hosts=hosts,
        sealed=bytes((_SCHEME,)) + nonce + sealed,
        key=vault.ring.wrap(tenant, SCOPE + name, version, key),
    )


def open_secret(vault: Vault, found: SealedSecret) -> OpenedSecret:
    key = vault.ring.unwrap(found.key)
    nonce, sealed = found.sealed[1 : 1 + _NONCE_BYTES], found.sealed[1 + _NONCE_BYTES :]
    try:
        if found.sealed[:1] != bytes((_SCHEME,)):
            raise InvalidTag
        plain = AESGCM(key).decrypt(
            nonce, sealed, _aad(found.tenant, found.name, found.version, found.kind, found.hosts)
        )
    except (InvalidTag, ValueError):
        raise SealBroken(
            f"secret {found.name} was changed, or belongs to another place; set it again", tenant=found.tenant
        ) from None
    return OpenedSecret(
        tenant=found.tenant,
        name=found.name,
        kind=found.kind,
        version=found.version,
        hosts=found.hosts,
        value=_KINDS[found.kind].model_validate(orjson.loads(plain)),
        seal=found.sealed,
    )


class Mask:
    """Takes the values of a step's secrets out of what comes back: a server may say again what it was sent."""

    __slots__ = ("_pattern",)

    def __init__(self, values: Iterable[str] = ()) -> None:
        forms = {form for found in values if found for form in _forms(found)}
        longest = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(form) for form in longest)) if forms else None

    def text(self, text: str) -> str:
        return text if self._pattern is None else self._pattern.sub(REDACTED, text)

    def document(self, document: Any) -> Any:
        """A copy of the JSON-native document without them, in names, texts and numbers."""
        if self._pattern is None:
            return document
        if isinstance(document, str):
            return self.text(document)
        if isinstance(document, dict):
            return {self.text(name): self.document(item) for name, item in document.items()}
        if isinstance(document, list):
            return [self.document(item) for item in document]
        if isinstance(document, int | float) and not isinstance(document, bool):
            return REDACTED if self._pattern.search(str(document)) else document
        return document


def _forms(text: str) -> Iterable[str]:
    """As it is, percent-encoded, inside JSON, and in base64."""
    encoded = text.encode()
    yield from (text, quote(text, safe=""), quote(text), quote_plus(text), orjson.dumps(text).decode()[1:-1])
    yield from (base64.b64encode(encoded).decode(), base64.urlsafe_b64encode(encoded).decode().rstrip("="))


def _aad(tenant: str, name: str, version: int, kind: str, hosts: tuple[str, ...]) -> bytes:
    return orjson.dumps([_SCHEME, tenant, name, version, kind, hosts])


def _visible(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", value.get_secret_value()):
        raise ValueError("must be visible ASCII without spaces around it")
    return value


def _unknown(name: str) -> NotFound:
    return NotFound(f"the tenant has no secret {name[:100]!r}; set it with `unwind secrets set`", field="name")
