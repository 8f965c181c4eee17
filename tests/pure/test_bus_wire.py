"""The hot AMQP frames: what we write, pamqp reads; what arrives may be cut anywhere."""

from __future__ import annotations

import asyncio
import random
from typing import Any, cast

import pamqp.frame
import pytest
from pamqp import body, commands, header
from pamqp.heartbeat import Heartbeat

from contracts.sdk import rabbit_wire as wire
from contracts.sdk.rabbit_lanes import PublishLane, ReceiveLane
from contracts.sdk.rabbit_link import SplitProtocol
from contracts.sdk.transport import Delivery, Message, Published


def unmarshal(data: bytes) -> list[Any]:
    frames = []
    while data:
        size, _, frame = pamqp.frame.unmarshal(data)
        frames.append(frame)
        data = data[size:]
    return frames


class Socket:
    """Takes what a lane writes."""

    def __init__(self, protocol: SplitProtocol) -> None:
        self.written: list[bytes] = []
        self._protocol = protocol
        protocol.writer = cast(asyncio.StreamWriter, self)

    def write(self, data: bytes) -> None:
        self.written.append(data)

    async def drain(self) -> None:
        return None

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """The reader's protocol says goodbye to its writer."""

    @property
    def frames(self) -> list[Any]:
        return unmarshal(b"".join(self.written))


def protocol() -> tuple[SplitProtocol, Socket, asyncio.StreamReader, list[bool]]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    blocked: list[bool] = []
    split = SplitProtocol(reader, loop, blocked.append)
    return split, Socket(split), reader, blocked


def delivery_frames(channel: int, tag: int, content: bytes, headers: dict[str, Any], frame_max: int = 64) -> bytes:
    frames = [
        pamqp.frame.marshal(commands.Basic.Deliver("c", tag, bool(tag % 2), "events", f"key.{tag}"), channel),
        pamqp.frame.marshal(
            header.ContentHeader(
                body_size=len(content),
                properties=commands.Basic.Properties(
                    content_type="a/b", content_encoding="x", headers=headers, delivery_mode=2, priority=3,
                    correlation_id="c", reply_to="r", expiration="9", message_id="m", message_type="t", user_id="u",
                    app_id="app",
                ),
            ),
            channel,
        ),
    ]  # fmt: skip
    pieces = (content[at : at + frame_max] for at in range(0, len(content), frame_max))
    return b"".join(frames) + b"".join(pamqp.frame.marshal(body.ContentBody(piece), channel) for piece in pieces)


async def test_a_published_message_is_what_another_client_reads() -> None:
    split, socket, _, _ = protocol()
    lane = PublishLane(split, 7, frame_max=40, window=10, user_id="module-shop")
    split.lanes[7] = lane
    headers = {"t": "ü", "i": -(2**40), "f": 0.1, "b": True, "n": None, "l": ["a", 1], "d": {"x": 2.5}}
    message = Message(
        "events", "shop.PaidV1", bytes(100), headers=headers, correlation_id="c", reply_to="r", expiration_seconds=1.5
    )
    sending = asyncio.create_task(lane.publish([lane.prepare(message)], 5))
    await asyncio.sleep(0)
    publish, content, *bodies = socket.frames
    assert (publish.exchange, publish.routing_key, publish.mandatory) == ("events", "shop.PaidV1", True)
    properties = content.properties
    assert content.body_size == 100
    assert dict(properties.headers) == headers
    assert (properties.content_type, properties.delivery_mode) == ("application/cloudevents+json", 2)
    assert (properties.correlation_id, properties.reply_to, properties.expiration) == ("c", "r", "1500")
    assert (properties.user_id, len(properties.message_id) > 16) == ("module-shop", True)
    assert [len(b.value) for b in bodies] == [32, 32, 32, 4]
    split.data_received(pamqp.frame.marshal(commands.Basic.Ack(1, False), 7))
    assert await sending == [Published.CONFIRMED]


async def test_confirms_for_many_refusals_and_returns_find_their_messages() -> None:
    split, socket, _, _ = protocol()
    lane = PublishLane(split, 1, frame_max=4096, window=100, user_id=None)
    split.lanes[1] = lane
    sending = asyncio.create_task(lane.publish([lane.prepare(Message("e", "k", b"same"))] * 6, 5))
    await asyncio.sleep(0)
    ids = [frame.properties.message_id for frame in socket.frames if isinstance(frame, header.ContentHeader)]
    assert len(set(ids)) == 6
    properties = commands.Basic.Properties(message_id=ids[3])
    split.data_received(
        pamqp.frame.marshal(commands.Basic.Return(312, "NO_ROUTE", "e", "k"), 1)
        + pamqp.frame.marshal(header.ContentHeader(body_size=4, properties=properties), 1)
        + pamqp.frame.marshal(body.ContentBody(b"same"), 1)
        + pamqp.frame.marshal(commands.Basic.Ack(3, False), 1)
        + pamqp.frame.marshal(commands.Basic.Ack(2, True), 1)
        + pamqp.frame.marshal(commands.Basic.Nack(6, False), 1)
        + pamqp.frame.marshal(commands.Basic.Ack(5, True), 1)
    )
    assert await sending == [
        Published.CONFIRMED,
        Published.CONFIRMED,
        Published.CONFIRMED,
        Published.UNROUTABLE,
        Published.CONFIRMED,
        Published.REFUSED,
    ]


