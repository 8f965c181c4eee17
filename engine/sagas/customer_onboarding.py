"""From a sign-up to a customer who exists everywhere or nowhere: identity, billing, CRM, welcome mail, in this order,
with rollback.

The run then waits, without using resources, for the mail confirmation, for a sales review where the plan asks for one,
and for the first payment. What does not come in time unwinds the customer: nobody can log in without being billed, and
no contact is left that nobody can charge.
"""

from __future__ import annotations

from typing import Any

from engine.plan.code import Run, saga

DAY_SECONDS = 24 * 60 * 60.0


@saga(
    "customer-onboarding",
    version=1,
    on="crm.SignupRequestedV1",
    hook="/signup",
    attributes={"email": "/email", "plan": "/plan", "signup": "/signup_id"},
    subject="/email",
    personal=("/email", "/name"),
)
async def customer_onboarding(run: Run, signup: dict[str, Any]) -> dict[str, Any]:
    email, name = signup["email"], signup["name"]
    account = await run.step("create-account", "identity.create_user", email=email, name=name)
    customer = await run.step(
        "create-billing", "billing.create_customer", account_id=account["user_id"], email=email, name=name
    )
    contact = await run.step(
        "create-crm-contact", "crm.create_contact", customer_id=customer["customer_id"], email=email, name=name
    )
    await run.step(
        "send-welcome",
        "notifications.send_notification",
        template="welcome",
        to=email,
        recipient_id=account["user_id"],
        data={"name": name, "link": f"/confirm?user={account['user_id']}"},
    )

    await run.state("AwaitingConfirmation")
    confirmed = await run.wait_for(
        "mail-confirmed",
        "identity.EmailConfirmedV1",
        key=("user", account["user_id"]),
        timeout_seconds=7 * DAY_SECONDS,
    )
    if confirmed is None:
        raise run.fail("mail_not_confirmed", "the address was not confirmed within 7 days")

    if signup.get("plan") == "enterprise":
        await run.state("AwaitingReview")
        review = await run.approve(
            "sales-review",
            "Review a new enterprise customer",
            context={"customer_id": customer["customer_id"], "company": signup.get("company")},
            timeout_seconds=14 * DAY_SECONDS,
        )
        if not review["approved"]:
            raise run.fail("review_refused", "sales did not approve the customer")

    await run.state("AwaitingPayment")
    payment = await run.wait_for(
        "first-payment",
        "billing.FirstPaymentReceivedV1",
        key=("customer", customer["customer_id"]),
        timeout_seconds=30 * DAY_SECONDS,
    )
    if payment is None:
        raise run.fail("payment_missing", "no payment arrived within 30 days")

    await run.state("Active")
    return {
        "account_id": account["user_id"],
        "customer_id": customer["customer_id"],
        "contact_id": contact["contact_id"],
    }
