"""What a tenant's outbound calls and mails may do beyond the rules for everybody: private targets that the platform
opened for this tenant alone, and how many of both it may begin in a stretch of time. Settings of the catalog, read
every few seconds, so that a change needs no restart.

    window   |----|----|----|----|----|----|----|----|----|----|----|     ten slots and the one under way
                                                     a process leases a few requests of the slot, in one round trip

Over any window no more than the rate begin, over all processes: a lease counts in its slot and is good in it alone, and
eleven slots never hold more than the rate. Called by `engine.guards.egress`.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, Protocol

from contracts.problems import PayloadInvalid, RateLimited, Unavailable
from contracts.tenant_events import PLATFORM, EgressChanged
from engine.clock import Clock
from engine.guards.addresses import Address, EgressRefused, HostRule, Target, openable, openable_network, parse_target
from engine.run.limits import Breach
from engine.tenant_log import TenantLog

EVERYONE: Final = "*"
SETTING: Final = "egress"
"""Value: {"allow": [...], "rate": {"requests": n, "seconds": s} | null}."""
QUOTA: Final = "outbound_requests"
"""What the rate is called where a full quota is said."""
FRESH_SECONDS: Final = 2.0
SLOTS: Final = 10
MOST_RULES: Final = 100
TENANTS_IN_MEMORY: Final = 10_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class EgressLimited(RateLimited):
    """The tenant has made as many requests as it may; none was sent."""

    code = "egress_limited"
    title = "Too many outbound requests"

    def __init__(self, detail: str, *, seconds: float) -> None:
        super().__init__(detail, seconds=seconds)
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in any stretch of so many seconds."""

    requests: int
    seconds: float

    @property
    def slot_seconds(self) -> float:
        return self.seconds / SLOTS

    @property
    def lease(self) -> int:
        """Requests of one round trip: a hundredth, since what is not used is lost to the slot."""
        return max(1, self.requests // 100)


@dataclass(frozen=True)
class Rules:
    """A tenant's own. `allow` are exact hosts, `host` or `host:port`, and networks in CIDR notation, which are open on
    every port; `rate` None: that of everybody.
    """

    allow: tuple[str, ...] = ()
    rate: Rate | None = None

    @classmethod
    def parse(cls, allow: Iterable[str], requests: int | None, seconds: float | None) -> Rules:
        """Canonical. Raises `PayloadInvalid`."""
        if (requests is None) != (seconds is None):
            raise PayloadInvalid("requests and seconds are given together, or neither", field="seconds")
        found = []
        for text in allow:
            try:
                found.append(str(_network(text)) if "/" in text else _host(text).text)
            except (EgressRefused, ValueError) as error:
                why = error.detail if isinstance(error, EgressRefused) else str(error)
                raise PayloadInvalid(f"allow: {why}", field="allow") from None
        if len(found) > MOST_RULES:
            raise PayloadInvalid(f"allow may hold {MOST_RULES} hosts and networks", field="allow")
        rate = None if requests is None or seconds is None else Rate(requests, seconds)
        return cls(tuple(dict.fromkeys(found)), rate)

    @classmethod
    def of(cls, setting: Any) -> Rules:
        if not setting:
            return cls()
        rate = setting["rate"]
        return cls(tuple(setting["allow"]), rate and Rate(rate["requests"], rate["seconds"]))

    def to_setting(self) -> dict[str, Any]:
        rate = self.rate and {"requests": self.rate.requests, "seconds": self.rate.seconds}
        return {"allow": list(self.allow), "rate": rate}

    @cached_property
    def _hosts(self) -> tuple[HostRule, ...]:
        return tuple(HostRule.parse(text) for text in self.allow if "/" not in text)

    @cached_property
    def _networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(text) for text in self.allow if "/" in text)

    def opens(self, target: Target, address: Address) -> bool:
        """Whether this address, to which the target leads, is open to the tenant though it is not public. Loopback,
        link-local and metadata addresses never are.
        """
        if not self.allow or not openable(address):
            return False
        return any(rule.fits(target) for rule in self._hosts) or any(address in network for network in self._networks)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text)
    except ValueError:
        raise ValueError(f"{text[:60]!r} is no network such as 10.1.0.0/16, without bits after the prefix") from None
    if not openable_network(network):
        raise ValueError(f"{network} is not inside a private network that can be opened for a tenant")
    return network


def _host(text: str) -> HostRule:
    rule = HostRule.parse(text)
    literal = parse_target(rule.host, 1).literal
    if literal is not None and not openable(literal):
        raise ValueError(f"{rule.host} is no private address that can be opened for a tenant")
    return rule


class Settings(Protocol):
    """The part of the store that rules are kept in."""

    async def setting(self, tenant: str, name: str) -> Any: ...

    async def put_setting(self, tenant: str, name: str, value: Any) -> None: ...


class Catalog(Protocol):
    """The part of the store that rules are read and leases taken from."""

    async def egress_rules(self, tenant: str) -> Any: ...

    async def lease_egress(
        self, tenant: str, *, slot: int, width_ms: int, slots: int, most: int, wanted: int
    ) -> int: ...

    async def egress_taken(self, tenant: str, *, slot: int, width_ms: int, slots: int) -> int: ...


