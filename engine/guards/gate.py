"""Who stands at the door of the API: tokens are checked, bad ones are counted per address, and a token's last use is
noted at most once a minute. Called by the API for every request that needs an identity.

A checksum tells typos from guesses without asking the store; only well-formed tokens that are not good are counted. An
address that sent too many of them is refused unread for the rest of the minute, but for tokens that were good here
before: nobody is shut out by a neighbour behind the same address.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, Protocol

from contracts.problems import RateLimited, Unauthenticated, Unavailable
from engine.clock import Clock
from engine.guards.permissions import PresentedTokens, Principal, prefix_of, verify_token

BAD_TOKENS: Final = 20
"""Bad tokens of one address in a minute, after which it is refused."""

MINUTE: Final = timedelta(minutes=1)
MOST_REMEMBERED: Final = 10_000


class UsedTokens(PresentedTokens, Protocol):
    async def touch_token(self, prefix: str, *, now: datetime, before: datetime) -> bool: ...


class Throttle:
    """Counts by key within windows that begin with a key's first count. It forgets the oldest keys first."""

    def __init__(self, most: int, window: timedelta = MINUTE) -> None:
        self._most, self._window = most, window
        self._counts: OrderedDict[str, tuple[datetime, int]] = OrderedDict()

    def spent(self, key: str, now: datetime) -> bool:
        began, count = self._counts.get(key, (now, 0))
        return count >= self._most and now - began < self._window

    def left(self, key: str, now: datetime) -> float:
        """Seconds until the key's window is over."""
        began, _ = self._counts.get(key, (now, 0))
        return max(0.0, (began + self._window - now).total_seconds())

    def uncount(self, key: str) -> None:
        """Takes one back that turned out to be good."""
        if key in self._counts:
            began, count = self._counts[key]
            self._counts[key] = (began, max(0, count - 1))

    def count(self, key: str, now: datetime) -> None:
        began, count = self._counts.get(key, (now, 0))
        if now - began >= self._window:
            began, count = now, 0
        self._counts[key] = (began, count + 1)
        if len(self._counts) > MOST_REMEMBERED:
            self._counts.popitem(last=False)


class Gate:
    """One per process that answers HTTP."""

    def __init__(self, tokens: UsedTokens, clock: Clock) -> None:
        self._tokens, self._clock = tokens, clock
        self._bad = Throttle(BAD_TOKENS)
        self._used: OrderedDict[str, datetime] = OrderedDict()
        """Good tokens by prefix, and when their use was last noted."""

    async def admit(self, header: str | None, address: str) -> Principal:
        """Whoever an Authorization header stands for. Raises `Unauthenticated`, the same for every cause,
        `RateLimited`, and the `Forbidden` of a good token whose tenant or maker is barred.
        """
        scheme, _, rest = (header or "").partition(" ")
        text = rest.strip() if scheme.lower() == "bearer" else ""
        now, prefix = self._clock.now(), prefix_of(text)
        if prefix is not None and prefix not in self._used and self._bad.spent(address, now):
            raise RateLimited("too many bad tokens came from this address; try again in a minute")
        try:
            principal = await verify_token(self._tokens, text, now=now)
        except Unauthenticated:
            if prefix is not None:
                self._bad.count(address, now)
                self._used.pop(prefix, None)
            raise
        assert prefix is not None
        await self._note(prefix, now)
        return principal

    async def _note(self, prefix: str, now: datetime) -> None:
        noted = self._used.get(prefix)
        if noted is not None and now - noted < MINUTE:
            return
        self._used[prefix] = now
        if len(self._used) > MOST_REMEMBERED:
            self._used.popitem(last=False)
        with suppress(Unavailable):
            await self._tokens.touch_token(prefix, now=now, before=now - MINUTE)
