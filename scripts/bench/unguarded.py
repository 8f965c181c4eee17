"""The measured engine with its guardrails standing aside, so that what they cost can be told: no setting of the product
does this. What is put in their places lets everything pass and keeps the shapes, so that the same code runs around
them. A store that was written so cannot be read by the product.

Aside stand: the sealing of bodies, the redaction of what is shown and logged, the bounds on what comes in as JSON, who
may publish for whom, quotas (the append finds none to count for), turns of tenants and permissions of runs.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import orjson

import consumers.intake
import contracts.envelope
import engine.guards.quotas
import engine.logs
import engine.store.mapper
from contracts.quotas import Quotas
from engine.guards.permission_sets import PermissionSets
from engine.guards.permissions import ALL_PERMISSIONS
from engine.store.data_keys import SubjectKeys, TenantKeys

_HEAD: Final = bytes(33)
"""As much as sealing adds to a body: shorter rows would be another workload."""


def stand_aside() -> None:
    """Before the engine is assembled, once, for the rest of the process."""
    for holder, name, instead in _ASIDE:
        assert hasattr(holder, name), f"{holder} has no {name}"
        setattr(holder, name, instead)


def _sealed(keys: Any, aad: bytes, plain: bytes) -> bytes:
    keys.seals += 1
    return _HEAD + plain


def _sealed_of_a_subject(keys: Any, aad: bytes, plain: bytes) -> bytes:
    return _HEAD + plain


def _opened(keys: Any, aad: bytes, frame: bytes) -> bytes:
    return frame[len(_HEAD) :]


def _parsed(body: bytes, **bounds: int) -> Any:
    return orjson.loads(body)


async def _everything(sets: PermissionSets, name: str) -> frozenset[str]:
    return ALL_PERMISSIONS


class _OneQueue:
    """In the place of `Turns`: whoever comes first is served first."""

    def __init__(self, weight: Any = None) -> None:
        self._queue: deque[Any] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, tenant: str, item: Any) -> None:
        self._queue.append(item)

    def take_of(self, tenant: str) -> Any:
        return self._queue.popleft()

    def of(self, tenant: str) -> int:
        return len(self._queue)

    def tenants(self) -> Any:
        return iter(("",) if self._queue else ())

    def clear(self) -> None:
        self._queue.clear()


_ASIDE: Final[tuple[tuple[Any, str, Any], ...]] = (
    (TenantKeys, "seal", _sealed),
    (TenantKeys, "open", _opened),
    (SubjectKeys, "seal", _sealed_of_a_subject),
    (TenantKeys, "open_subject", _opened),
    (engine.store.mapper, "tells", lambda document: False),
    (engine.store.mapper, "_telling", lambda document: False),
    (engine.logs, "redact_text", lambda text: text),
    (contracts.envelope, "load_json", _parsed),
    (consumers.intake, "_check_publisher", lambda envelope, delivery: None),
    (consumers.intake, "check_payload", lambda *given, **field: None),
    (consumers.intake, "Turns", _OneQueue),
    (engine.guards.quotas, "FRESH", Quotas()),
    (PermissionSets, "of", _everything),
)
