"""The two hot lanes of a RabbitMQ channel: one that publishes in a window of confirms, one that receives and settles.

A lane lives exactly as long as its channel. It runs in the callbacks of the socket, without tasks: a confirm resolves
its sender's batch, a delivery calls its handler. When the channel dies the publishing lane answers *unknown* for all
that is in flight, and the receiving lane's tags die with it. Called by `contracts.sdk.rabbit`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress

from contracts.sdk import rabbit_wire as wire
from contracts.sdk.rabbit_link import SplitProtocol
from contracts.sdk.transport import Delivery, Message, Published

log = logging.getLogger(__name__)

_WINDOW_BYTES = 8 * 1024 * 1024
_CHUNK = 256
_CACHED_FRAMES = 4096

Prepared = tuple[bytes, int, bytes, bytes]
"""Publish frame, property flags, properties before the message id, body."""


class _Content:
    """Puts a method, its header and its body frames together again."""

    __slots__ = ("_body", "_chunks", "_method", "_missing", "_properties")

    def __init__(self) -> None:
        self._method: bytes | None = None
        self._properties: wire.Properties | None = None
        self._missing = 0
        self._chunks: list[bytes] = []

    def begin(self, method: bytes) -> None:
        self._method, self._properties, self._chunks = method, None, []

    def add(self, kind: int, data: bytes, at: int, size: int) -> tuple[bytes, wire.Properties, bytes] | None:
        """Everything, once it is complete."""
        if kind == wire.HEADER:
            self._missing = wire.read_body_size(data, at)
            self._properties = wire.read_properties(data, at)
        else:
            self._chunks.append(bytes(data[at : at + size]))
            self._missing -= size
        if self._missing > 0:
            return None
        method, properties, self._method = self._method, self._properties, None
        if method is None or properties is None:
            return None
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        return method, properties, body


class _Batch:
    """The messages of one publish call that are on their way."""

    __slots__ = ("done", "fates", "left")

    def __init__(self, size: int, loop: asyncio.AbstractEventLoop) -> None:
        self.fates: list[Published | None] = [None] * size
        self.left = size
        self.done: asyncio.Future[None] = loop.create_future()

    def settle(self, place: int, fate: Published) -> None:
        if self.fates[place] is None:
            self.fates[place] = fate
        self.left -= 1
        if self.left == 0 and not self.done.done():
            self.done.set_result(None)

    def give_up(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def answers(self) -> list[Published]:
        return [fate or Published.UNKNOWN for fate in self.fates]


class PublishLane:
    """One channel with publisher confirms. At most `window` messages are unconfirmed; one sender at a time fills it."""

    def __init__(
        self, protocol: SplitProtocol, channel: int, *, frame_max: int, window: int, user_id: str | None
    ) -> None:
        self._protocol, self._channel = protocol, channel
        self._max_body = frame_max - 8
        self._window = window
        self._user_id = wire.short_string(user_id, "user_id") if user_id else b""
        # Returned messages are matched by message id: a mark of this channel and the confirm's own number make each id
        # unique for ever and need no second table.
        self._mark = secrets.token_hex(8)
        self._tag = 0
        self._lowest = 1
        self._pending: dict[int, tuple[_Batch, int, int]] = {}
        self._pending_bytes = 0
        self._room = asyncio.Event()
        self._sending = asyncio.Lock()
        self._content = _Content()
        self._publish_frames: dict[tuple[str, str, bool], bytes] = {}
        self._closed = False

    # -- sending -------------------------------------------------------------------------------------------------------

    def prepare(self, message: Message) -> Prepared:
        """Everything but the message id, as bytes. Raises ValueError for what AMQP cannot carry."""
        key = (message.exchange, message.routing_key, message.mandatory)
        frame = self._publish_frames.get(key)
        if frame is None:
            if len(self._publish_frames) >= _CACHED_FRAMES:
                self._publish_frames.clear()
            frame = self._publish_frames[key] = wire.publish_frame(
                self._channel, message.exchange, message.routing_key, mandatory=message.mandatory
            )
        flags, before_id = wire.properties_before_id(
            content_type=message.content_type,
            headers=message.headers,
            persistent=message.persistent,
            correlation_id=message.correlation_id,
            reply_to=message.reply_to,
            expiration_seconds=message.expiration_seconds,
        )
        return frame, flags, before_id, message.body

    async def publish(self, messages: Sequence[Prepared], deadline_seconds: float) -> list[Published]:
        batch = _Batch(len(messages), asyncio.get_running_loop())
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_seconds):
                async with self._sending:
                    await self._send(batch, messages)
                await batch.done
        return batch.answers()

    async def _send(self, batch: _Batch, messages: Sequence[Prepared]) -> None:
        place = 0
        while place < len(messages) and not batch.done.done():
            if self._closed or not self._protocol.open:
                batch.give_up()
                return
            room = min(self._window - len(self._pending), _CHUNK)
            if room <= 0 or self._pending_bytes > _WINDOW_BYTES:
                self._room.clear()
                await self._room.wait()
                continue
            frames: list[bytes] = []
            end = min(place + room, len(messages))
            while place < end and self._pending_bytes <= _WINDOW_BYTES:
                frame, flags, before_id, body = messages[place]
                self._tag += 1
                self._pending[self._tag] = (batch, place, len(body))
                self._pending_bytes += len(body)
                frames.append(frame)
                message_id = f"{self._mark}{self._tag:x}".encode()
                frames += wire.content_frames(
                    self._channel, flags, before_id, message_id, self._user_id, body, self._max_body
                )
                place += 1
            self._protocol.write(b"".join(frames))
            await self._protocol.drain()

    # -- answers -------------------------------------------------------------------------------------------------------

    def take(self, kind: int, data: bytes, at: int, size: int) -> bool:
        if kind == wire.METHOD:
            (method,) = wire.NUMBER.unpack_from(data, at)
            if method == wire.ACK or method == wire.NACK:
                (tag,) = wire.TAG.unpack_from(data, at + 4)
                fate = Published.CONFIRMED if method == wire.ACK else Published.REFUSED
                self._confirmed(tag, bool(data[at + 12] & 1), fate)
                return True
            if method == wire.RETURN:
                self._content.begin(b"")
                return True
            return False
        if kind == wire.HEADER or kind == wire.BODY:
            returned = self._content.add(kind, data, at, size)
            if returned is not None:
                self._returned(returned[1].message_id)
            return True
        return False

    def _confirmed(self, tag: int, multiple: bool, fate: Published) -> None:
        for number in range(self._lowest, tag + 1) if multiple else (tag,):
            entry = self._pending.pop(number, None)
            if entry is not None:
                batch, place, size = entry
                self._pending_bytes -= size
                batch.settle(place, fate)
        if multiple:
            self._lowest = tag + 1
        elif tag == self._lowest:
            self._lowest += 1
        self._room.set()

    def _returned(self, message_id: str | None) -> None:
        """The broker says a return before the confirm of the same message, which then only closes the entry."""
        if message_id is None or not message_id.startswith(self._mark):
            log.error("a message came back that this channel did not send")
            return
        entry = self._pending.get(int(message_id[len(self._mark) :], 16))
        if entry is not None:
            batch, place, _ = entry
            batch.fates[place] = Published.UNROUTABLE

    def give_up(self) -> None:
        """What is in flight is unknown from now on. Its entries stay until the broker speaks of them: they still fill
        the window."""
        for batch in {id(entry[0]): entry[0] for entry in self._pending.values()}.values():
            batch.give_up()

    def close(self) -> None:
        """The channel is gone."""
        self._closed = True
        self.give_up()
        self._pending.clear()
        self._pending_bytes = 0
        self._room.set()


class ReceiveLane:
    """One channel with one consumer. `base` makes its tags differ from those of every channel before it."""

    def __init__(
        self, protocol: SplitProtocol, channel: int, *, base: int, queue: str, on_delivery: Callable[[Delivery], None]
    ) -> None:
        self._protocol, self._channel, self._base, self._queue = protocol, channel, base, queue
        self._on_delivery = on_delivery
        self._content = _Content()
        self._unsettled: dict[int, None] = {}
        self.received = 0
        self.consuming = False

    def take(self, kind: int, data: bytes, at: int, size: int) -> bool:
        if kind == wire.METHOD:
            (method,) = wire.NUMBER.unpack_from(data, at)
            if method == wire.DELIVER:
                self._content.begin(bytes(data[at + 4 : at + size]))
                return True
            return False
        if kind == wire.HEADER or kind == wire.BODY:
            content = self._content.add(kind, data, at, size)
            if content is not None:
                self._deliver(*content)
            return True
        return False

    def _deliver(self, method: bytes, properties: wire.Properties, body: bytes) -> None:
        tag, redelivered, exchange, routing_key = wire.read_deliver(method, 0)
        headers = properties.headers
        count = headers.pop("x-delivery-count", 0) if headers else 0
        tag += self._base
        self._unsettled[tag] = None
        self.received += 1
        delivery = Delivery(
            tag,
            body,
            headers,
            exchange,
            routing_key,
            redelivered,
            count if isinstance(count, int) else 0,
            properties.user_id,
            properties.reply_to,
            properties.correlation_id,
            properties.content_type,
        )
        self.hand(delivery)

    def hand(self, delivery: Delivery) -> None:
        try:
            self._on_delivery(delivery)
        except Exception:
            log.exception("the handler of queue %s raised; its message goes back", self._queue)
            self.reject(delivery, requeue=True)

    def holds(self, delivery: Delivery) -> bool:
        return delivery.tag in self._unsettled

    def ack(self, deliveries: Sequence[Delivery]) -> int:
        """Settles what is still this channel's and answers how many that were. The oldest without a gap go as one
        frame."""
        unsettled = self._unsettled
        tags = sorted({delivery.tag for delivery in deliveries if delivery.tag in unsettled})
        together = 0
        for tag, oldest in zip(tags, unsettled, strict=False):
            if tag != oldest:
                break
            together += 1
        frames = []
        if together:
            frames.append(wire.ack_frame(self._channel, tags[together - 1] - self._base, multiple=together > 1))
        frames += [wire.ack_frame(self._channel, tag - self._base, multiple=False) for tag in tags[together:]]
        for tag in tags:
            del unsettled[tag]
        self._write(frames)
        return len(tags)

    def reject(self, delivery: Delivery, *, requeue: bool) -> int:
        if delivery.tag not in self._unsettled:
            return 0
        del self._unsettled[delivery.tag]
        self._write([wire.reject_frame(self._channel, delivery.tag - self._base, requeue=requeue)])
        return 1

    def _write(self, frames: Sequence[bytes]) -> None:
        # A settlement is never confirmed; on a dead socket it is lost, and the broker sends the message again.
        if frames and self._protocol.open:
            self._protocol.write(b"".join(frames))
