"""What a handler is given and what it may say: the call it answers, and the errors that it raises instead of an answer.

It does nothing by itself: `contracts.sdk.handling` makes the call, runs the handler, and turns what it said into
messages. A module's developer imports all of it from `contracts.sdk`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

from contracts.envelope import Envelope
from contracts.manifest import Command, EventModel, FailureModel, Module
from contracts.sdk.database import Tx
from contracts.sdk.outbox import Outgoing

UNDO_SUFFIX: Final = "/undo"
IDS: Final = UUID("6f1a1d0e-6f2b-5c55-9f0e-6f3c0f5a7b11")
"""The namespace of every id that a module derives from what it handles, so that each delivery derives the same."""


class Retryable(Exception):
    """Raise it from a handler: nothing was done, another attempt may succeed. The transaction is rolled back, the
    command's first declared failure (or `outcome`) is answered, and nothing is remembered.
    """

    def __init__(self, code: str, message: str = "", *, outcome: FailureModel | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.outcome = outcome


class Early(Retryable):
    """Raise it from a handler when a fact that the command follows on may still be under way: for about two seconds the
    handler is asked again, after that it is a failure like any other.
    """


class PutOff(Retryable):
    """Raise it from a handler: it is not this order's turn, nothing was tried. It is sent again after `seconds`, an
    hour at most, as often as it takes: that counts for none of its attempts.
    """

    def __init__(self, code: str, message: str = "", *, seconds: float) -> None:
        super().__init__(code, message)
        self.seconds = seconds


class Refused(Exception):
    """Raise it from a handler: no attempt will ever succeed. The transaction is rolled back, the command's first
    declared irrecoverable failure (or `outcome`) is answered and remembered.
    """

    def __init__(self, code: str, message: str = "", *, outcome: FailureModel | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.outcome = outcome


class Unanswered(Exception):
    """Raise it to settle a command without an effect, an answer or a memory of it."""


class HandlerBroken(Exception):
    """A handler answered with something its command does not declare. Retrying does not help; fix the module."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One command or fact being handled. `key` never changes between deliveries: pass it to whatever honours
    idempotency keys. `receipt_known` tells an undo whether this module remembers the order it undoes.
    """

    envelope: Envelope
    module: Module
    key: str
    delivery: int = 1
    receipt_known: bool = False
    facts: list[tuple[EventModel, str | None]] = field(default_factory=list)

    @property
    def tenant(self) -> str:
        return self.envelope.tenantid

    @property
    def at(self) -> datetime:
        """When the command was given."""
        return self.envelope.time

    def publish(self, fact: EventModel, *, subject: str | None = None) -> None:
        """Sends the fact if and when this transaction commits, before the answer."""
        self.facts.append((fact, subject))

    def new_id(self, prefix: str) -> str:
        """An id for something this command makes: `usr_9f...`, the same on every delivery of it."""
        return f"{prefix}_{uuid5(IDS, f'{self.tenant}/{self.key}/{prefix}').hex[:20]}"


CommandHandler = Callable[[Any, Call, Tx], Awaitable[EventModel]]
OutsideHandler = Callable[[Any, Call], Awaitable[EventModel]]
FactHandler = Callable[[Any, Call, Tx], Awaitable[None]]
Before = Callable[[Call, Command], Awaitable[None]]
Answering = Callable[[Call, list[Outgoing]], list[Outgoing]]