class OutboundRules:
    """Reads and changes the rules of tenants; of `EVERYONE`, for those without rules of their own. A change is recorded
    before it takes hold, which it does in every process within `FRESH_SECONDS`.
    """

    def __init__(self, catalog: Settings, log: TenantLog, clock: Clock) -> None:
        self._catalog, self._log, self._clock = catalog, log, clock

    async def get(self, tenant: str) -> Rules:
        return Rules.of(await self._catalog.setting(tenant, SETTING))

    async def put(self, tenant: str, rules: Rules, *, by: str) -> None:
        rate = rules.rate
        changed = EgressChanged(
            at=self._clock.now(),
            allow=rules.allow,
            requests=None if rate is None else rate.requests,
            seconds=None if rate is None else rate.seconds,
            by=by,
        )
        await self._log.record(PLATFORM if tenant == EVERYONE else tenant, changed)
        await self._catalog.put_setting(tenant, SETTING, rules.to_setting())


@dataclass(slots=True)
class _Lease:
    slot: int
    width_ms: int
    left: int


class Outbound:
    """One per process: the rules as last read, and what is left of its leases."""

    def __init__(
        self,
        catalog: Catalog,
        clock: Clock,
        usual: Rate,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`usual` is the rate of a tenant that has none of its own."""
        self._catalog, self._clock, self._usual = catalog, clock, usual
        self._monotonic, self._sleep = monotonic, sleep
        self.breached: Callable[[str, Breach], None] = lambda tenant, breach: None
        """Hears of a tenant whose rate is used up, whether its request waits or is refused."""
        self._known: dict[str, tuple[float, Rules]] = {}
        self._leases: dict[str, _Lease] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def rules(self, tenant: str) -> Rules:
        """At most `FRESH_SECONDS` old, or older while the database does not answer. Raises `Unavailable` when they were
        never read.
        """
        known = self._known.get(tenant)
        if known is not None and self._monotonic() - known[0] <= FRESH_SECONDS:
            return known[1]
        try:
            rules = Rules.of(await self._catalog.egress_rules(tenant))
        except Unavailable:
            if known is None:
                raise
            return known[1]
        if tenant not in self._known and len(self._known) >= TENANTS_IN_MEMORY:
            gone = next(iter(self._known))
            del self._known[gone]
            self._leases.pop(gone, None)
            self._turns.pop(gone, None)
        self._known[tenant] = (self._monotonic(), rules)
        return rules

    async def used(self, tenant: str) -> tuple[Rate, int]:
        """The rate that bounds the tenant, and how much of it is leased in the window under way. Raises
        `Unavailable`.
        """
        rate = Rules.of(await self._catalog.egress_rules(tenant)).rate or self._usual
        width_ms = max(1, round(rate.slot_seconds * 1000))
        slot = (self._clock.now() - _EPOCH) // timedelta(milliseconds=width_ms)
        return rate, await self._catalog.egress_taken(tenant, slot=slot, width_ms=width_ms, slots=SLOTS + 1)

    async def permit(self, tenant: str, rules: Rules, seconds: float) -> None:
        """Returns when a request may begin, waiting up to `seconds` in the order of asking. Raises `EgressLimited` with
        the delay after which it is worth trying again.
        """
        rate = rules.rate or self._usual
        try:
            async with asyncio.timeout(seconds):
                async with self._turns[tenant]:
                    while (delay := await self._take(tenant, rate)) > 0:
                        if delay > seconds:
                            raise self._limited(rate, delay)
                        await self._sleep(delay)
        except TimeoutError:
            raise self._limited(rate, rate.slot_seconds) from None

    async def _take(self, tenant: str, rate: Rate) -> float:
        """Takes one request of the slot under way; zero, or the seconds until the next slot."""
        width_ms = max(1, round(rate.slot_seconds * 1000))
        width = timedelta(milliseconds=width_ms)
        since = self._clock.now() - _EPOCH
        slot = since // width
        lease = self._leases.get(tenant)
        if lease is None or lease.slot != slot or lease.width_ms != width_ms or not lease.left:
            granted = await self._catalog.lease_egress(
                tenant, slot=slot, width_ms=width_ms, slots=SLOTS + 1, most=rate.requests, wanted=rate.lease
            )
            lease = self._leases[tenant] = _Lease(slot, width_ms, granted)
            if not granted:
                self.breached(tenant, Breach(QUOTA, rate.requests + 1, rate.requests))
            since = self._clock.now() - _EPOCH
        if lease.left and since // width == slot:
            lease.left -= 1
            return 0.0
        return max(0.001, (width - since % width).total_seconds()) if since // width == slot else 0.001

    def _limited(self, rate: Rate, delay: float) -> EgressLimited:
        return EgressLimited(
            f"the tenant may make {rate.requests} outbound requests in {rate.seconds:g} s; try again in {delay:.1f} s",
            seconds=delay,
        )
