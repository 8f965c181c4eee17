"""Child runs: a step that starts another run, waits for its end, and is undone by unwinding what that run did.

A child is ordered and awaited like a module's command, so it has a key, a record and a receipt like any step. Its
action is called `run:<workflow>`, the undo of it `undo-run:<workflow>`; its output is {"run_id", "output"}, which is
the receipt that the undo receives. While it waits for a child alone, a run holds no slot. Pure.
"""

from __future__ import annotations

import functools
from datetime import datetime
from hashlib import blake2b
from typing import Final
from uuid import UUID, uuid5

from contracts.calls import ActionSpec, RetryPolicy
from contracts.quotas import MOST_DEPTH

STARTS: Final = "run:"
UNDOES: Final = "undo-run:"
MAX_DEPTH: Final = MOST_DEPTH
"""How deep children of children may go."""

_SCOPES: Final = UUID("0f5dd0a3-3c9a-4d0e-8f39-6b5d6f0a8e21")


@functools.lru_cache(maxsize=1024)
def child_spec(name: str) -> ActionSpec | None:
    """The action of that name, if it is one about a child run. A child has its own limit and retries its own steps."""
    for head, undo in ((STARTS, f"{UNDOES}{name.removeprefix(STARTS)}"), (UNDOES, None)):
        if name.startswith(head) and len(name) > len(head):
            return ActionSpec(
                name=name,
                kind="command",
                undo=undo,
                timeout_seconds=0,
                retry=RetryPolicy(attempts=1),
                run=name.removeprefix(head),
            )
    return None


def child_id(parent: UUID, what: str, visit: int, attempt: int, at: datetime) -> UUID:
    """The id of the run that an attempt at `at` starts: a UUIDv7 (RFC 9562) whose random part follows from the attempt,
    so that it is the same however often it is asked for.
    """
    milliseconds = int(at.timestamp() * 1000) & (1 << 48) - 1
    drawn = int.from_bytes(blake2b(f"{parent}/{what}/{visit}/{attempt}".encode(), digest_size=10).digest())
    return UUID(int=milliseconds << 80 | 7 << 76 | (drawn >> 62 & 0xFFF) << 64 | 2 << 62 | drawn & (1 << 62) - 1)


def child_scope(key: str, attempt: int) -> str:
    """What the idempotency keys of a child begin with. It follows from its step's key, so that a rerun which does the
    step again under the same key has no effect twice; an attempt after a child that failed, and undid itself, has keys
    of its own.
    """
    return str(uuid5(_SCOPES, f"{key}#{attempt}"))
