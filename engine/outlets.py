"""Outlets: where the platform's notices are delivered to outside, signed as Standard Webhooks asks
(https://www.standardwebhooks.com).

    notice on its way to the bus -> one sealed row per outlet that takes it -> signed POST -> delivered, or again later

An outlet belongs to a tenant and takes the notices of that tenant; the platform's own take those of all. A secret is
told once, when it is made, and lies sealed under the owner's key, bound to its outlet and version. Each change is
recorded in the owner's stream before it takes hold. Of what becomes of a delivery there is no notice, so that none can
beget another. Called by `/v1/outlets`, by the relay, and by `consumers.notifier`, which sends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from uuid import uuid4

import orjson
from standardwebhooks import Webhook

from contracts.envelope import format_time
from contracts.notices import UNWIND, OutletDisabledV1
from contracts.problems import Conflict, NotFound, PayloadInvalid, TenantOffboarded
from contracts.tenant_events import (
    PLATFORM,
    NoticesRedelivered,
    OutletAdded,
    OutletDisabled,
    OutletEnabled,
    OutletRemoved,
    OutletRotated,
)
from engine.clock import Clock
from engine.guards.addresses import EgressRefused, SafeUrl, Target
from engine.hooks import NAME, checked_secret
from engine.store import Outlet, OutletDelivery, OutletRows
from engine.store.keys import Erased, Vault
from engine.store.mapper import open_blob, seal_blob
from engine.tenant_log import TenantLog

MOST_OUTLETS: Final = 50
"""Outlets of one owner."""
TYPES: Final = frozenset(UNWIND.type_of(event.model) for event in UNWIND.events)
TEST: Final = "unwind.OutletTestV1"
"""The type of a test; no such fact is ever on the bus."""
NOTICES: Final = f"{UNWIND.name}."
FRESH_SECONDS: Final = 2.0
LEASE: Final = timedelta(seconds=60)
"""How long whoever sends a notice has it to himself."""
SOON: Final = 2 * LEASE
"""What is due by then may be in somebody's hand, and comes by itself."""
MOST_REDELIVERED: Final = 10_000
"""Notices sent again at one word."""


@dataclass(frozen=True, slots=True)
class NewOutlet:
    """An outlet with its secret in clear, this once."""

    outlet: Outlet
    secret: str


