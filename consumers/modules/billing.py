"""The billing module: one live subscription per tenant, one open customer per account, and their payments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consumers.modules.rehearsal import SQL as REHEARSAL
from consumers.modules.rehearsal import Rehearsal
from consumers.modules.settings import ModuleSettings
from contracts.modules import billing as contract
from contracts.sdk import Call, Question, Refused, Service, Transport, Tx
from contracts.sdk.statements import statements

SQL = statements("billing.sql", "consumers.modules")

EDITIONS_SOLD = ("free", "standard", "enterprise")


def make(transport: Transport, settings: ModuleSettings) -> Service:
    service = Service(
        contract.MODULE,
        transport=transport,
        database=settings.database("billing"),
        schemas=(SQL["schema"], REHEARSAL["schema"]),
        max_attempts=settings.max_attempts,
        drain_seconds=settings.drain_seconds,
        relay_lease_seconds=settings.relay_lease_seconds,
    )
    Rehearsal(service, allowed=settings.rehearsals)
    service.handles(contract.CreateSubscriptionV1)(create_subscription)
    service.handles(contract.CancelSubscriptionV1)(cancel_subscription)
    service.handles(contract.CreateCustomerV1)(create_customer)
    service.handles(contract.CloseCustomerV1)(close_customer)
    service.handles(contract.RecordPaymentV1)(record_payment)
    service.handles(contract.ReportPastDueV1)(report_past_due)
    service.handles(contract.PaySubscriptionV1)(pay_subscription)
    service.handles(contract.ConfirmPastDueV1)(confirm_past_due)
    service.handles(contract.CloseSubscriptionV1)(close_subscription)
    service.handles(contract.ReopenSubscriptionV1)(reopen_subscription)
    service.answers(contract.GetSubscriptionV1)(get_subscription)
    service.answers(contract.GetCustomerV1)(get_customer)
    return service


async def create_subscription(
    command: contract.CreateSubscriptionV1, call: Call, tx: Tx
) -> contract.SubscriptionActivatedV1:
    if command.edition not in EDITIONS_SOLD:
        raise Refused("edition_not_sold", f"choose one of {', '.join(EDITIONS_SOLD)}")
    subscription = call.new_id("sub")
    status: contract.SubscriptionState = "trial" if command.trial else "active"
    if not await tx.run(SQL["subscribe"], call.tenant, subscription, command.edition, status, call.at):
        raise Refused("already_subscribed", "the tenant has a live subscription; cancel it first")
    return contract.SubscriptionActivatedV1(subscription_id=subscription, edition=command.edition, status=status)


async def cancel_subscription(
    command: contract.CancelSubscriptionV1, call: Call, tx: Tx
) -> contract.SubscriptionCancelledV1:
    if command.receipt is None:
        return contract.SubscriptionCancelledV1()
    await tx.run(SQL["cancel"], call.tenant, command.receipt.subscription_id)
    return contract.SubscriptionCancelledV1(subscription_id=command.receipt.subscription_id)


async def create_customer(command: contract.CreateCustomerV1, call: Call, tx: Tx) -> contract.CustomerCreatedV1:
    customer = call.new_id("cus")
    made = await tx.run(
        SQL["add_customer"], call.tenant, customer, command.account_id, command.email, command.name, call.at
    )
    if not made:
        raise Refused("customer_exists", "the account has a customer already")
    return contract.CustomerCreatedV1(customer_id=customer, account_id=command.account_id, email=command.email)


async def close_customer(command: contract.CloseCustomerV1, call: Call, tx: Tx) -> contract.CustomerClosedV1:
    if command.receipt is None:
        return contract.CustomerClosedV1()
    await tx.run(SQL["close_customer"], call.tenant, command.receipt.customer_id)
    return contract.CustomerClosedV1(customer_id=command.receipt.customer_id)


async def record_payment(command: contract.RecordPaymentV1, call: Call, tx: Tx) -> contract.PaymentReceivedV1:
    if await tx.row(SQL["open_customer"], call.tenant, command.customer_id) is None:
        raise Refused("customer_unknown", "there is no open customer of that id")
    before = await tx.row(SQL["paid"], call.tenant, command.customer_id)
    first = before is not None and before["payments"] == 0
    payment = call.new_id("pay")
    await tx.run(SQL["pay"], call.tenant, payment, command.customer_id, command.amount_minor, command.currency, call.at)
    if first:
        call.publish(
            contract.FirstPaymentReceivedV1(
                customer_id=command.customer_id,
                payment_id=payment,
                amount_minor=command.amount_minor,
                currency=command.currency,
            )
        )
    return contract.PaymentReceivedV1(
        customer_id=command.customer_id,
        payment_id=payment,
        amount_minor=command.amount_minor,
        currency=command.currency,
        first=first,
    )


async def report_past_due(command: contract.ReportPastDueV1, call: Call, tx: Tx) -> contract.PaymentPastDueV1:
    live = await _live(call, tx)
    await tx.run(SQL["fall_due"], call.tenant, live["subscription_id"], command.days, call.at)
    return contract.PaymentPastDueV1(
        subscription_id=live["subscription_id"], days=command.days, grace_days=command.grace_days
    )


async def pay_subscription(command: contract.PaySubscriptionV1, call: Call, tx: Tx) -> contract.SubscriptionPaidV1:
    live = await _live(call, tx)
    subscription, payment = live["subscription_id"], call.new_id("pay")
    await tx.run(
        SQL["pay_subscription"], call.tenant, payment, subscription, command.amount_minor, command.currency, call.at
    )
    settled = bool(await tx.run(SQL["settle"], call.tenant, subscription))
    if settled:
        call.publish(contract.PastDueSettledV1(subscription_id=subscription))
    return contract.SubscriptionPaidV1(
        subscription_id=subscription,
        payment_id=payment,
        amount_minor=command.amount_minor,
        currency=command.currency,
        settled=settled,
    )


async def confirm_past_due(command: contract.ConfirmPastDueV1, call: Call, tx: Tx) -> contract.PastDueConfirmedV1:
    due = await tx.row(SQL["past_due"], call.tenant, command.subscription_id)
    return contract.PastDueConfirmedV1(subscription_id=command.subscription_id, past_due=due is not None)


async def close_subscription(
    command: contract.CloseSubscriptionV1, call: Call, tx: Tx
) -> contract.SubscriptionClosedV1:
    live = await tx.row(SQL["live"], call.tenant)
    if live is None:
        return contract.SubscriptionClosedV1()
    await tx.run(SQL["cancel"], call.tenant, live["subscription_id"])
    return contract.SubscriptionClosedV1(subscription_id=live["subscription_id"], status=live["status"])


async def reopen_subscription(
    command: contract.ReopenSubscriptionV1, call: Call, tx: Tx
) -> contract.SubscriptionReopenedV1:
    closed = command.receipt
    if closed is None or closed.subscription_id is None:
        return contract.SubscriptionReopenedV1()
    await tx.run(SQL["reopen"], call.tenant, closed.subscription_id, closed.status)
    return contract.SubscriptionReopenedV1(subscription_id=closed.subscription_id)


async def _live(call: Call, tx: Tx) -> Mapping[str, Any]:
    live = await tx.row(SQL["live"], call.tenant)
    if live is None:
        raise Refused("subscription_unknown", "the tenant has no live subscription")
    return live


async def get_subscription(
    query: contract.GetSubscriptionV1, question: Question, tx: Tx
) -> contract.SubscriptionSnapshotV1:
    live = await tx.row(SQL["live"], question.tenant)
    shown = live or await tx.row(SQL["latest"], question.tenant)
    if shown is None:
        return contract.SubscriptionSnapshotV1()
    return contract.SubscriptionSnapshotV1(**shown, live=0 if live is None else 1)


async def get_customer(query: contract.GetCustomerV1, question: Question, tx: Tx) -> contract.CustomerSnapshotV1:
    customer = await tx.row(SQL["customer_of"], question.tenant, query.account_id)
    if customer is None:
        return contract.CustomerSnapshotV1()
    paid = await tx.row(SQL["paid"], question.tenant, customer["customer_id"])
    assert paid is not None
    return contract.CustomerSnapshotV1(
        customer_id=customer["customer_id"], payments=paid["payments"], paid_minor=int(paid["paid_minor"])
    )
