"""A run's folded state as a sealed value, so that a cold load reads a snapshot and the tail of the log instead of the
whole of it.

    freeze(state) -> bytes -> sealed -> beside the log, in the commit that reaches the version -> thaw -> the same state

A snapshot is a copy and never the truth: one of another format, one that cannot be opened (a dropped key, a changed
byte) and one that does not fit its stream are passed over, and the log is folded from its first event. What is personal
is under the data subject's key, as in the log. Called by the coordinator.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, Generic, TypeVar, get_type_hints
from uuid import UUID

import orjson

from contracts.codec import instant
from contracts.problems import Problem, Unavailable
from engine.logs import logger
from engine.run.evolve import fold
from engine.run.state import Completion, Incident, Inherited, RunState, Step, Wait
from engine.store import Store, Stored
from engine.store.data_keys import Erased, KeysNotLoaded, SubjectKeys, TenantKeys
from engine.store.keys import Vault
from engine.store.mapper import Mapper, open_blob, seal_blob

_log = logger("snapshots")

SNAPSHOT_EVERY: Final = 200
"""Events of a run between two snapshots of it."""

FOLD: Final = 1
"""Raise it when the same events fold to another state although its shape has stayed the same."""

_PARTS: Final = (RunState, Step, Wait, Completion, Incident, Inherited)


def _format() -> str:
    """Named after the fold and after every field there is: a state of another shape has another format."""
    shape = [[cls.__name__, [[field.name, str(field.type)] for field in dataclasses.fields(cls)]] for cls in _PARTS]
    return f"{FOLD}.{blake2b(orjson.dumps(shape), digest_size=8).hexdigest()}"


FORMAT: Final = _format()

PartT = TypeVar("PartT")


@dataclass(frozen=True, slots=True)
class Tail:
    """What was read of one run: its snapshot, if it has one, and the events after it."""

    snapshot: tuple[int, bytes] | None
    stored: list[Stored]


async def read_tails(store: Store, runs: Sequence[tuple[str, UUID]]) -> dict[UUID, Tail]:
    """Reads cold runs, by tenant and id."""
    known = await store.snapshots_of(runs)
    tails = {
        run_id: Tail(known[run_id], await store.load(tenant, run_id, after=known[run_id][0]))
        for tenant, run_id in runs
        if run_id in known
    }
    whole = await store.load_many([run for run in runs if run[1] not in known])
    return tails | {run_id: Tail(None, stored) for run_id, stored in whole.items()}


async def fold_up(
    store: Store, vault: Vault, mapper: Mapper, tenant: str, run_id: UUID, tail: Tail
) -> tuple[TenantKeys, RunState, list[Stored]]:
    """The run as its log has it, the keys that opened it, and the events that were folded: those after the snapshot,
    or, without one of any use, all of them.
    """
    stored = tail.stored
    state: RunState | None = None
    if tail.snapshot is not None:
        version, body = tail.snapshot
        try:
            state = open_sealed(await vault.ready(tenant, [body]), tenant, run_id, version, body)
        except (Problem, ValueError, IndexError, struct.error) as broken:
            if isinstance(broken, Unavailable) and not isinstance(broken, KeysNotLoaded):
                raise
        if state is None:
            _log.info("snapshot_passed_over", tenant_id=tenant, run_id=run_id, version=version)
            stored = await store.load(tenant, run_id)
    keys = await vault.ready(tenant, [one.body for one in stored])
    return keys, fold(state or RunState(run_id, tenant), mapper.decode_all(keys, run_id, stored)), stored


def is_due(before: RunState, after: RunState, every: int) -> bool:
    """Whether the commit from `before` to `after` carries a snapshot. An ended run needs none."""
    return every > 0 and after.ended is None and after.version // every > before.version // every


def seal(keys: TenantKeys, subject: SubjectKeys | None, state: RunState) -> bytes:
    """The state for `Commit.snapshot`."""
    return seal_blob(keys, "snapshot", _ident(state.run_id, state.version), freeze(state), subject)


def open_sealed(keys: TenantKeys, tenant: str, run_id: UUID, version: int, body: bytes) -> RunState | None:
    """The state at `version`; None when the snapshot is of no use here. Raises `SealBroken` when it was changed."""
    plain = open_blob(keys, "snapshot", _ident(run_id, version), body)
    if isinstance(plain, Erased):
        return None
    state = thaw(plain)
    return (
        state
        if state is not None and (state.run_id, state.tenant, state.version) == (run_id, tenant, version)
        else None
    )


def _ident(run_id: UUID, version: int) -> str:
    return f"{run_id}/{version}"


# ----------------------------------------------------------------------------------------------------- state and bytes


def freeze(state: RunState) -> bytes:
    document = {name: getattr(state, name) for name in _RUN.names}
    document |= {
        "run_id": str(state.run_id),
        "allowed": None if state.allowed is None else state.allowed // timedelta(microseconds=1),
        "steps": [_STEP.document(step) for step in (state.steps or {}).values()],
        "waits": [_WAIT.document(wait) for wait in (state.waits or {}).values()],
        "recorded": [[*key, *what] for key, what in (state.recorded or {}).items()],
        "completions": [_COMPLETION.document(one) for one in state.completions or ()],
        "incidents": [_INCIDENT.document(one) for one in (state.incidents or {}).values()],
        "inherited": None
        if state.inherited is None
        else [_INHERITED.document(one) for one in state.inherited.values()],
        "personal": sorted(state.personal),
    }
    return orjson.dumps({"format": FORMAT, "state": document}, option=orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z)


def thaw(plain: bytes) -> RunState | None:
    """None for another format, or what is no snapshot at all."""
    try:
        found = orjson.loads(plain)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            return None
        document: dict[str, Any] = found["state"]
        steps = [_STEP.build(one) for one in document["steps"]]
        waits = [_wait(one) for one in document["waits"]]
        incidents = [_INCIDENT.build(one) for one in document["incidents"]]
        inherited = None if document["inherited"] is None else map(_INHERITED.build, document["inherited"])
        document |= {
            "run_id": UUID(document["run_id"]),
            "allowed": None if document["allowed"] is None else timedelta(microseconds=document["allowed"]),
            "steps": {(step.name, step.visit): step for step in steps},
            "waits": {(wait.name, wait.visit): wait for wait in waits},
            "recorded": {
                (name, visit): (kind, what, digest) for name, visit, kind, what, digest in document["recorded"]
            },
            "completions": [_COMPLETION.build(one) for one in document["completions"]],
            "incidents": {incident.id: incident for incident in incidents},
            "inherited": None if inherited is None else {(one.name, one.visit): one for one in inherited},
            "personal": frozenset(document["personal"]),
        }
        return _RUN.build(document)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


def _wait(document: dict[str, Any]) -> Wait:
    wait = _WAIT.build(document)
    if "look_back" in wait.asked:
        wait.asked = {**wait.asked, "look_back": instant(wait.asked["look_back"])}
    return wait


class _Part(Generic[PartT]):
    """One dataclass as a JSON document and back: instants and tuples are restored, all else is JSON already."""

    def __init__(self, cls: type[PartT]) -> None:
        self._cls = cls
        hints = get_type_hints(cls)
        self.names = tuple(field.name for field in dataclasses.fields(cls))  # type: ignore[arg-type]
        self._restore: Mapping[str, Callable[[Any], Any]] = {
            name: restore for name in self.names if (restore := _restore_for(hints[name])) is not None
        }

    def document(self, part: PartT) -> dict[str, Any]:
        return {name: getattr(part, name) for name in self.names}

    def build(self, document: dict[str, Any]) -> PartT:
        for name, restore in self._restore.items():
            value = document[name]
            if type(value) is str or type(value) is list:
                document[name] = restore(value)
        return self._cls(*[document[name] for name in self.names])


def _restore_for(hint: Any) -> Callable[[Any], Any] | None:
    if hint in (datetime, datetime | None):
        return instant
    return tuple if hint == tuple[str, ...] else None


_RUN: Final = _Part(RunState)
_STEP: Final = _Part(Step)
_WAIT: Final = _Part(Wait)
_COMPLETION: Final = _Part(Completion)
_INCIDENT: Final = _Part(Incident)
_INHERITED: Final = _Part(Inherited)
