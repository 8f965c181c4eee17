"""Contract of the crm module: who asked to sign up, the contacts that came of it, and what sales thinks of them."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from contracts.manifest import (
    AnswerModel,
    Command,
    CommandModel,
    Event,
    EventModel,
    FailureModel,
    Module,
    Personal,
    Query,
    QueryModel,
    UndoModel,
)
from contracts.modules.faults import rehearsal, rehearsal_permission


class SignupRequestedV1(EventModel):
    """Somebody filled in the sign-up form. Customer onboarding starts here, or at the webhook that says the same."""

    signup_id: str = Field(min_length=1, max_length=200)
    email: Personal
    name: Personal
    company: str | None = None
    plan: str = "standard"


class ContactCreatedV1(EventModel):
    contact_id: str
    customer_id: str
    email: Personal


class ContactDeletedV1(EventModel):
    """`contact_id` is None when there was none: a late creation under the same key is refused."""

    contact_id: str | None = None


class SalesReviewCompletedV1(EventModel):
    customer_id: str
    approved: bool
    reviewer: str
    comment: str = ""


class CrmRefusedV1(FailureModel):
    """No retry will help: the customer has a contact, or there is no such contact."""


class CrmUnavailableV1(FailureModel):
    """Nothing was done; try again."""


class RequestSignupV1(CommandModel):
    email: Personal
    name: Personal
    company: str | None = None
    plan: str = "standard"


class CreateContactV1(CommandModel):
    customer_id: str = Field(min_length=1, max_length=200)
    email: Personal
    name: Personal


class DeleteContactV1(UndoModel[CreateContactV1, ContactCreatedV1]):
    """Nobody is left whom nobody can charge."""


class RecordSalesReviewV1(CommandModel):
    customer_id: str
    approved: bool
    reviewer: str = Field(min_length=1, max_length=200)
    comment: str = ""


class FindContactV1(QueryModel):
    customer_id: str


class ContactV1(AnswerModel):
    """`contact_id` is None when the customer has no contact."""

    contact_id: str | None = None
    reviewed: bool = False


MANAGE: Final = "crm.manage"
READ: Final = "crm.read"


def _command(model: type[CommandModel], success: type[EventModel], undo: str | None = None) -> Command:
    return Command(
        model,
        success=success,
        failures=(CrmUnavailableV1,),
        irrecoverable=(CrmRefusedV1,),
        undo=undo,
        coverage="retriable" if undo is None else "compensatable",
        permission=MANAGE,
    )


MODULE: Final = Module(
    name="crm",
    version="1.0.0",
    events=(
        Event(SignupRequestedV1, keys={"signup": "/signup_id", "email": "/email"}, subject="/signup_id"),
        Event(ContactCreatedV1, keys={"contact": "/contact_id", "customer": "/customer_id"}, subject="/contact_id"),
        Event(ContactDeletedV1, keys={"contact": "/contact_id"}),
        Event(SalesReviewCompletedV1, keys={"customer": "/customer_id"}),
    ),
    commands=(
        _command(RequestSignupV1, SignupRequestedV1),
        _command(CreateContactV1, ContactCreatedV1, undo="DeleteContactV1"),
        _command(DeleteContactV1, ContactDeletedV1),
        _command(RecordSalesReviewV1, SalesReviewCompletedV1),
        rehearsal("crm"),
    ),
    queries=(Query(FindContactV1, answer=ContactV1, permission=READ),),
    permissions=(MANAGE, READ, rehearsal_permission("crm")),
)
