"""The audit: who did what to which run, tenant or setting, in a chain that shows every later change.

    entry n   hash = SHA-256(hash of entry n-1 | leaves | what the entry says)
    leaf      position · version · stream · SHA-256 of the stored body · topic, one per event of the tenant's log

Every event of the log is a leaf; an entry is written for each event that is somebody's act or a change of state (and
after `LEAVES` others), and carries the leaves since the entry before. So a changed, removed or inserted event breaks
the chain as a changed entry does, at one row per act. Entries are never updated; their personal text is read through
the log. A chain cannot show that its tail was cut off: whoever keeps its head (`GET /v1/audit/head`) elsewhere can.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from contracts.envelope import format_time
from engine.store import Change, Notification
from projections import Batch, Decoded, clean

LEAVES: Final = 256
"""An entry is written at the latest after this many events, so that the unsealed tail of a chain stays short."""

GENESIS: Final = b"\x00" * 32

ACTS: Final = frozenset(
    {
        "run.started", "run.ended", "step.skipped", "approval.requested", "approval.decided", "approval.timed_out",
        "state.entered", "incident.opened", "incident.resolved", "compensation.started",
    }
)  # fmt: skip
"""Topics of run streams that are entries; in streams of other kinds (tenant, workflow, schedule) every event is one."""

ORDERS: Final = frozenset({"step.scheduled", "undo.scheduled"})
"""Entries when they order something of a module: a command leaves the same record from whichever workflow it comes."""

_LEAF = struct.Struct(">QI16s32sB")
_SHOWN: Final = frozenset({
    "workflow", "workflow_version", "status", "name", "previous", "step", "visit", "reason", "how", "cause", "approved",
    "incident", "role", "correlation_id", "action", "key", "kind", "endpoint", "scheme", "count",
    "outlet", "host", "types", "message_id",
    "scope", "runs", "run_ids", "known", "since", "until", "month", "events",
    "bulk", "word", "filter", "ids", "found", "told", "refused", "failed", "version",
    "root_id", "replaces", "keys", "prefix", "roles", "expires_at", "letter", "approvals_own",
    "allow", "requests", "seconds", "before", "after", "cap", "limit", "window", "user", "invitation",
    "issuer", "run_id", "same",
})  # fmt: skip
"""Fields without personal content that an entry repeats."""


class Audit:
    """View `audit`: `audit_entries`, and `audit_heads` for going on."""

    name: str = "audit"
    seed: str | None = "audit_heads_of"
    sums: bool = True
    outlives: bool = True

    def changes(self, batch: Batch, seeds: MutableMapping[str, Any]) -> list[Change]:
        entries: list[tuple[Any, ...]] = []
        touched: dict[str, Head] = {}
        pack, sha256 = _LEAF.pack, hashlib.sha256
        for event in batch.events:
            position, tenant, stream, kind, version, topic, _, said, _, body, _ = event
            head = touched.get(tenant)
            if head is None:
                head = touched[tenant] = Head.of(seeds.get(tenant))
            name = topic.encode()
            # `leaf`, written out: this line runs for every event of the log.
            head.leaves.append(pack(position, version, stream.bytes, sha256(body).digest(), len(name)) + name)
            if (
                topic in ACTS
                or kind != "run"
                or (topic in ORDERS and said.get("kind") == "command")
                or len(head.leaves) >= LEAVES
            ):
                entries.append(_entry(head, event, batch))
        for tenant, head in touched.items():
            seeds[tenant] = {"number": head.number, "hash": head.hash, "leaves": b"".join(head.leaves)}
        heads = [(tenant, head.number, head.hash, b"".join(head.leaves)) for tenant, head in sorted(touched.items())]
        changes = [Change("audit_entry_insert", entries), Change("audit_head_put", heads)]
        return [change for change in changes if change.rows]


@dataclass(slots=True)
class Head:
    """Where a tenant's chain stands: its last entry, and the leaves since."""

    number: int
    hash: bytes
    leaves: list[bytes]

    @classmethod
    def of(cls, seed: Mapping[str, Any] | None) -> Head:
        if seed is None:
            return cls(0, GENESIS, [])
        return cls(seed["number"], bytes(seed["hash"]), [raw for raw, _ in _split(bytes(seed["leaves"]))])


def leaf(position: int, version: int, stream: UUID, body: bytes, topic: str) -> bytes:
    """What the chain says about one stored event."""
    name = topic.encode()[:255]
    return _LEAF.pack(position, version, stream.bytes, hashlib.sha256(body).digest(), len(name)) + name


