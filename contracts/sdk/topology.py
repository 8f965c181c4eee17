"""The exchanges that every participant declares alike, and the queues of one module.

The queues in which the engine collects events, the unrouted and the dead letters are the engine's own (`engine.bus`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from contracts.sdk.transport import (
    COMMANDS_EXCHANGE,
    DEAD_EXCHANGE,
    EVENTS_EXCHANGE,
    UNROUTED_EXCHANGE,
    Binding,
    Exchange,
    Queue,
    Topology,
)

EXCHANGES: Final = (
    Exchange(name=UNROUTED_EXCHANGE, kind="fanout"),
    Exchange(name=DEAD_EXCHANGE, kind="topic"),
    Exchange(name=EVENTS_EXCHANGE, kind="topic", alternate=UNROUTED_EXCHANGE),
    Exchange(name=COMMANDS_EXCHANGE, kind="topic", alternate=UNROUTED_EXCHANGE),
)

DELIVERY_LIMIT: Final = 20
"""Deliveries after which the broker itself gives a message up. The SDK gives up earlier, by its own count."""


def module_queue(module: str) -> str:
    """Where a module's commands wait, and the facts it listens to. A queue's arguments never change: other ones need
    the next version, or the broker refuses."""
    return f"{module}.commands.v1"


def query_queue(module: str) -> str:
    """Where questions to a module wait, until they expire. They are nobody's loss: the asker asks again."""
    return f"{module}.queries.v1"


def module_topology(
    module: str, *, commands: Iterable[str], queries: Iterable[str], listens_to: Iterable[str]
) -> Topology:
    """`commands`, `queries` and `listens_to` are message types."""
    orders, questions = module_queue(module), query_queue(module)
    asked = tuple(queries)
    queues = [Queue(name=orders, dead_letter_exchange=DEAD_EXCHANGE, delivery_limit=DELIVERY_LIMIT)]
    if asked:
        # No dead-letter exchange: a question that expired is no dead letter.
        queues.append(Queue(name=questions, delivery_limit=DELIVERY_LIMIT))
    return Topology(
        exchanges=EXCHANGES,
        queues=tuple(queues),
        bindings=(
            *(Binding(queue=orders, exchange=COMMANDS_EXCHANGE, key=kind) for kind in commands),
            *(Binding(queue=orders, exchange=EVENTS_EXCHANGE, key=kind) for kind in listens_to),
            *(Binding(queue=questions, exchange=COMMANDS_EXCHANGE, key=kind) for kind in asked),
        ),
    )
