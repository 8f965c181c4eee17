"""The contract of the JavaScript module beside it, as the engine needs it: installed there, unknown to the module."""

from __future__ import annotations

from contracts.calls import RetryPolicy
from contracts.manifest import Command, CommandModel, EventModel, FailureModel, Module, UndoModel


class LabelPrintedV1(EventModel):
    label_id: str
    order_id: str


class LabelVoidedV1(EventModel):
    label_id: str | None = None


class PrinterJammedV1(FailureModel):
    pass


class LabelRefusedV1(FailureModel):
    pass


class PrintLabelV1(CommandModel):
    order_id: str
    weight_grams: int


class VoidLabelV1(UndoModel[PrintLabelV1, LabelPrintedV1]):
    pass


_RETRY = RetryPolicy(attempts=5, delay_seconds=0.1)

LABELS = Module(
    name="labels",
    version="1.0.0",
    commands=(
        Command(
            PrintLabelV1,
            success=LabelPrintedV1,
            failures=(PrinterJammedV1,),
            irrecoverable=(LabelRefusedV1,),
            undo="VoidLabelV1",
            retry=_RETRY,
        ),
        Command(VoidLabelV1, success=LabelVoidedV1, coverage="retriable", retry=_RETRY),
    ),
)
