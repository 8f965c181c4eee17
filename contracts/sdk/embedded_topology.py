"""What a declaration adds to the topology of an embedded bus, checked whole before anything is written.

On plain values: `contracts.sdk.embedded_file` reads the topology that is there and writes what is new. It refuses what
RabbitMQ refuses: an exchange or a queue that is there under that name and differs, and references to what is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.sdk.transport import Binding, Exchange, Queue, Topology, TopologyMismatch


@dataclass(frozen=True, slots=True)
class StoredQueue:
    """A queue and its row; `session` is whose reply queue it is, None: everybody's."""

    id: int
    queue: Queue
    session: int | None


def additions(
    topology: Topology, present: Mapping[str, Exchange], stored_queues: Mapping[str, StoredQueue], session: int
) -> tuple[list[Exchange], list[Queue]]:
    """The exchanges and queues that are new. Raises `TopologyMismatch`."""
    exchanges = dict(present)
    new_exchanges = []
    for exchange in topology.exchanges:
        if exchange.name not in exchanges:
            exchanges[exchange.name] = exchange
            new_exchanges.append(exchange)
        _check_exchange(exchange, exchanges[exchange.name])
    queues = {name: stored.queue for name, stored in stored_queues.items()}
    new_queues = []
    for queue in topology.queues:
        if queue.name not in queues:
            queues[queue.name] = queue
            new_queues.append(queue)
        stored = stored_queues.get(queue.name)
        if stored is not None and stored.session not in (None, session):
            raise TopologyMismatch(
                f"queue {queue.name} is the reply queue of another process; choose a name of your own",
                field=queue.name,
            )
        _check_queue(queue, queues[queue.name])
        if queue.dead_letter_exchange is not None and queue.dead_letter_exchange not in exchanges:
            raise TopologyMismatch(
                f"queue {queue.name} names the dead-letter exchange {queue.dead_letter_exchange}, "
                "which does not exist; declare it in the same topology",
                field=queue.name,
            )
    for binding in topology.bindings:
        _check_binding(binding, queues, exchanges)
    return new_exchanges, new_queues


def _check_exchange(wanted: Exchange, present: Exchange) -> None:
    if present != wanted:
        raise TopologyMismatch(
            f"exchange {wanted.name} exists as {present.kind} with alternate {present.alternate}, declared was "
            f"{wanted.kind} with {wanted.alternate}; declare it as it is, or under a new name",
            field=wanted.name,
        )


def _check_queue(wanted: Queue, present: Queue) -> None:
    if present != wanted:
        differing = [
            f"{name}={getattr(present, name)!r}"
            for name in ("dead_letter_exchange", "dead_letter_key", "delivery_limit", "transient", "max_length")
            if getattr(present, name) != getattr(wanted, name)
        ]
        raise TopologyMismatch(
            f"queue {wanted.name} exists with {', '.join(differing)}; declare it under its next version "
            "(name.v2), drain the old one, then delete it",
            field=wanted.name,
        )


def _check_binding(binding: Binding, queues: Mapping[str, Queue], exchanges: Mapping[str, Exchange]) -> None:
    for kind, name, known in (("queue", binding.queue, queues), ("exchange", binding.exchange, exchanges)):
        if name not in known:
            raise TopologyMismatch(
                f"binding {binding.key} of queue {binding.queue} names {kind} {name}, "
                "which does not exist; declare it first",
                field=name,
            )
