"""Declaring exchanges, queues and bindings on RabbitMQ, and remembering them for the next connection.

Every durable queue is a quorum queue with an explicit delivery limit (3.10 has none by itself, 4.x has 20) and, when
it has a dead-letter exchange, dead-letters at least once: the strategy alone silently falls back to at most once, so
`reject-publish` goes with it. Called by `contracts.sdk.rabbit`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from contracts.problems import Forbidden
from contracts.sdk.rabbit_link import Link
from contracts.sdk.transport import Binding, Difference, Exchange, Queue, Topology, TopologyMismatch

log = logging.getLogger(__name__)

_CALL_SECONDS = 10.0


class Known:
    """What this transport has declared, and which other exchanges it has seen to exist."""

    def __init__(self) -> None:
        self._exchanges: dict[str, Exchange] = {}
        self._queues: dict[str, Queue] = {}
        self._bindings: dict[Binding, None] = {}
        self._seen: set[str] = {""}

    @property
    def exchanges(self) -> set[str]:
        """Safe to publish to: sending to an exchange that does not exist ends the channel and all that is in flight on
        it."""
        return self._seen

    def remember(self, topology: Topology) -> None:
        self._exchanges.update((exchange.name, exchange) for exchange in topology.exchanges)
        self._queues.update((queue.name, queue) for queue in topology.queues)
        self._bindings.update(dict.fromkeys(topology.bindings))
        self._seen.update(exchange.name for exchange in topology.exchanges)

    def doubt(self) -> None:
        """The broker has just refused a channel: what exists must be seen again."""
        self._seen.clear()
        self._seen.add("")

    @property
    def topology(self) -> Topology:
        return Topology(
            exchanges=tuple(self._exchanges.values()),
            queues=tuple(self._queues.values()),
            bindings=tuple(self._bindings),
        )

    def clear(self) -> None:
        self.__init__()  # type: ignore[misc]


async def declare(link: Link, topology: Topology, *, seen: Iterable[str] = (), again: bool = False) -> None:
    """Raises `TopologyMismatch` naming what differs, `Forbidden` when the user may not, or a connection error.
    `again`: after a reconnect, when a reply queue may for a moment still be held by the connection that was lost."""
    channel = await link.channel(confirms=False)
    try:
        present = {exchange.name for exchange in topology.exchanges} | set(seen)
        for exchange in topology.exchanges:
            await _declare_exchange(channel, exchange)
        for queue in topology.queues:
            if queue.dead_letter_exchange is not None and queue.dead_letter_exchange not in present:
                await _check_dead_letter_exchange(channel, queue)
            await _declare_queue(channel, queue, again=again)
        for binding in topology.bindings:
            await _bind(channel, binding)
    finally:
        await channel.close()


async def compare(link: Link, topology: Topology) -> Difference:
    """Each thing is first asked for by name. What is there is declared as wanted: the broker answers whether it is
    equal, and changes nothing either way. Raises `Forbidden` or a connection error."""
    adds: list[str] = []
    conflicts: list[str] = []
    everything: tuple[Exchange | Queue, ...] = (*topology.exchanges, *topology.queues)
    for wanted in everything:
        kind = "exchange" if isinstance(wanted, Exchange) else "queue"
        channel = await link.channel(confirms=False)  # one refusal closes it
        try:
            if isinstance(wanted, Exchange):
                await channel.declare_exchange(wanted.name, passive=True, timeout=_CALL_SECONDS)
                await _declare_exchange(channel, wanted)
            else:
                await channel.declare_queue(wanted.name, passive=True, timeout=_CALL_SECONDS)
                await _declare_queue(channel, wanted, again=False)
        except ChannelNotFoundEntity:
            adds.append(f"{kind} {wanted.name}")
        except TopologyMismatch as problem:
            conflicts.append(problem.detail)
        finally:
            await channel.close()
    return Difference(adds=tuple(adds), conflicts=tuple(conflicts))


async def exists(link: Link, exchange: str) -> bool:
    """Whether an exchange of that name is there."""
    channel = await link.channel(confirms=False)
    try:
        await channel.declare_exchange(exchange, passive=True, timeout=_CALL_SECONDS)
        return True
    except ChannelNotFoundEntity:
        return False
    finally:
        await channel.close()


def arguments(queue: Queue) -> dict[str, Any]:
    """The `x-` arguments of a durable queue."""
    found: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": queue.delivery_limit}
    if queue.dead_letter_exchange is not None:
        found["x-dead-letter-exchange"] = queue.dead_letter_exchange
        found["x-dead-letter-strategy"] = "at-least-once"
        found["x-overflow"] = "reject-publish"
        if queue.dead_letter_key is not None:
            found["x-dead-letter-routing-key"] = queue.dead_letter_key
    if queue.max_length is not None:
        found["x-max-length"] = queue.max_length
        found["x-overflow"] = "reject-publish"
    return found


async def _declare_exchange(channel: AbstractChannel, exchange: Exchange) -> None:
    try:
        await channel.declare_exchange(
            exchange.name,
            aio_pika.ExchangeType(exchange.kind),
            durable=True,
            arguments={"alternate-exchange": exchange.alternate} if exchange.alternate is not None else None,
            timeout=_CALL_SECONDS,
        )
    except ChannelPreconditionFailed as error:
        raise TopologyMismatch(
            f"exchange {exchange.name} exists with other arguments ({error}); declare it as it is, or under a new name",
            field=exchange.name,
        ) from error
    except ChannelAccessRefused as error:
        raise _forbidden("exchange", exchange.name, error) from error


async def _check_dead_letter_exchange(channel: AbstractChannel, queue: Queue) -> None:
    # A queue may name an exchange that is not there; its dead letters would then have nowhere to go.
    name = queue.dead_letter_exchange or ""
    try:
        await channel.declare_exchange(name, passive=True, timeout=_CALL_SECONDS)
    except ChannelNotFoundEntity as error:
        raise TopologyMismatch(
            f"queue {queue.name} names the dead-letter exchange {name}, "
            "which does not exist; declare it in the same topology",
            field=queue.name,
        ) from error


async def _declare_queue(channel: AbstractChannel, queue: Queue, *, again: bool) -> None:
    try:
        await channel.declare_queue(
            queue.name,
            durable=not queue.transient,
            exclusive=queue.transient,
            auto_delete=False,
            arguments=None if queue.transient else arguments(queue),
            timeout=_CALL_SECONDS,
        )
    except ChannelPreconditionFailed as error:
        raise TopologyMismatch(
            f"queue {queue.name} exists with other arguments ({error}); declare it under its next version (name.v2), "
            "drain the old one, then delete it",
            field=queue.name,
        ) from error
    except ChannelLockedResource as error:
        if again:
            raise
        raise TopologyMismatch(
            f"queue {queue.name} is the reply queue of another connection; choose a name of your own", field=queue.name
        ) from error
    except ChannelAccessRefused as error:
        raise _forbidden("queue", queue.name, error) from error


async def _bind(channel: AbstractChannel, binding: Binding) -> None:
    underlay = await channel.get_underlay_channel()
    try:
        await underlay.queue_bind(binding.queue, binding.exchange, binding.key, timeout=_CALL_SECONDS)
    except ChannelNotFoundEntity as error:
        raise TopologyMismatch(
            f"binding {binding.key} of queue {binding.queue} to {binding.exchange} stands on something "
            f"that does not exist ({error}); declare it first",
            field=binding.queue,
        ) from error
    except ChannelAccessRefused as error:
        raise _forbidden("binding", f"{binding.queue} to {binding.exchange}", error) from error


def _forbidden(kind: str, name: str, error: BaseException) -> Forbidden:
    return Forbidden(
        f"the broker's user may not declare {kind} {name} ({error}); grant it, or let the engine declare it", field=name
    )
