"""The crm module: sign-up requests, one contact per customer, and sales reviews."""

from __future__ import annotations

from consumers.modules.rehearsal import SQL as REHEARSAL
from consumers.modules.rehearsal import Rehearsal
from consumers.modules.settings import ModuleSettings
from contracts.modules import crm as contract
from contracts.sdk import Call, Question, Refused, Service, Transport, Tx
from contracts.sdk.statements import statements

SQL = statements("crm.sql", "consumers.modules")


def make(transport: Transport, settings: ModuleSettings) -> Service:
    service = Service(
        contract.MODULE,
        transport=transport,
        database=settings.database("crm"),
        schemas=(SQL["schema"], REHEARSAL["schema"]),
        max_attempts=settings.max_attempts,
        drain_seconds=settings.drain_seconds,
        relay_lease_seconds=settings.relay_lease_seconds,
    )
    Rehearsal(service, allowed=settings.rehearsals)
    service.handles(contract.RequestSignupV1)(request_signup)
    service.handles(contract.CreateContactV1)(create_contact)
    service.handles(contract.DeleteContactV1)(delete_contact)
    service.handles(contract.RecordSalesReviewV1)(record_review)
    service.answers(contract.FindContactV1)(find_contact)
    return service


async def request_signup(command: contract.RequestSignupV1, call: Call, tx: Tx) -> contract.SignupRequestedV1:
    return contract.SignupRequestedV1(
        signup_id=call.new_id("sgn"),
        email=command.email,
        name=command.name,
        company=command.company,
        plan=command.plan,
    )


async def create_contact(command: contract.CreateContactV1, call: Call, tx: Tx) -> contract.ContactCreatedV1:
    contact = call.new_id("con")
    if not await tx.run(SQL["add"], call.tenant, contact, command.customer_id, command.email, command.name, call.at):
        raise Refused("contact_exists", "the customer has a contact already")
    return contract.ContactCreatedV1(contact_id=contact, customer_id=command.customer_id, email=command.email)


async def delete_contact(command: contract.DeleteContactV1, call: Call, tx: Tx) -> contract.ContactDeletedV1:
    if command.receipt is None:
        return contract.ContactDeletedV1()
    await tx.run(SQL["delete"], call.tenant, command.receipt.contact_id)
    return contract.ContactDeletedV1(contact_id=command.receipt.contact_id)


async def record_review(command: contract.RecordSalesReviewV1, call: Call, tx: Tx) -> contract.SalesReviewCompletedV1:
    if await tx.row(SQL["find"], call.tenant, command.customer_id) is None:
        raise Refused("contact_unknown", "the customer has no contact")
    await tx.run(SQL["review"], call.tenant, command.customer_id, command.approved, command.reviewer, call.at)
    return contract.SalesReviewCompletedV1(
        customer_id=command.customer_id,
        approved=command.approved,
        reviewer=command.reviewer,
        comment=command.comment,
    )


async def find_contact(query: contract.FindContactV1, question: Question, tx: Tx) -> contract.ContactV1:
    contact = await tx.row(SQL["find"], question.tenant, query.customer_id)
    reviewed = await tx.row(SQL["reviewed"], question.tenant, query.customer_id)
    return contract.ContactV1(
        contact_id=None if contact is None else contact["contact_id"], reviewed=reviewed is not None
    )
