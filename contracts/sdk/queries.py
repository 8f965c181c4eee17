"""Questions between modules: asked with a reply queue of the asker's own and an expiry, answered at once or never.

Nothing is stored and nothing is sent again; whoever gets no answer in time asks again or goes on without. `Asker` is
the asking side, used by modules, the engine and the HTTP API alike; `QueryDesk` answers for `contracts.sdk.module`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, TypeVar
from uuid import uuid4

from contracts.envelope import Envelope, parse
from contracts.manifest import AnswerModel, FateModel, FateQueryModel, Message, Module, QueryModel
from contracts.problems import EnvelopeInvalid, PayloadInvalid, Problem, Unavailable
from contracts.registry import QueryEntry
from contracts.sdk.database import Database, Tx
from contracts.sdk.fates import Fates
from contracts.sdk.places import places
from contracts.sdk.transport import COMMANDS_EXCHANGE, Consumer, Delivery, Published, Queue, Topology, Transport
from contracts.sdk.transport import Message as BusMessage
from contracts.shapes import Shape

log = logging.getLogger("unwind.module")

REFUSED_TYPE: Final = "QueryRefusedV1"
"""Every module answers a question it cannot answer with `<module>.QueryRefusedV1`: {code, message}."""

AnswerT = TypeVar("AnswerT", bound=AnswerModel)
Alone = Callable[[str, str], AbstractAsyncContextManager[None]]
QueryHandler = Callable[[Any, "Question", Tx], Awaitable[AnswerModel]]


class QueryTimedOut(Unavailable):
    """Nobody answered in time: the module is down, busy, or not installed."""

    code: ClassVar[str] = "query_timed_out"
    title: ClassVar[str] = "The question was not answered in time"
    status: ClassVar[int] = 504


class QueryRefused(Problem):
    """The module answered that it cannot answer: the question does not fit its model, or its handler failed."""

    code: ClassVar[str] = "query_refused"
    title: ClassVar[str] = "The module could not answer"
    status: ClassVar[int] = 502


@dataclass(frozen=True, slots=True)
class Question:
    """One question being answered."""

    envelope: Envelope

    @property
    def tenant(self) -> str:
        return self.envelope.tenantid


class Asker:
    """Asks modules over one transport. `name` says who asks (`/modules/<name>` is the questions' source)."""

    def __init__(self, transport: Transport, *, name: str = "unwind") -> None:
        self._transport = transport
        self._name = name
        self._queue = f"replies.{name}.{uuid4().hex}"
        self._consumer: Consumer | None = None
        self._open: dict[str, asyncio.Future[Envelope]] = {}
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Opens the reply queue. The first `ask` does it when nobody did."""
        async with self._starting:
            if self._consumer is not None and self._consumer.alive:
                return
            await self._transport.declare(Topology(queues=(Queue(name=self._queue, transient=True),)))
            self._consumer = await self._transport.consume(self._queue, self._on_delivery, prefetch=256)

    async def stop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()
        for waiting in self._open.values():
            waiting.cancel()

    async def ask(
        self,
        module: Module,
        query: QueryModel,
        answer: type[AnswerT],
        *,
        tenant: str,
        deadline_seconds: float = 2.0,
        caused_by: Envelope | None = None,
    ) -> AnswerT:
        """The answer. Raises `QueryTimedOut` and `QueryRefused`."""
        data = await self.ask_raw(
            module.type_of(query),
            query.model_dump(mode="json"),
            tenant=tenant,
            deadline_seconds=deadline_seconds,
            caused_by=caused_by,
        )
        return Shape(module.type_of(answer), answer).read(data)

    async def ask_raw(
        self,
        kind: str,
        data: dict[str, Any],
        *,
        tenant: str,
        deadline_seconds: float = 2.0,
        caused_by: Envelope | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
    ) -> dict[str, Any]:
        """The same by wire type and JSON-native payload. Without a cause the story may be named by its ids."""
        await self.start()
        question = Envelope(
            id=str(uuid4()),
            source=f"/modules/{self._name}",
            type=kind,
            tenantid=tenant,
            time=datetime.now(UTC),
            data=data,
            correlationid=caused_by.correlationid if caused_by is not None else correlation_id,
            causationid=caused_by.id if caused_by is not None else None,
            traceparent=caused_by.traceparent if caused_by is not None else traceparent,
        )
        waiting = self._open[question.id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(deadline_seconds):
                fates = await self._transport.publish(
                    [
                        BusMessage(
                            COMMANDS_EXCHANGE,
                            kind,
                            question.to_json(),
                            persistent=False,
                            expiration_seconds=deadline_seconds,
                            reply_to=self._queue,
                            correlation_id=question.id,
                        )
                    ],
                    deadline_seconds=deadline_seconds,
                )
                if fates[0] is Published.UNROUTABLE:
                    raise QueryTimedOut(f"{kind}: no module listens for it; start the module", message_type=kind)
                reply = await waiting
        except TimeoutError:
            raise QueryTimedOut(
                f"{kind}: no answer within {deadline_seconds:g} s; ask again when the module is up", message_type=kind
            ) from None
        finally:
            del self._open[question.id]
        if reply.type.endswith(f".{REFUSED_TYPE}"):
            raise QueryRefused(
                f"{kind}: {reply.data.get('message', 'the module gave no reason')}",
                message_type=kind,
                reason=reply.data.get("code"),
            )
        return dict(reply.data)

    def _on_delivery(self, delivery: Delivery) -> None:
        assert self._consumer is not None
        self._consumer.ack([delivery])
        try:
            envelope = parse(delivery.body, delivery.headers)
        except EnvelopeInvalid as error:
            log.warning("an answer on %s is malformed: %s", self._queue, error)
            return
        waiting = self._open.get(envelope.causationid or "")
        # A late answer finds nobody waiting, a second one finds the first.
        if waiting is not None and not waiting.done():
            waiting.set_result(envelope)


class QueryDesk:
    """Answers the questions of one module. `alone`, if given, keeps a question about an order and the order itself
    apart, by tenant and key.
    """

    def __init__(self, module: Module, database: Database, transport: Transport, alone: Alone | None = None) -> None:
        self._module = module
        self._database = database
        self._transport = transport
        self._alone = alone
        self._fates = Fates(database.dialect)

    async def answer(self, entry: QueryEntry, handler: QueryHandler, envelope: Envelope, delivery: Delivery) -> None:
        """Answers to the delivery's `reply_to`; without one there is nobody to answer."""
        if delivery.reply_to is None:
            log.warning("%s %s has no reply_to; it is dropped", envelope.type, envelope.id)
            return
        try:
            question = entry.shape.read(envelope.data)
            if isinstance(question, FateQueryModel):
                reply: Message = await self._fate(entry, handler, question, Question(envelope))
            else:
                async with self._database.transaction() as tx:
                    reply = await handler(question, Question(envelope), tx)
            kind, data = self._module.type_of(reply), reply.model_dump(mode="json")
        except PayloadInvalid as error:
            kind, data = self._refusal(error.code, error.detail)
        except Problem as error:
            kind, data = self._refusal(error.code, error.title)
        except Exception as error:
            log.error(
                "the handler of %s raised %s",
                envelope.type,
                type(error).__name__,
                extra=places(envelope, command=False, error=error),
            )
            kind, data = self._refusal("handler_failed", "the module's handler failed; see its log")
        answered = Envelope(
            id=str(uuid4()),
            source=self._module.source,
            type=kind,
            tenantid=envelope.tenantid,
            time=datetime.now(UTC),
            data=data,
            correlationid=envelope.correlationid or envelope.id,
            causationid=envelope.id,
            traceparent=envelope.traceparent,
        )
        await self._transport.publish(
            [
                BusMessage(
                    "",
                    delivery.reply_to,
                    answered.to_json(),
                    persistent=False,
                    mandatory=False,
                    correlation_id=delivery.correlation_id or envelope.id,
                )
            ]
        )

    async def _fate(
        self, entry: QueryEntry, handler: QueryHandler, asked: FateQueryModel, question: Question
    ) -> FateModel[Any]:
        """What became of a command. The handler is asked only about what the SDK does not remember."""
        answer = entry.query.answer
        assert issubclass(answer, FateModel)
        async with AsyncExitStack() as stack:
            if self._alone is not None:
                await stack.enter_async_context(self._alone(question.tenant, asked.key))
            tx = await stack.enter_async_context(self._database.transaction())
            known = await self._fates.remembered(tx, asked, answer, question.tenant)
            if known is not None:
                return known
            found = await handler(asked, question, tx)
            if not isinstance(found, answer):
                raise TypeError(f"the handler of {entry.type} answered {type(found).__name__}, not {answer.__name__}")
            if found.happened or not asked.closing:
                return found
            return await self._fates.close(tx, asked, answer, question.tenant, entry.type)

    def _refusal(self, code: str, message: str) -> tuple[str, dict[str, Any]]:
        return f"{self._module.name}.{REFUSED_TYPE}", {"code": code, "message": message}