def _entry(head: Head, event: Decoded, batch: Batch) -> tuple[Any, ...]:
    said = event.event
    actor = said.get("by") or said.get("initiator") or "engine"
    details = {name: said[name] for name in _SHOWN & said.keys() if said[name] is not None}
    if event.kind == "run":
        started = batch.runs[event.run_id].started
        details.setdefault("workflow", started["workflow"])
        details.setdefault("correlation_id", started["correlation_id"])
        if event.topic in ORDERS:
            # Whoever set the run going is who gave the order.
            actor = started["initiator"]
    leaves = b"".join(head.leaves)
    number, stream = head.number + 1, event.run_id
    before = (event.tenant, number, event.position)
    after = (
        event.kind,
        event.version,
        event.topic,
        clean(str(actor)),
        orjson.dumps(details, option=orjson.OPT_SORT_KEYS).decode(),
        format_time(event.recorded_at),
    )
    head.hash = _digest(head.hash, leaves, (*before, str(stream), *after))
    head.number = number
    head.leaves.clear()
    return (*before, stream, *after, leaves, head.hash)


def _digest(before: bytes, leaves: bytes, row: tuple[Any, ...]) -> bytes:
    said = orjson.dumps(row)
    return hashlib.sha256(before + len(leaves).to_bytes(4, "big") + leaves + said).digest()


# ------------------------------------------------------------------------------------------------------------ verifying


class Leaf(NamedTuple):
    position: int
    version: int
    stream: UUID
    digest: bytes
    topic: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`broken` says at which entry (or position) and how; None: the chain holds, from entry 1 to `number`. `unchecked`
    counts events that the chain names and the log no longer has, because their month of the archive was dropped.
    """

    number: int
    head: bytes
    position: int
    broken: str | None = None
    unchecked: int = 0


def leaves_of(head: Head) -> list[Leaf]:
    """What came after the last entry and is in none yet."""
    return [Leaf(*parts) for raw in head.leaves for _, parts in _split(raw)]


class Verifier:
    """Walks one tenant's chain, entry by entry from the first. `leaves` collects what the log must say."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.verdict = Verdict(0, GENESIS, 0)

    def take(self, entry: Mapping[str, Any]) -> list[Leaf]:
        """Checks the next entry (a row of `audit_entries`) and answers its leaves; after a break it answers none."""
        was = self.verdict
        if was.broken is not None:
            return []
        if entry["number"] != was.number + 1:
            return self._break(f"entry {was.number + 1} is missing")
        row = (
            entry["tenant"], entry["number"], entry["position"], str(entry["stream"]), entry["kind"], entry["version"],
            entry["topic"], entry["actor"], entry["details"], entry["recorded_at"],
        )  # fmt: skip
        leaves = bytes(entry["leaves"])
        digest = _digest(was.head, leaves, row)
        if digest != bytes(entry["hash"]):
            return self._break(f"entry {entry['number']} was changed: its hash does not follow from its content")
        try:
            found = [Leaf(*parts) for _, parts in _split(leaves)]
        except (struct.error, ValueError, UnicodeDecodeError):
            return self._break(f"entry {entry['number']} has unreadable leaves")
        if not found or found[-1].position != entry["position"]:
            return self._break(f"entry {entry['number']} does not end at its own event")
        positions = [was.position, *(item.position for item in found)]
        if any(later <= earlier for earlier, later in pairwise(positions)):
            return self._break(f"entry {entry['number']} has events out of order")
        self.verdict = Verdict(entry["number"], digest, entry["position"])
        return found

    def _break(self, how: str) -> list[Leaf]:
        was = self.verdict
        self.verdict = Verdict(was.number, was.head, was.position, how)
        return []


def compare(tenant: str, leaves: Iterable[Leaf], log: Iterable[Notification]) -> str | None:
    """What the chain says against what the log holds over the same span, in position order; None when they agree."""
    said = iter(leaves)
    for stored in log:
        if stored.tenant != tenant:
            continue
        expected = next(said, None)
        if expected is None:
            return f"event {stored.position} is in the log and not in the chain"
        held = leaf(stored.position, stored.version, stored.stream, stored.body, stored.topic)
        if held != _LEAF.pack(*_packed(expected)) + expected.topic.encode():
            if expected.position < stored.position:
                return f"event {expected.position} is in the chain and not in the log"
            return f"event {stored.position} was changed after it was recorded"
    missing = next(said, None)
    return None if missing is None else f"event {missing.position} is in the chain and not in the log"


def _packed(item: Leaf) -> tuple[int, int, bytes, bytes, int]:
    return item.position, item.version, item.stream.bytes, item.digest, len(item.topic.encode())


def _split(leaves: bytes) -> Iterator[tuple[bytes, tuple[int, int, UUID, bytes, str]]]:
    at = 0
    while at < len(leaves):
        position, version, stream, digest, length = _LEAF.unpack_from(leaves, at)
        end = at + _LEAF.size + length
        if end > len(leaves):
            raise ValueError("a leaf is cut short")
        yield leaves[at:end], (position, version, UUID(bytes=stream), digest, leaves[at + _LEAF.size : end].decode())
        at = end
