"""The wire between one process and one server, to be broken: a relay on the loopback that understands just enough of
PostgreSQL's protocol and of AMQP to cut the connection at a chosen message. It changes no byte; it passes whole
messages on, holds them, or loses them. Called by the site, which puts processes behind it, and by the faults.

    process ──▶ Wire ──▶ server        a request is lost: cut before the server has it
            ◀──      ◀──               an answer is lost: the server has done it, cut before the process hears of it
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from struct import Struct
from typing import Final, Protocol

from contracts.problems import Unavailable

Upstream = tuple[str, int]
CHUNK: Final = 65_536
_NUMBER: Final = Struct(">I")
_METHOD: Final = Struct(">HH")


class Trap:
    """Springs once, at the `nth` message that fits. `loses`: the request on its way, or the answer of a server that has
    done what was asked.

    Of PostgreSQL a message is a statement that writes, COMMIT among them. Of RabbitMQ a request is a published message
    or the acknowledgement of a delivered one, an answer is a publisher's confirm.
    """

    def __init__(self, loses: str, *, nth: int = 1) -> None:
        self.loses, self._left = loses, nth
        self.sprung = asyncio.Event()

    def fits(self, what: str) -> bool:
        """Counts one message; True at the one that is to be lost."""
        if what != self.loses or self._left == 0:
            return False
        self._left -= 1
        return self._left == 0

    def again(self) -> None:
        """What was counted last has committed nothing: the next one is to be lost."""
        self._left = 1


class Talk(Protocol):
    """What one connection says, in whole messages. Each method takes bytes as they come and answers the bytes to pass
    on; `cut` turns True when nothing more may pass.
    """

    cut: bool

    def request(self, data: bytes, trap: Trap | None) -> bytes: ...

    def answer(self, data: bytes, trap: Trap | None) -> bytes: ...


class PostgresTalk:
    """The frontend/backend protocol 3.0 as asyncpg speaks it: one request in flight, ended by ReadyForQuery."""

    _WRITES: Final = re.compile(
        rb"^\s*COMMIT\b|\b(INSERT|UPDATE|DELETE)\b"
        rb"|\b(append|append_for|bury|claim_\w+|due_timers|release_runs|hand_over|settle_outbox|declare_dead\w*)\(",
        re.IGNORECASE,
    )
    """The heartbeat is left out, or it would be what is lost most of the time."""

    _STARTUP: Final = 196_608

    def __init__(self) -> None:
        self.cut = False
        self._asked = self._told = b""
        self._started = False
        self._single = 0
        self._statements: dict[bytes, bytes] = {}
        self._kept: list[bytes] | None = None
        """The answer that is to be lost, as far as it has come."""

    def request(self, data: bytes, trap: Trap | None) -> bytes:
        self._asked += data
        passed = []
        while message := self._next_request():
            sql = self._sql_of(message)
            if trap is not None and sql is not None and self._WRITES.search(sql):
                if trap.fits("request"):
                    trap.sprung.set()
                    self.cut = True
                    break
                if trap.fits("answer"):
                    self._kept = []
            passed.append(message)
        return b"".join(passed)

    def _next_request(self) -> bytes:
        head = 1 if self._started else 0
        if len(self._asked) < head + 4:
            return b""
        end = head + _NUMBER.unpack_from(self._asked, head)[0]
        if len(self._asked) < end:
            return b""
        message, self._asked = self._asked[:end], self._asked[end:]
        if not self._started:
            self._started = _NUMBER.unpack_from(message, 4)[0] == self._STARTUP
            self._single += not self._started  # an offer to encrypt is answered with one byte
        return message

    def _sql_of(self, message: bytes) -> bytes | None:
        """The statement that this message has executed; None when it has none executed."""
        match message[:1] if self._started else b"":
            case b"P":
                name, sql, _ = message[5:].split(b"\0", 2)
                self._statements[name] = sql
            case b"B":
                return self._statements.get(message[5:].split(b"\0", 2)[1])
            case b"Q":
                return message[5:-1]
        return None

    def answer(self, data: bytes, trap: Trap | None) -> bytes:
        if self._single and not self._started:
            self._single -= 1
            return data
        self._told += data
        passed = []
        while len(self._told) >= 5 and len(self._told) >= (end := 1 + _NUMBER.unpack_from(self._told, 1)[0]):
            message, self._told = self._told[:end], self._told[end:]
            if self._kept is None:
                passed.append(message)
                continue
            self._kept.append(message)
            if message[:1] == b"Z" and trap is not None:
                kept, self._kept = self._kept, None
                if message[5:6] != b"I":  # not committed yet, or refused
                    trap.again()
                    passed += kept
                else:
                    trap.sprung.set()
                    self.cut = True
                    break
        return b"".join(passed)


class AmqpTalk:
    """AMQP 0-9-1: frames of a type, a channel, a size and an end."""

    _PUBLISH: Final = (60, 40)
    _ACK: Final = (60, 80)
    _HEADER: Final = b"AMQP\x00\x00\x09\x01"

    def __init__(self) -> None:
        self.cut = False
        self._asked = self._told = b""
        self._greeted = False

    def request(self, data: bytes, trap: Trap | None) -> bytes:
        self._asked += data
        passed = b""
        if not self._greeted and len(self._asked) >= len(self._HEADER):
            passed, self._asked = self._asked[: len(self._HEADER)], self._asked[len(self._HEADER) :]
            self._greeted = True
        frames, self._asked = _frames(self._asked) if self._greeted else ([], self._asked)
        return passed + b"".join(self._until(frames, trap, {self._PUBLISH: "request", self._ACK: "acknowledgement"}))

    def answer(self, data: bytes, trap: Trap | None) -> bytes:
        frames, self._told = _frames(self._told + data)
        return b"".join(self._until(frames, trap, {self._ACK: "answer"}))

    def _until(self, frames: list[bytes], trap: Trap | None, names: dict[tuple[int, int], str]) -> Iterator[bytes]:
        for frame in frames:
            if trap is not None and frame[0] == 1:
                name = names.get(_METHOD.unpack_from(frame, 7))
                if name is not None and trap.fits(name):
                    trap.sprung.set()
                    self.cut = True
                    return
            yield frame


def _frames(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole frames at the beginning, and the rest."""
    found, at = [], 0
    while len(data) - at >= 7 and len(data) >= (end := at + 8 + _NUMBER.unpack_from(data, at + 3)[0]):
        found.append(data[at:end])
        at = end
    return found, data[at:]


