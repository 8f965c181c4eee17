"""Webhook endpoints of tenants: which workflow a third party's message starts, by what it is proven, and what of it
becomes the run's input.

A secret is told once, when it is made, and lies sealed under the tenant's key from then on, bound to its endpoint and
version. Each change is recorded in the tenant's stream before it takes hold. A rotation keeps the secret before it for
as long as whoever rotates says. Called by the webhook routes and by `/v1/hooks`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from contracts.pointers import MISSING, resolve, segments
from contracts.problems import Conflict, NotFound, PayloadInvalid
from contracts.tenant_events import HookAdded, HookRemoved, HookRotated
from engine.clock import Clock
from engine.store import Catalog, Hook, HookScheme
from engine.store.keys import Erased, Vault
from engine.store.mapper import open_blob, seal_blob
from engine.tenant_log import TenantLog

MOST_HOOKS: Final = 100
"""Endpoints of one tenant."""
MOST_FIELDS: Final = 100
MOST_FIELDS_BYTES: Final = 16_384
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
STRIPE_ID: Final = "/id"
"""Where a Stripe message says its id; what it signs names none elsewhere."""

_OURS_BYTES: Final = 32
_STANDARD_BYTES: Final = range(24, 65)
_LONGEST_ID: Final = 120
_LONGEST_POINTER: Final = 500


@dataclass(frozen=True, slots=True)
class Made:
    """An endpoint with its secret in clear, this once."""

    hook: Hook
    secret: str


class Hooks:
    """A tenant's endpoints: made, rotated, removed, found."""

    def __init__(self, catalog: Catalog, vault: Vault, log: TenantLog, clock: Clock) -> None:
        self._catalog, self._vault, self._log, self._clock = catalog, vault, log, clock

    async def known(self, tenant: str | None) -> list[Hook]:
        """By name; `tenant` None: everybody's."""
        return await self._catalog.hooks(tenant)

    async def find(self, tenant: str, name: str) -> Hook | None:
        return await self._catalog.hook(tenant, name) if NAME.fullmatch(name) else None

    async def add(
        self,
        tenant: str,
        name: str,
        workflow: str,
        *,
        scheme: HookScheme,
        fields: Mapping[str, Any],
        id_pointer: str | None,
        secret: str | None,
        by: str,
    ) -> Made:
        """`secret` None: one is made. Raises `Conflict` for a taken name, `PayloadInvalid` for what cannot be."""
        if not NAME.fullmatch(name):
            raise PayloadInvalid(
                "name the endpoint with 1 to 64 letters, digits, dots, dashes or underscores", field="name"
            )
        check_fields(fields)
        if id_pointer is None and scheme == "stripe":
            id_pointer = STRIPE_ID
        if id_pointer is not None:
            _check_pointer(id_pointer, "id")
        clear = checked_secret(scheme, secret)
        others = await self._catalog.hooks(tenant)
        if any(hook.name == name for hook in others):
            raise Conflict(f"there is an endpoint {name!r}; rotate or remove it", field="name")
        if len(others) >= MOST_HOOKS:
            raise Conflict(f"a tenant has at most {MOST_HOOKS} endpoints; remove one", field="name")
        now = self._clock.now()
        hook = Hook(
            tenant=tenant,
            name=name,
            workflow=workflow,
            scheme=scheme,
            fields=dict(fields),
            secret=await self._seal(tenant, name, 1, clear),
            created_at=now,
            created_by=by,
            id_pointer=id_pointer,
        )
        await self._log.record(tenant, HookAdded(at=now, endpoint=name, workflow=workflow, scheme=scheme, by=by))
        if not await self._catalog.add_hook(hook):
            raise Conflict(f"there is an endpoint {name!r}; rotate or remove it", field="name")
        return Made(hook, clear)

    async def rotate(self, tenant: str, name: str, *, overlap: timedelta, secret: str | None, by: str) -> Made:
        """A new secret; the present one is taken until `overlap` is over, an older one no more. Raises `NotFound`."""
        hook = await self._one(tenant, name)
        clear = checked_secret(hook.scheme, secret)
        now = self._clock.now()
        until = now + overlap
        sealed = await self._seal(tenant, name, hook.version + 1, clear)
        await self._log.record(tenant, HookRotated(at=now, endpoint=name, until=until, by=by))
        if not await self._catalog.rotate_hook(hook, sealed, old_until=until, now=now):
            raise Conflict(f"the endpoint {name!r} was changed at the same time; look, and rotate it again")
        return Made(await self._one(tenant, name), clear)

    async def remove(self, tenant: str, name: str, *, by: str) -> None:
        """From now on nothing is taken there. Raises `NotFound`."""
        await self._one(tenant, name)
        await self._log.record(tenant, HookRemoved(at=self._clock.now(), endpoint=name, by=by))
        await self._catalog.remove_hook(tenant, name)

    async def secrets(self, hook: Hook) -> list[str]:
        """What a message may be signed with now, the present secret first."""
        sealed = [(hook.version, hook.secret)]
        if hook.old_secret is not None and accepted_until(hook, self._clock.now()) is not None:
            sealed.append((hook.version - 1, hook.old_secret))
        keys = await self._vault.ready(hook.tenant, [body for _, body in sealed])
        opened = [open_blob(keys, "hook", _ident(hook.name, version), body) for version, body in sealed]
        return [clear.decode() for clear in opened if not isinstance(clear, Erased)]

    async def _one(self, tenant: str, name: str) -> Hook:
        hook = await self.find(tenant, name)
        if hook is None:
            raise NotFound("there is no such endpoint", field="hook")
        return hook

    async def _seal(self, tenant: str, name: str, version: int, clear: str) -> bytes:
        keys = await self._vault.keys_for(tenant)
        return seal_blob(keys, "hook", _ident(name, version), clear.encode())


