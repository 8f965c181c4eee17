"""A module whose effect no transaction holds: it charges cards at a provider, which is a list here. Its commands are
closed by a query."""

from __future__ import annotations

import asyncio
from typing import Any

from contracts.calls import RetryPolicy
from contracts.manifest import (
    Command,
    CommandModel,
    EventModel,
    FailureModel,
    FateModel,
    FateQueryModel,
    Module,
    Query,
    UndoModel,
)
from contracts.sdk import Call, Question, Refused, Service, Transport, Tx, Unanswered
from contracts.sdk.database import Database


class ChargedV1(EventModel):
    charge_id: str


class RefundedV1(EventModel):
    charge_id: str | None = None


class CardRefusedV1(FailureModel):
    pass


class ChargeV1(CommandModel):
    amount: int
    how: str = "well"
    """`well`; `refused`; `lost`: the provider is slow and the answer never comes; `dropped`: it never gets there."""


class RefundV1(UndoModel[ChargeV1, ChargedV1]):
    pass


class FindChargeV1(FateQueryModel):
    pass


class ChargeFoundV1(FateModel[ChargedV1]):
    pass


TILL = Module(
    name="till",
    version="1.0.0",
    commands=(
        Command(
            ChargeV1,
            success=ChargedV1,
            irrecoverable=(CardRefusedV1,),
            undo="RefundV1",
            ambiguous="query",
            query="FindChargeV1",
            timeout_seconds=30,
            retry=RetryPolicy(attempts=2, delay_seconds=0.1),
        ),
        Command(RefundV1, success=RefundedV1, coverage="retriable"),
    ),
    queries=(Query(FindChargeV1, answer=ChargeFoundV1),),
)


class Till:
    """`charges` is what the provider did, by key; `mute` lets every question go unanswered."""

    def __init__(self, transport: Transport, database: Database) -> None:
        self.charges: dict[str, int] = {}
        self.refunds: list[str] = []
        self.asked: list[FateQueryModel] = []
        self.ordered: list[str] = []
        self.mute = False
        self.provider = asyncio.Event()
        self.provider.set()
        self.service = Service(TILL, transport=transport, database=database)
        self.service.performs(ChargeV1)(self.charge)
        self.service.handles(RefundV1)(self.refund)
        self.service.answers(FindChargeV1)(self.find)

    async def charge(self, command: ChargeV1, call: Call) -> EventModel:
        self.ordered.append(call.key)
        if command.how == "dropped":
            raise Unanswered("it got lost on its way")
        if command.how == "refused":
            raise Refused("card_refused", "no money")
        await self.provider.wait()
        self.charges[call.key] = command.amount
        if command.how == "lost":
            raise Unanswered("the connection broke before the answer came")
        return ChargedV1(charge_id=_charge(call.key))

    async def refund(self, command: RefundV1, call: Call, tx: Tx) -> RefundedV1:
        if command.receipt is None:
            return RefundedV1()
        self.refunds.append(command.receipt.charge_id)
        return RefundedV1(charge_id=command.receipt.charge_id)

    async def find(self, query: FindChargeV1, question: Question, tx: Tx) -> ChargeFoundV1:
        self.asked.append(query)
        if self.mute:
            raise RuntimeError("the provider does not answer either")
        if query.key in self.charges:
            return ChargeFoundV1(happened=True, receipt=ChargedV1(charge_id=_charge(query.key)))
        return ChargeFoundV1(happened=False)


def _charge(key: str) -> str:
    return f"ch_{key.rpartition('/')[0].rpartition('/')[2]}"


def question(key: str, command_id: str, *, closing: bool = False) -> dict[str, Any]:
    return {"key": key, "command_id": command_id, "closing": closing}
