"""Contract of the billing module: subscriptions of tenants, and customers with what they pay.

Money is in minor units (cents) with an ISO 4217 currency. A tenant has at most one live subscription, an account at
most one customer.
"""

from __future__ import annotations

from typing import Final, Literal

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

SubscriptionState = Literal["trial", "active", "cancelled"]


class SubscriptionActivatedV1(EventModel):
    subscription_id: str
    edition: str
    status: SubscriptionState


class SubscriptionCancelledV1(EventModel):
    """`subscription_id` is None when there was none: a late creation under the same key is refused."""

    subscription_id: str | None = None


class CustomerCreatedV1(EventModel):
    customer_id: str
    account_id: str
    email: Personal


class CustomerClosedV1(EventModel):
    """`customer_id` is None when there was none: a late creation under the same key is refused."""

    customer_id: str | None = None


class FirstPaymentReceivedV1(EventModel):
    customer_id: str
    payment_id: str
    amount_minor: int
    currency: str


class PaymentReceivedV1(EventModel):
    """Every payment; the first of a customer is also a `FirstPaymentReceivedV1`."""

    customer_id: str
    payment_id: str
    amount_minor: int
    currency: str
    first: bool


class PaymentPastDueV1(EventModel):
    """Nobody paid the subscription in time. Unless it is paid within `grace_days` the tenant is suspended."""

    subscription_id: str
    days: int
    grace_days: int = 7


class SubscriptionPaidV1(EventModel):
    """`settled`: it was past due and is no longer, which a `PastDueSettledV1` says too."""

    subscription_id: str
    payment_id: str
    amount_minor: int
    currency: str
    settled: bool


class PastDueSettledV1(EventModel):
    """What was past due is paid."""

    subscription_id: str


class PastDueConfirmedV1(EventModel):
    """Whether the subscription is past due now."""

    subscription_id: str
    past_due: bool


class SubscriptionClosedV1(EventModel):
    """The tenant is charged no more. `subscription_id` is None when it had no live subscription."""

    subscription_id: str | None = None
    status: SubscriptionState | None = None
    """What it was before."""


class SubscriptionReopenedV1(EventModel):
    subscription_id: str | None = None


class BillingRefusedV1(FailureModel):
    """No retry will help: the account has a customer, the edition is not sold, or there is no such customer or no live
    subscription.
    """


class BillingUnavailableV1(FailureModel):
    """Nothing was done; try again."""


class CreateSubscriptionV1(CommandModel):
    edition: str = Field(min_length=1, max_length=50)
    trial: bool = True


class CancelSubscriptionV1(UndoModel[CreateSubscriptionV1, SubscriptionActivatedV1]):
    """The half-created subscription charges nobody."""


class CreateCustomerV1(CommandModel):
    account_id: str = Field(min_length=1, max_length=200)
    email: Personal
    name: Personal


class CloseCustomerV1(UndoModel[CreateCustomerV1, CustomerCreatedV1]):
    """The customer cannot be charged and the account is free for another."""


class RecordPaymentV1(CommandModel):
    customer_id: str
    amount_minor: int = Field(gt=0)
    currency: str = Field(pattern="^[A-Z]{3}$")


class ReportPastDueV1(CommandModel):
    days: int = Field(ge=1)
    grace_days: int = Field(default=7, ge=0, le=90)


class PaySubscriptionV1(CommandModel):
    """The tenant pays for its live subscription, and with it what is past due."""

    amount_minor: int = Field(gt=0)
    currency: str = Field(pattern="^[A-Z]{3}$")


class ConfirmPastDueV1(CommandModel):
    """Asks whether it is still so; changes nothing."""

    subscription_id: str


class CloseSubscriptionV1(CommandModel):
    """Cancels the live subscription, whoever made it."""


class ReopenSubscriptionV1(UndoModel[CloseSubscriptionV1, SubscriptionClosedV1]):
    """The subscription is again what it was, unless there is another by now."""


class GetSubscriptionV1(QueryModel):
    pass


class SubscriptionSnapshotV1(AnswerModel):
    """`status` is None when the tenant never had a subscription."""

    subscription_id: str | None = None
    edition: str | None = None
    status: SubscriptionState | None = None
    live: int = 0
    """How many of the tenant's subscriptions are not cancelled."""


class GetCustomerV1(QueryModel):
    account_id: str


class CustomerSnapshotV1(AnswerModel):
    """`customer_id` is None when the account has no open customer."""

    customer_id: str | None = None
    payments: int = 0
    paid_minor: int = 0


MANAGE: Final = "billing.manage"
COLLECT: Final = "billing.collect"
"""Who takes the money may say that it came, or that it did not; the platform's, not a tenant's."""

READ: Final = "billing.read"
_CUSTOMER: Final = {"customer": "/customer_id"}
_SUBSCRIPTION: Final = {"subscription": "/subscription_id"}


def _command(
    model: type[CommandModel], success: type[EventModel], undo: str | None = None, permission: str = MANAGE
) -> Command:
    return Command(
        model,
        success=success,
        failures=(BillingUnavailableV1,),
        irrecoverable=(BillingRefusedV1,),
        undo=undo,
        coverage="retriable" if undo is None else "compensatable",
        permission=permission,
    )


MODULE: Final = Module(
    name="billing",
    version="1.0.0",
    events=(
        Event(SubscriptionActivatedV1, keys=_SUBSCRIPTION),
        Event(SubscriptionCancelledV1, keys=_SUBSCRIPTION),
        Event(CustomerCreatedV1, keys={**_CUSTOMER, "account": "/account_id"}, subject="/account_id"),
        Event(CustomerClosedV1, keys=_CUSTOMER),
        Event(FirstPaymentReceivedV1, keys=_CUSTOMER),
        Event(PaymentReceivedV1, keys=_CUSTOMER),
        *(
            Event(model, keys=_SUBSCRIPTION)
            for model in (
                PaymentPastDueV1,
                SubscriptionPaidV1,
                PastDueSettledV1,
                PastDueConfirmedV1,
                SubscriptionClosedV1,
                SubscriptionReopenedV1,
            )
        ),
    ),
    commands=(
        _command(CreateSubscriptionV1, SubscriptionActivatedV1, undo="CancelSubscriptionV1"),
        _command(CancelSubscriptionV1, SubscriptionCancelledV1),
        _command(CreateCustomerV1, CustomerCreatedV1, undo="CloseCustomerV1"),
        _command(CloseCustomerV1, CustomerClosedV1),
        _command(RecordPaymentV1, PaymentReceivedV1),
        _command(ReportPastDueV1, PaymentPastDueV1, permission=COLLECT),
        _command(PaySubscriptionV1, SubscriptionPaidV1, permission=COLLECT),
        _command(ConfirmPastDueV1, PastDueConfirmedV1, permission=COLLECT),
        _command(CloseSubscriptionV1, SubscriptionClosedV1, undo="ReopenSubscriptionV1", permission=COLLECT),
        _command(ReopenSubscriptionV1, SubscriptionReopenedV1, permission=COLLECT),
        rehearsal("billing"),
    ),
    queries=(
        Query(GetSubscriptionV1, answer=SubscriptionSnapshotV1, permission=READ),
        Query(GetCustomerV1, answer=CustomerSnapshotV1, permission=READ),
    ),
    permissions=(MANAGE, COLLECT, READ, rehearsal_permission("billing")),
)
