"""What a step can do, as data: an action is executed with a stable key and, if it has an undo, compensated with the
receipt that do left behind.

Two kinds. A *local* action runs in the worker of the process that owns the run (HTTP, mail, a module-level Python
function). A *command* is sent to a module over the bus and answered by one of its declared outcomes; the engine only
awaits it. Both are declared as data in one `ActionSpec`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from datetime import datetime
from math import isfinite
from typing import Any, Final, Literal
from uuid import UUID

from contracts.values import value

MOST_MICROS: Final = 10**12
"""What one step may cost: a million of the platform's currency."""
PROGRESS_BYTES: Final = 64 * 1024
"""The most that one record of progress may take, as JSON."""
MOST_WAIT_SECONDS: Final = 3_600.0
"""The longest that a failure can have its next attempt wait, whatever it asks for."""


@value(kw_only=True)
class ActionCall:
    """One attempt. `key` never changes between attempts; pass it to whatever honours idempotency keys. `receipt` is
    set for undos only (None: do was ambiguous). `progress` is what this attempt, before its process died, or an earlier
    one has recorded last; None: nothing.
    """

    tenant: str
    run_id: UUID
    key: str
    action: str
    input: Mapping[str, Any]
    attempt: int
    deadline: datetime | None = None
    receipt: Any = None
    undo: bool = False
    correlation_id: str = ""
    traceparent: str | None = None
    progress: Any = None
    keep: Callable[[Any], Awaitable[None]] | None = field(default=None, compare=False, repr=False)
    """What `record` calls; None: nothing is kept."""

    async def record(self, progress: Any) -> None:
        """Keeps `progress`, JSON of at most `PROGRESS_BYTES`: it is in the run's history when this returns, and whoever
        goes on with the step finds it in `progress`. For an action that works in pieces: after each that should not be
        done again, some seconds apart rather than some milliseconds. When this attempt is no longer the one under way
        (its run was taken over, its time was up) it ends here: `asyncio.CancelledError`. Raises `ActionFailed` for what
        is no JSON or too large. Of an undo, and under a `Simulation`, nothing is kept.
        """
        if self.keep is not None:
            await self.keep(progress)


@value()
class Costed:
    """What an action answers whose effect has a price: its receipt, and what it cost in the platform's currency. Raises
    `ValueError` for what is no amount.
    """

    output: Any
    cost: float

    def __post_init__(self) -> None:
        if not (isfinite(self.cost) and self.cost >= 0):
            raise ValueError(f"a cost is an amount of the platform's currency, at least 0, not {self.cost}")


def cost_micros(cost: float) -> int:
    """A cost in millionths of the platform's currency, within what a sum over millions of steps can hold."""
    return max(-MOST_MICROS, min(MOST_MICROS, round(cost * 1_000_000)))


Perform = Callable[[ActionCall], Any | Awaitable[Any]]
"""A module-level function: plain (quick, runs in the loop) or async. Answers a JSON-native receipt, or `Costed`; raises
`ActionFailed` to say how it failed.
"""


@value()
class Fate:
    """What became of an attempt that nobody had heard of again. `receipt` is what it left behind, if it happened."""

    happened: bool
    receipt: Any = None


Find = Callable[[ActionCall], Fate | Awaitable[Fate]]
"""A module-level function that looks whether the effect under the call's `key` happened. Raises when it cannot tell."""


@value(kw_only=True)
class RetryPolicy:
    """Attempts in all, first delay, growth, ceiling and jitter (share of the delay, spread deterministically by key).
    Units in the names.
    """

    attempts: int = 3
    delay_seconds: float = 1.0
    factor: float = 2.0
    max_delay_seconds: float = 300.0
    jitter: float = 0.1


@value(kw_only=True)
class ActionSpec:
    """An action as data. `ambiguous` says how an attempt of unknown fate is closed: tombstone (its undo also refuses a
    late do), query (ask whether it happened: commands name their `query`, local actions bring `find`), or park.
    """

    name: str
    kind: Literal["local", "command"]
    perform: Perform | None = None
    undo: str | None = None
    """Name of the action that undoes this one by default."""
    timeout_seconds: float = 30.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    ambiguous: Literal["tombstone", "query", "park"] = "tombstone"
    coverage: Literal["compensatable", "retriable", "pivot"] = "compensatable"
    check: Callable[[Any], object] | None = field(default=None, compare=False, repr=False)
    """Reads an input as whoever carries the action out will; raises `PayloadInvalid` naming the field. Pure. None: no
    model is declared.
    """
    input_marks: tuple[str, ...] = ()
    """Patterns (`contracts.pointers`, `*` is every element) of personal values in the input, from the input's root."""
    output_marks: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    """Commands: every declared outcome event type."""
    success: str | None = None
    """Commands: which outcome means success; its data is the step's output."""
    cost: str | None = None
    """Commands: where in that data it says what it has cost (a JSON pointer), in the platform's currency."""
    command: str | None = None
    """Commands: the wire type, `identity.CreateUserV1`, which is also the routing key."""
    irrecoverable: tuple[str, ...] = ()
    """Commands: the outcomes after which no attempt can succeed; retries and parking are skipped."""
    permission: str | None = None
    query: str | None = None
    """Commands closed by a query: its wire type, `billing.FindChargeV1`."""
    run: str | None = None
    """Child runs: the workflow whose run is started, or unwound."""
    find: Find | None = None
    """Local actions closed by a query: the function that looks."""

    @property
    def lacks(self) -> str | None:
        """What is missing for `ambiguous="query"`, in words for whoever declares the action; None: nothing."""
        if self.ambiguous != "query":
            return None
        if self.kind == "command":
            return None if self.query is not None else "a query that its module declares (Command(..., query=...))"
        return None if self.find is not None else "a function that looks (find=...)"


class ActionFailed(Exception):
    """How an attempt failed. `retryable` False stops retrying at once; `irrecoverable` also skips parking and unwinds;
    `ambiguous`: it may have happened.

    `retry_after_seconds`: the other side asks not to be called again before. `put_off_seconds`: nothing was tried
    because it was not its turn; the attempt counts for nothing, and the next one comes after so long. Of either no more
    than `MOST_WAIT_SECONDS` is waited.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = True,
        ambiguous: bool = False,
        irrecoverable: bool = False,
        retry_after_seconds: float | None = None,
        put_off_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.ambiguous = ambiguous
        self.irrecoverable = irrecoverable
        self.retry_after_seconds = retry_after_seconds
        self.put_off_seconds = put_off_seconds

    @property
    def error(self) -> dict[str, Any]:
        """As the run records it."""
        return {"code": self.code, "message": self.message} | waits(self.retry_after_seconds, self.put_off_seconds)


def waits(retry_after_seconds: float | None = None, put_off_seconds: float | None = None) -> dict[str, float]:
    """The part of a recorded error that says how long to wait; empty where nobody said."""
    said = {"retry_after_seconds": retry_after_seconds, "put_off_seconds": put_off_seconds}
    return {name: seconds for name, seconds in said.items() if seconds is not None}
