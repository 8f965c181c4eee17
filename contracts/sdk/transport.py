"""The one wire client, as a protocol: what the SDK and the engine ask of a bus, whichever bus it is.

Two implementations keep the same promises and pass one conformance suite: `contracts.sdk.rabbit` (RabbitMQ 3.10 to 4.x
through aio-pika) and `contracts.sdk.embedded` (a durable bus in one SQLite file). A delivery is settled by hand, never
by leaving a block; a confirmed message is never lost; an unconfirmed one is *unknown* and is sent again under the same
event id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from enum import Enum
from typing import Any, ClassVar, Literal, Protocol
from urllib.parse import unquote

from contracts.problems import Problem
from contracts.values import value

EVENTS_EXCHANGE = "unwind.events"
COMMANDS_EXCHANGE = "unwind.commands"
UNROUTED_EXCHANGE = "unwind.unrouted"
DEAD_EXCHANGE = "unwind.dead"


class TopologyMismatch(Problem):
    """The bus holds something of this name with other arguments, or lacks something the topology stands on. Trying
    again does not help."""

    code: ClassVar[str] = "topology_mismatch"
    title: ClassVar[str] = "The bus and the declared topology disagree"
    status: ClassVar[int] = 409
    exit_code: ClassVar[int] = 4


@value(kw_only=True)
class Exchange:
    name: str
    kind: Literal["topic", "fanout", "direct"] = "topic"
    alternate: str | None = None


@value(kw_only=True)
class Queue:
    """A durable quorum queue with an explicit delivery limit and at-least-once dead-lettering, or, when `transient`,
    an exclusive reply queue."""

    name: str
    dead_letter_exchange: str | None = None
    dead_letter_key: str | None = None
    delivery_limit: int = 20
    transient: bool = False
    max_length: int | None = None


@value(kw_only=True)
class Binding:
    queue: str
    exchange: str
    key: str
    """A topic pattern: words split by dots, `*` one word, `#` any number."""


@value(kw_only=True)
class Topology:
    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()


@value()
class Message:
    """One message to send. The transport gives each send a fresh AMQP message_id of its own; the envelope's id travels
    in the body (`RabbitMQ` matches returned messages by message_id, so two sends in flight must never share one)."""

    exchange: str
    routing_key: str
    body: bytes
    headers: Mapping[str, Any] = field(default_factory=dict)
    content_type: str = "application/cloudevents+json"
    persistent: bool = True
    mandatory: bool = True
    expiration_seconds: float | None = None
    reply_to: str | None = None
    correlation_id: str | None = None


class Published(Enum):
    """What became of one send. Only CONFIRMED may be forgotten by the sender."""

    CONFIRMED = "confirmed"
    UNROUTABLE = "unroutable"
    """No queue is bound for it (mandatory messages only): nothing was stored."""
    REFUSED = "refused"
    """The broker answered nack (a length limit, for example): try later."""
    UNKNOWN = "unknown"
    """Connection lost, timed out or blocked: it may or may not have arrived; send again."""


@value()
class Delivery:
    """One received message. `tag` is meaningful only to the consumer that received it and only while its channel
    lives."""

    tag: int
    body: bytes
    headers: Mapping[str, Any]
    exchange: str
    routing_key: str
    redelivered: bool = False
    delivery_count: int = 0
    user_id: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    content_type: str | None = None


@value(kw_only=True)
class Difference:
    """What a declaration would find: names such as `queue unwind.intake.v1`."""

    adds: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    """What stands in the way, each with its reason and remedy."""


class Consumer(Protocol):
    """A running subscription. Settling an old delivery after a reconnect is a normal case: it is ignored, the broker
    sends the message again."""

    @property
    def alive(self) -> bool: ...

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Settles these; contiguous tags travel as one multiple ack. Does not wait."""

    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        """Gives it back, or with `requeue=False` to the queue's dead-letter exchange."""

    async def stop(self) -> None:
        """Takes no more deliveries; unsettled ones return to the queue when the channel closes. Twice is fine."""


class Transport(Protocol):
    """A connection that heals itself. `start` raises `Unavailable` when the bus cannot be reached within its deadline;
    later losses only make `ready` false."""

    @property
    def ready(self) -> bool: ...

    @property
    def blocked(self) -> bool:
        """True while the broker asks publishers to pause (a memory or disk alarm)."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def declare(self, topology: Topology) -> None:
        """Idempotent. Raises `TopologyMismatch` when something of that name exists with other arguments."""

    async def compare(self, topology: Topology) -> Difference:
        """What `declare` would add and what it would refuse; changes nothing. Bindings are compared where the bus can
        be asked for them: a broker cannot."""

    async def publish(self, messages: Sequence[Message], *, deadline_seconds: float = 5.0) -> list[Published]:
        """Sends all, pipelined, and waits for every confirm; never raises for a message's fate, the answer says it, in
        order."""

    async def consume(self, queue: str, on_delivery: Callable[[Delivery], None], *, prefetch: int) -> Consumer:
        """Calls `on_delivery` synchronously for each message, at most `prefetch` unsettled. Survives reconnects. The
        callback must not block and must not raise."""


def open_transport(url: str, *, name: str = "unwind") -> Transport:
    """The transport a URL names, not yet started: `amqp://` and `amqps://` are RabbitMQ,
    `embedded:///var/lib/unwind/bus.db` is a bus in that file.

    `name` is what the broker's management page and the logs call this connection.
    """
    scheme, _, rest = url.partition("://")
    if scheme in ("amqp", "amqps"):
        from contracts.sdk.rabbit import RabbitTransport  # an embedded bus needs no AMQP client loaded

        return RabbitTransport(url, name=name)
    if scheme == "embedded" and rest.startswith("/") and len(rest) > 1:
        from contracts.sdk.embedded import EmbeddedTransport

        return EmbeddedTransport(unquote(rest), name=name)
    raise ValueError(
        "the bus URL must be amqp://user:password@host:port/vhost, amqps://... or embedded:///absolute/path"
    )
