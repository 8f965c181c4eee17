"""Whose turn it is: what waits is kept by tenant, and given out one of each tenant in turn, so that nobody waits behind
all that another has sent. Called by the intake and by the inputs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """Queues by tenant. Within a tenant the oldest comes first."""

    __slots__ = ("_count", "_queues")

    def __init__(self) -> None:
        self._queues: dict[str, deque[Item]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, tenant: str, item: Item) -> None:
        """Behind all others of its tenant; a tenant that comes anew has its turn after all who wait."""
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = deque()
        queue.append(item)
        self._count += 1

    def take(self) -> Item:
        """The oldest of the tenant whose turn it is. Raises `StopIteration` when nothing waits."""
        return self.take_of(next(iter(self._queues)))

    def take_of(self, tenant: str) -> Item:
        """The oldest of this tenant, which then goes behind all other tenants. Raises `KeyError` when it waits for
        nothing.
        """
        queue = self._queues.pop(tenant)
        item = queue.popleft()
        self._count -= 1
        if queue:
            self._queues[tenant] = queue
        return item

    def of(self, tenant: str) -> int:
        """How many wait of this tenant."""
        queue = self._queues.get(tenant)
        return len(queue) if queue is not None else 0

    def tenants(self) -> Iterator[str]:
        """Who waits, whose turn is next first."""
        return iter(self._queues)

    def counts(self) -> Iterator[tuple[str, int]]:
        """How many wait of each tenant, whose turn is next first."""
        return ((tenant, len(queue)) for tenant, queue in self._queues.items())

    def clear(self) -> None:
        self._queues.clear()
        self._count = 0
