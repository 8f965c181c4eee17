"""Whose turn it is: what waits is kept by tenant, and given out by turns, so that nobody waits behind all that another
has sent. A tenant of weight three has three turns while one of weight one has one. Called by the intake and by the
inputs.

Each tenant has a place on one line, and moves by a stride when it is given something; a stride is the shorter the more
its tenant weighs. Who stands first is next. Who waits only moves nearer, so nobody waits for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import islice
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")

STRIDE: Final = 10**9
"""Of a tenant of weight 1; whole numbers, so that the order is the same on every machine."""
SPARE: Final = 64
"""So many places that are nobody's any more may stand on the line besides."""


class Turns(Generic[Item]):
    """Queues by tenant. Within a tenant the oldest comes first."""

    __slots__ = ("_count", "_line", "_now", "_number", "_places", "_queues", "_weight")

    def __init__(self, weight: Callable[[str], int] = lambda tenant: 1) -> None:
        """`weight` says how many turns a tenant has, 1 or more; asked at each turn, so that a change holds at once."""
        self._weight = weight
        self._queues: dict[str, deque[Item]] = {}
        self._count = 0
        self._line: list[tuple[int, int, str]] = []
        """Places, a heap. One that is not the tenant's in `_places` is no longer his."""
        self._places: dict[str, tuple[int, int, str]] = {}
        self._now = 0
        self._number = 0

    def __len__(self) -> int:
        return self._count

    def add(self, tenant: str, item: Item) -> None:
        """Behind all others of its tenant; a tenant that comes anew has its turn after all who wait."""
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = deque()
            self._stand(tenant, self._now)
        queue.append(item)
        self._count += 1

    def take(self) -> Item:
        """The oldest of the tenant whose turn it is. Raises `StopIteration` when nothing waits."""
        return self.take_of(next(self.tenants()))

    def take_of(self, tenant: str) -> Item:
        """The oldest of this tenant, which has then had a turn. Raises `KeyError` when it waits for nothing."""
        queue = self._queues[tenant]
        item = queue.popleft()
        self._count -= 1
        # Who stood first without being served, for want of room, does not get all of it at once.
        self._now = max(self._now, self._places.pop(tenant)[0])
        if queue:
            self._stand(tenant, self._now)
        else:
            del self._queues[tenant]
        return item

    def of(self, tenant: str) -> int:
        """How many wait of this tenant."""
        queue = self._queues.get(tenant)
        return len(queue) if queue is not None else 0

    def tenants(self) -> Iterator[str]:
        """Who waits, whose turn is next first."""
        line = self._line
        while line and self._places.get(line[0][2]) is not line[0]:
            heappop(line)
        if line:
            yield line[0][2]
            for place in islice(sorted(self._places.values()), 1, None):
                yield place[2]

    def counts(self) -> Iterator[tuple[str, int]]:
        """How many wait of each tenant."""
        return ((tenant, len(queue)) for tenant, queue in self._queues.items())

    def clear(self) -> None:
        self._queues.clear()
        self._line.clear()
        self._places.clear()
        self._count = 0

    def _stand(self, tenant: str, after: int) -> None:
        self._number += 1
        place = (after + STRIDE // self._weight(tenant), self._number, tenant)
        self._places[tenant] = place
        heappush(self._line, place)
        if len(self._line) > 2 * len(self._places) + SPARE:
            # Behind one that waits long for room, places pile up that are nobody's any more.
            self._line = sorted(self._places.values())
