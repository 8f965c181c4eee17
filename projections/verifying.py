"""Walking a tenant's audit chain: against itself, against the stored bytes of the log, and against a head that was
exported earlier. It opens nothing: no key is needed, so whoever can read a copy of the database can verify it.

    entries 1..n   each hash follows from its content and the hash before
    leaves         what they say of the log is what the log holds, event by event, in order
    head           the chain reaches its own head; and the exported one, which stands where it stood

Called by `GET /v1/audit/verify` and `unwind audit verify`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from engine.store import Notification, Store
from projections.audit import GENESIS, Head, Leaf, Verdict, Verifier, compare, leaves_of

PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class ExportedHead:
    """Where a tenant's chain stood once, kept outside of the database."""

    tenant: str
    number: int
    hash: str
    """Hex digits."""


async def heads(store: Store, tenant: str | None = None) -> list[ExportedHead]:
    """Where the chains stand: of one tenant, or of all that have one."""
    rows = await store.fetch("audit_heads_of", tenant=tenant)
    return [ExportedHead(row["tenant"], row["number"], bytes(row["hash"]).hex()) for row in rows]


async def verify(
    store: Store, tenant: str, *, against_log: bool = False, exported: ExportedHead | None = None
) -> Verdict:
    """Walks the whole chain. `against_log` also reads every event of the log that it covers; what was dropped with its
    month of the archive cannot be compared, and is counted as `unchecked`.
    """
    lane = await store.lane_of(tenant) if against_log else 0
    # Read before the head: whatever lies up to here, the head and its entries cover.
    covered = await store.checkpoint("audit", lane) if against_log else 0
    rows = await store.fetch("audit_heads_of", tenant=tenant)
    head = Head.of(rows[0]) if rows else Head(0, GENESIS, [])
    walk = _Walk(store, tenant, lane, any(one.dropped for one in await store.archive_months()))
    expected = [(head.number, head.hash.hex(), "its own head")]
    if exported is not None:
        expected.append((exported.number, exported.hash, "the exported head"))
    while walk.holds():
        entries = await store.fetch("audit_chain", tenant=tenant, after=walk.verdict.number, limit=PAGE)
        if not entries:
            break
        for entry in entries:
            await walk.take(entry, against_log=against_log)
            walk.stands(expected)
            if not walk.holds():
                break
    walk.reaches(expected)
    if against_log and walk.holds():
        # An entry that was written meanwhile has these leaves already.
        tail = leaves_of(head) if walk.verdict.number == head.number else []
        await walk.compare(tail, max([covered, *(leaf.position for leaf in tail)]))
    return walk.verdict


class _Walk:
    """One chain, entry by entry, and the log beside it."""

    def __init__(self, store: Store, tenant: str, lane: int, gone: bool) -> None:
        self._store, self._tenant, self._gone = store, tenant, gone
        self._log = _Forward(store, lane, tenant)
        self._verifier = Verifier(tenant)
        self._unchecked = 0
        self._broken: str | None = None

    @property
    def verdict(self) -> Verdict:
        was = self._verifier.verdict
        return replace(was, broken=was.broken or self._broken, unchecked=self._unchecked)

    def holds(self) -> bool:
        return self.verdict.broken is None

    async def take(self, entry: Mapping[str, Any], *, against_log: bool) -> None:
        leaves = self._verifier.take(entry)
        if against_log and leaves:
            await self.compare(leaves, leaves[-1].position)

    async def compare(self, leaves: Sequence[Leaf], end: int) -> None:
        """These leaves against the log up to that position, from where it was read to."""
        dropped = await self._store.dropped_runs([leaf.stream for leaf in leaves]) if self._gone and leaves else ()
        kept = [leaf for leaf in leaves if leaf.stream not in dropped]
        self._unchecked += len(leaves) - len(kept)
        self._broken = self._broken or compare(self._tenant, kept, await self._log.until(end))

    def stands(self, expected: Sequence[tuple[int, str, str]]) -> None:
        """Whether the entry just taken has the hash that is expected of its number."""
        now = self._verifier.verdict
        for number, digest, whose in expected:
            if now.broken is None and number == now.number and digest != now.head.hex():
                self._broken = self._broken or f"entry {number} is not the one that {whose} names"

    def reaches(self, expected: Sequence[tuple[int, str, str]]) -> None:
        """Whether the chain goes as far as is expected."""
        last = self._verifier.verdict.number
        for number, _, whose in expected:
            if number > last and self.holds():
                self._broken = f"the chain was cut off: {whose} names entry {number}, and the last is {last}"


class _Forward:
    """The log of one lane from its beginning, each event read once, and kept where it is the tenant's."""

    def __init__(self, store: Store, lane: int, tenant: str) -> None:
        self._store, self._lane, self._tenant = store, lane, tenant
        self._ahead: deque[Notification] = deque()
        self._after = 0

    async def until(self, end: int) -> list[Notification]:
        """What comes next, up to this position."""
        found: list[Notification] = []
        while True:
            while self._ahead and self._ahead[0].position <= end:
                found.append(self._ahead.popleft())
            if self._ahead or self._after >= end:
                return found
            stored = await self._store.read(self._lane, after=self._after, limit=1000)
            if not stored:
                return found
            self._after = stored[-1].position
            self._ahead.extend(one for one in stored if one.tenant == self._tenant)