class Outlets:
    """One per process. `opens` says which targets an operator has opened, to which plain http may go."""

    def __init__(self, rows: OutletRows, vault: Vault, log: TenantLog, clock: Clock) -> None:
        self._rows, self._vault, self._log, self._clock = rows, vault, log, clock
        self._known: tuple[float, dict[str, list[Outlet]]] = (-FRESH_SECONDS, {})
        self.opens: Callable[[Target], bool] = lambda target: False
        self.on_due: Callable[[], None] = lambda: None
        """Called when something is to be delivered at once."""

    # ------------------------------------------------------------------------------------------------------- by people

    async def list(self, tenant: str | None) -> Sequence[Outlet]:
        """By name; `tenant` None: everybody's."""
        return await self._rows.outlets(tenant)

    async def one(self, tenant: str, name: str) -> Outlet:
        """Raises `NotFound`."""
        outlet = await self._rows.outlet(tenant, name) if NAME.fullmatch(name) else None
        if outlet is None:
            raise NotFound("there is no such outlet", field="outlet")
        return outlet

    async def add(
        self, tenant: str, name: str, url: str, *, types: Sequence[str], secret: str | None, by: str
    ) -> NewOutlet:
        """`types` empty: all notices; `secret` None: one is made. Raises `Conflict` for a taken name, `PayloadInvalid`
        for what cannot be.
        """
        if not NAME.fullmatch(name):
            raise PayloadInvalid(
                "name the outlet with 1 to 64 letters, digits, dots, dashes or underscores", field="name"
            )
        address = self._address(url)
        unknown = sorted(set(types) - TYPES)
        if unknown:
            raise PayloadInvalid(f"{unknown[0]} is no notice; choose among {', '.join(sorted(TYPES))}", field="types")
        clear = checked_secret("standard", secret)
        others = await self._rows.outlets(tenant)
        if any(outlet.name == name for outlet in others):
            raise Conflict(f"there is an outlet {name!r}; rotate or remove it", field="name")
        if len(others) >= MOST_OUTLETS:
            raise Conflict(f"there are {MOST_OUTLETS} outlets, which is the most; remove one", field="name")
        now, chosen = self._clock.now(), tuple(dict.fromkeys(types))
        outlet = Outlet(
            tenant=tenant,
            name=name,
            url=url,
            types=chosen,
            secret=await self._seal(tenant, name, 1, clear),
            created_at=now,
            created_by=by,
        )
        await self._log.record(tenant, OutletAdded(at=now, outlet=name, host=address.target.host, types=chosen, by=by))
        if not await self._rows.add_outlet(outlet):
            raise Conflict(f"there is an outlet {name!r}; rotate or remove it", field="name")
        self._forget()
        return NewOutlet(outlet, clear)

    async def rotate(self, tenant: str, name: str, *, overlap: timedelta, secret: str | None, by: str) -> NewOutlet:
        """A new secret; the present one signs, too, until `overlap` is over, an older one no more."""
        outlet = await self.one(tenant, name)
        clear, now = checked_secret("standard", secret), self._clock.now()
        sealed = await self._seal(tenant, name, outlet.version + 1, clear)
        await self._log.record(tenant, OutletRotated(at=now, outlet=name, until=now + overlap, by=by))
        if not await self._rows.rotate_outlet(outlet, sealed, old_until=now + overlap, now=now):
            raise Conflict(f"the outlet {name!r} was changed at the same time; look, and rotate it again")
        self._forget()
        return NewOutlet(await self.one(tenant, name), clear)

    async def switch(self, tenant: str, name: str, *, enabled: bool, reason: str, by: str) -> Outlet:
        """Enables or disables it; what waited goes on where it stood. Twice is fine."""
        outlet = await self.one(tenant, name)
        if outlet.enabled == enabled:
            return outlet
        now = self._clock.now()
        event = (
            OutletEnabled(at=now, outlet=name, by=by)
            if enabled
            else OutletDisabled(at=now, outlet=name, reason=reason, by=by)
        )
        await self._log.record(tenant, event)
        await self._rows.switch_outlet(tenant, name, enabled=enabled, why=reason, now=now)
        self._forget()
        self.on_due()
        return await self.one(tenant, name)

    async def remove(self, tenant: str, name: str, *, by: str) -> None:
        """With all of its deliveries."""
        await self.one(tenant, name)
        await self._log.record(tenant, OutletRemoved(at=self._clock.now(), outlet=name, by=by))
        await self._rows.remove_outlet(tenant, name)
        self._forget()

    async def test(self, tenant: str, name: str) -> str:
        """Has a test delivered as any notice is; answers its id."""
        outlet = await self._enabled(tenant, name)
        message_id = str(uuid4())
        await self._add(outlet, TEST, message_id, tenant, format_time(self._clock.now()), {"outlet": name})
        self.on_due()
        return message_id

    async def redeliver(self, tenant: str, name: str, message_id: str, *, by: str) -> int:
        """Has a notice sent again, whatever became of it: its id and its document are what they were, and so a
        receiver knows it; its attempts begin anew. Answers 0 where it comes within two minutes by itself. Raises
        `NotFound`; `Conflict` while the outlet is disabled.
        """
        outlet, now = await self._enabled(tenant, name), self._clock.now()
        delivery = await self._rows.delivery(tenant, name, message_id)
        if delivery is None:
            raise NotFound("the outlet has no such delivery", field="message_id")
        if delivery.state == "waiting" and delivery.due_at <= now + SOON:
            return 0
        await self._log.record(
            tenant, NoticesRedelivered(at=now, outlet=outlet.name, message_id=message_id, since=None, by=by)
        )
        sent = await self._rows.resend_delivery(tenant, name, message_id, now=now, soon=now + SOON)
        self.on_due()
        return int(sent)

    async def redeliver_failed(self, tenant: str, name: str, since: datetime, *, by: str) -> int:
        """The same for all notices made since then that have failed, for good or so far: the oldest
        `MOST_REDELIVERED`. Answers how many. Raises as `redeliver` does.
        """
        outlet, now = await self._enabled(tenant, name), self._clock.now()
        await self._log.record(
            tenant, NoticesRedelivered(at=now, outlet=outlet.name, message_id=None, since=since, by=by)
        )
        sent = await self._rows.resend_failed(
            tenant, name, since=since, now=now, soon=now + SOON, limit=MOST_REDELIVERED
        )
        self.on_due()
        return sent

    async def _enabled(self, tenant: str, name: str) -> Outlet:
        outlet = await self.one(tenant, name)
        if not outlet.enabled:
            raise Conflict("the outlet is disabled; enable it first", field="outlet")
        return outlet

    # ------------------------------------------------------------------------------------------------- on the way out

    async def take(self, tenant: str, kind: str, message_id: str, body: bytes) -> None:
        """A notice of the tenant that the bus has taken: a row for each outlet it is for. Twice is fine."""
        known = await self._outlets()
        outlets = [
            outlet
            for owner in dict.fromkeys((tenant, PLATFORM))
            for outlet in known.get(owner, ())
            if outlet.enabled and (not outlet.types or kind in outlet.types)
        ]
        if not outlets:
            return
        envelope = orjson.loads(body)
        try:
            for outlet in outlets:
                await self._add(outlet, kind, message_id, tenant, envelope["time"], envelope["data"])
        except TenantOffboarded:
            return  # nothing is told of it any more
        self.on_due()

    async def message(self, outlet: Outlet, delivery: OutletDelivery) -> tuple[Mapping[str, str], bytes] | None:
        """Headers and body, signed for now; None where the keys that sealed them are gone."""
        keys = await self._vault.ready(delivery.about, [delivery.body])
        body = open_blob(keys, "delivery", _about(delivery), delivery.body)
        now = self._clock.now()
        sealed = [(outlet.version, outlet.secret)]
        if outlet.old_secret is not None and signs_until(outlet, now) is not None:
            sealed.append((outlet.version - 1, outlet.old_secret))
        owner = await self._vault.ready(outlet.tenant, [secret for _, secret in sealed])
        opened = [open_blob(owner, "outlet", _ident(outlet.name, version), secret) for version, secret in sealed]
        secrets = [secret.decode() for secret in opened if not isinstance(secret, Erased)]
        if isinstance(body, Erased) or not secrets:
            return None
        # What is signed is whole seconds.
        at = datetime.fromtimestamp(int(now.timestamp()), UTC)
        signatures = [Webhook(secret).sign(delivery.message_id, at, body.decode()) for secret in secrets]
        headers = {
            "Content-Type": "application/json",
            "webhook-id": delivery.message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(signatures),
        }
        return headers, body

    async def disable(self, outlet: Outlet, reason: Literal["failing", "gone"], since: datetime) -> None:
        """By the engine itself: an entry of the owner's audit, and a notice to whoever else listens."""
        now = self._clock.now()
        await self._log.record(
            outlet.tenant,
            OutletDisabled(at=now, outlet=outlet.name, reason=reason, by="engine"),
            OutletDisabledV1(outlet=outlet.name, reason=reason, since=since),
            once=f"outlet-disabled/{outlet.name}/{format_time(since)}",
        )
        await self._rows.switch_outlet(outlet.tenant, outlet.name, enabled=False, why=reason, now=now)
        self._forget()

    def check(self, url: str) -> SafeUrl:
        """The address to send to. Raises `EgressRefused`."""
        address = SafeUrl.parse(url)
        if address.scheme != "https" and not self.opens(address.target):
            raise EgressRefused("notices are sent over https only", field="url")
        return address

    def _address(self, url: str) -> SafeUrl:
        try:
            return self.check(url)
        except EgressRefused as refused:
            raise PayloadInvalid(f"url: {refused.detail}", field="url") from None

    async def _add(
        self, outlet: Outlet, kind: str, message_id: str, about: str, happened_at: str, data: Mapping[str, Any]
    ) -> None:
        keys, now = await self._vault.keys_for(about), self._clock.now()
        delivery = OutletDelivery(
            tenant=outlet.tenant,
            outlet=outlet.name,
            message_id=message_id,
            about=about,
            type=kind,
            body=b"",
            created_at=now,
            due_at=now,
        )
        document = {"type": kind, "timestamp": happened_at, "tenant": about, "data": data}
        sealed = seal_blob(keys, "delivery", _about(delivery), orjson.dumps(document))
        await self._rows.add_delivery(replace(delivery, body=sealed))

    async def _outlets(self) -> Mapping[str, Sequence[Outlet]]:
        read, known = self._known
        if time.monotonic() - read > FRESH_SECONDS:
            read, known = time.monotonic(), {}
            for outlet in await self._rows.outlets(None):
                known.setdefault(outlet.tenant, []).append(outlet)
            self._known = read, known
        return known

    def _forget(self) -> None:
        self._known = (-FRESH_SECONDS, {})

    async def _seal(self, tenant: str, name: str, version: int, clear: str) -> bytes:
        return seal_blob(await self._vault.keys_for(tenant), "outlet", _ident(name, version), clear.encode())


def signs_until(outlet: Outlet, now: datetime) -> datetime | None:
    """Until when the secret before the present one signs, too; None: it does not."""
    return outlet.old_until if outlet.old_until is not None and now < outlet.old_until else None


def _ident(name: str, version: int) -> str:
    return f"{name}|{version}"


def _about(delivery: OutletDelivery) -> str:
    return f"{delivery.tenant}|{delivery.outlet}|{delivery.message_id}"