class Wire:
    """One listening port; every connection to it goes on to the first of `upstreams` that takes it."""

    def __init__(self, upstreams: Callable[[], list[Upstream]], talk: Callable[[], Talk]) -> None:
        self._upstreams, self._talk = upstreams, talk
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._trap: Trap | None = None
        self.port = 0

    async def start(self) -> None:
        """Takes connections, after `refuse` on the same port as before."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.refuse()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def lose(self, trap: Trap, *, within_seconds: float) -> None:
        """Returns when what the trap waits for was lost and its connection cut. Raises `Unavailable` when it never
        came.
        """
        self._trap = trap
        try:
            async with asyncio.timeout(within_seconds):
                await trap.sprung.wait()
        except TimeoutError:
            raise Unavailable(f"no {trap.loses} passed the wire within {within_seconds:g} s") from None
        finally:
            self._trap = None

    def hold(self) -> None:
        """Nothing passes, in either direction; nobody is told. New connections are taken and held too."""
        self._flowing.clear()

    def go_on(self) -> None:
        """What was held arrives, late."""
        self._flowing.set()

    def cut(self) -> None:
        """Ends every connection; what was on its way, or held, is lost."""
        for connection in list(self._connections):
            connection.cancel()

    def refuse(self) -> None:
        """Connections are cut and no new one is taken."""
        if self._server is not None:
            self._server.close()
        self.cut()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        onward: asyncio.StreamWriter | None = None
        talk = self._talk()
        try:
            await self._flowing.wait()
            there, onward = await self._connect()
            pumps = (
                asyncio.create_task(self._pump(reader, onward, talk, talk.request)),
                asyncio.create_task(self._pump(there, writer, talk, talk.answer)),
            )
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            talk.cut = True  # the server took no connection, or ours was cut: either way the process sees it end
        finally:
            self._connections.discard(task)
            for end in (writer, onward):
                if end is not None and talk.cut:
                    end.transport.abort()
                elif end is not None:
                    end.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for host, port in self._upstreams():
            with suppress(OSError):
                return await asyncio.open_connection(host, port)
        raise ConnectionRefusedError("no server takes a connection")

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        talk: Talk,
        passing: Callable[[bytes, Trap | None], bytes],
    ) -> None:
        """One direction, until its end or until the talk is cut."""
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flowing.wait()
                passed = passing(data, self._trap)
                if passed:
                    writer.write(passed)
                    await writer.drain()
                if talk.cut:
                    return