async def test_no_more_than_the_window_is_on_its_way_and_a_closed_lane_leaves_the_rest_unknown() -> None:
    split, socket, _, _ = protocol()
    lane = PublishLane(split, 1, frame_max=4096, window=3, user_id=None)
    split.lanes[1] = lane
    sending = asyncio.create_task(lane.publish([lane.prepare(Message("e", "k", b"x"))] * 5, 5))
    await asyncio.sleep(0)
    assert sum(isinstance(frame, commands.Basic.Publish) for frame in socket.frames) == 3
    split.data_received(pamqp.frame.marshal(commands.Basic.Ack(1, False), 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sum(isinstance(frame, commands.Basic.Publish) for frame in socket.frames) == 4
    lane.close()
    assert await sending == [Published.CONFIRMED] + [Published.UNKNOWN] * 4


@pytest.mark.parametrize("seed", range(20))
async def test_deliveries_are_the_same_wherever_the_stream_is_cut(seed: int) -> None:
    chance = random.Random(seed)
    split, _, reader, blocked = protocol()
    received: list[Delivery] = []
    split.lanes[3] = ReceiveLane(split, 3, base=1 << 44, queue="q", on_delivery=received.append)
    contents = [bytes(chance.randrange(256) for _ in range(chance.choice((0, 1, 63, 64, 65, 300)))) for _ in range(12)]
    foreign = [
        pamqp.frame.marshal(commands.Connection.Blocked("disk"), 0),
        pamqp.frame.marshal(commands.Channel.OpenOk(), 4),
        pamqp.frame.marshal(commands.Basic.ConsumeOk("c"), 3),
        pamqp.frame.marshal(Heartbeat(), 0),
        pamqp.frame.marshal(commands.Connection.Unblocked(), 0),
    ]
    stream, others = b"", b""
    for tag, content in enumerate(contents, 1):
        headers = {"n": tag} if tag % 3 else {"n": tag, "x-delivery-count": 2}
        stream += delivery_frames(3, tag, content, headers)
        if chance.random() < 0.5:
            frame = chance.choice(foreign)
            stream, others = stream + frame, others + frame
    at = 0
    while at < len(stream):
        size = chance.choice((1, 2, 7, 8, 50, 1000))
        split.data_received(stream[at : at + size])
        at += size
    assert [d.body for d in received] == contents
    assert [d.tag - (1 << 44) for d in received] == list(range(1, 13))
    assert [d.delivery_count for d in received] == [0 if tag % 3 else 2 for tag in range(1, 13)]
    assert [dict(d.headers) for d in received] == [{"n": tag} for tag in range(1, 13)]
    assert {(d.exchange, d.content_type, d.correlation_id, d.reply_to, d.user_id) for d in received} == {
        ("events", "a/b", "c", "r", "u")
    }
    assert [d.redelivered for d in received] == [bool(tag % 2) for tag in range(1, 13)]
    reader.feed_eof()
    rest = await reader.read()
    assert rest.replace(wire.HEARTBEAT, b"") == others.replace(wire.HEARTBEAT, b"")
    assert blocked == [
        isinstance(frame, commands.Connection.Blocked)
        for frame in unmarshal(others)
        if isinstance(frame, (commands.Connection.Blocked, commands.Connection.Unblocked))
    ]


async def test_a_peer_that_speaks_no_amqp_is_left_to_the_library() -> None:
    split, _, reader, _ = protocol()
    split.data_received(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    reader.feed_eof()
    assert (await reader.read()).startswith(b"HTTP")


async def test_the_oldest_without_a_gap_are_settled_by_one_frame_and_the_others_one_by_one() -> None:
    split, socket, _, _ = protocol()
    received: list[Delivery] = []
    lane = ReceiveLane(split, 3, base=0, queue="q", on_delivery=received.append)
    split.lanes[3] = lane
    split.data_received(b"".join(delivery_frames(3, tag, b"", {}) for tag in range(1, 9)))
    assert lane.ack([received[i] for i in (1, 0, 2, 5, 6, 0)]) == 5
    assert [(f.delivery_tag, f.multiple) for f in socket.frames] == [(3, True), (6, False), (7, False)]
    socket.written.clear()
    assert lane.ack(received[:3]) == 0
    assert socket.written == []
    assert lane.reject(received[3], requeue=False) == 1
    assert lane.ack([received[4]]) == 1
    frames = [
        (f.name, f.delivery_tag, getattr(f, "requeue", None), getattr(f, "multiple", None)) for f in socket.frames
    ]
    assert frames == [("Basic.Reject", 4, False, None), ("Basic.Ack", 5, None, False)]


@pytest.mark.parametrize(
    "headers",
    [{"o": object()}, {"i": 2**63}, {"f": float("nan")}, {"k" * 256: 1}, {"k\x00": 1}, {1: "a"}],
    ids=["object", "integer", "nan", "long key", "nul", "key"],
)
def test_headers_that_amqp_cannot_carry_are_refused_by_name(headers: dict[Any, Any]) -> None:
    with pytest.raises(ValueError, match="headers"):
        wire.table(headers)


def test_a_table_nested_too_deep_is_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(40):
        nested = {"a": nested}
    with pytest.raises(ValueError, match="deeper"):
        wire.table(nested)