def _ident(name: str, version: int) -> str:
    return f"{name}|{version}"


def checked_secret(scheme: HookScheme, given: str | None) -> str:
    """The given secret, or a new one. Raises `PayloadInvalid` for one that is short, or that the scheme cannot take."""
    if given is None:
        return "whsec_" + base64.b64encode(secrets.token_bytes(_OURS_BYTES)).decode()
    if not 16 <= len(given) <= 200 or not given.isascii() or not given.isprintable() or " " in given:
        raise PayloadInvalid("a secret has 16 to 200 printable ASCII characters without spaces", field="secret")
    if scheme == "standard":
        try:
            key = base64.b64decode(given.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            key = b""
        if not given.startswith("whsec_") or len(key) not in _STANDARD_BYTES:
            raise PayloadInvalid("a secret of this scheme is whsec_ and 24 to 64 bytes in base64", field="secret")
    return given


# ---------------------------------------------------------------------------------------------------- what becomes what


def check_fields(fields: Mapping[str, Any]) -> None:
    """Each field is a JSON pointer into the message, `{"pointer": ..., "default": ...}` or `{"constant": ...}`. Raises
    `PayloadInvalid` naming the field.
    """
    if len(fields) > MOST_FIELDS or len(orjson.dumps(fields)) > MOST_FIELDS_BYTES:
        raise PayloadInvalid(
            f"at most {MOST_FIELDS} fields, in {MOST_FIELDS_BYTES} bytes; map an object that holds the rest",
            field="fields",
        )
    for name, source in fields.items():
        where = f"fields.{name}"
        match source:
            case str():
                _check_pointer(source, where)
            case {"pointer": str() as pointer, **rest} if not rest.keys() - {"default"}:
                _check_pointer(pointer, where)
            case {"constant": _, **rest} if not rest:
                pass
            case _:
                raise PayloadInvalid(
                    f'{where} is a JSON pointer such as "/data/email", {{"pointer": ..., "default": ...}} or '
                    '{"constant": ...}',
                    field=where,
                )


def input_of(hook: Hook, message: Any) -> dict[str, Any]:
    """The run's input: the mapped fields, or the message itself where nothing is mapped. Raises `PayloadInvalid` naming
    the first field that the message does not have.
    """
    if not hook.fields:
        if not isinstance(message, dict):
            raise PayloadInvalid("the body must be a JSON object", field="body")
        return message
    return {name: _taken(name, source, message) for name, source in hook.fields.items()}


def _taken(name: str, source: Any, message: Any) -> Any:
    given: Mapping[str, Any] = {"pointer": source} if isinstance(source, str) else source
    if "constant" in given:
        return given["constant"]
    found = resolve(message, segments(given["pointer"]))
    if found is MISSING or found is None:
        if "default" in given:
            return given["default"]
        raise PayloadInvalid(f"the message has no {given['pointer']}, which {name} is taken from", field=name)
    return found


def identity_of(hook: Hook, proven: str | None, body: bytes, message: Any) -> str:
    """Under what a repeat of the message is known: the id that its signature covers, else what stands at the hook's
    pointer, else the body itself. Never an unsigned header, which whoever repeats a message could choose. Raises
    `PayloadInvalid` when nothing stands at the pointer.
    """
    text = proven
    if text is None and hook.id_pointer is not None:
        found = resolve(message, segments(hook.id_pointer))
        if isinstance(found, bool) or not isinstance(found, str | int):
            raise PayloadInvalid(f"the message has no id at {hook.id_pointer}", field=hook.id_pointer)
        text = str(found)
    return known_as(text, body)


def known_as(identity: str | None, body: bytes) -> str:
    """The identity as part of a key: itself, or a digest where it is long or not plain; None: that of the body."""
    if identity is not None and 0 < len(identity) <= _LONGEST_ID and identity.isascii() and identity.isprintable():
        return identity
    return hashlib.sha256(body if identity is None else identity.encode()).hexdigest()


def _check_pointer(pointer: str, where: str) -> None:
    if len(pointer) > _LONGEST_POINTER:
        raise PayloadInvalid(f"{where} is longer than {_LONGEST_POINTER} characters", field=where)
    try:
        segments(pointer)
    except ValueError as error:
        raise PayloadInvalid(f"{where}: {error}", field=where) from None


def accepted_until(hook: Hook, now: datetime) -> datetime | None:
    """When the secret before the present one stops being taken; None: it is not taken."""
    return hook.old_until if hook.old_until is not None and now < hook.old_until else None
