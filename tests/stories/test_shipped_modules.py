"""The shipped modules, by the bus alone: what they do, refuse and undo, and how they fail on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from consumers.modules import MailServer, ModuleSettings, shipped_modules
from consumers.modules.mailsink import MailSink
from contracts.envelope import Envelope
from contracts.modules import SHIPPED, audit, billing, configuration, crm, identity, notifications, tenancy
from contracts.modules.tenancy import PROVISIONING_STEPS
from contracts.notices import UNWIND
from contracts.registry import Registry
from contracts.sdk import Asker, open_transport
from tests.conformance.sdk.witness import DEADLINE_SECONDS, Witness, fact, order

REGISTRY = Registry(SHIPPED)


class Town:
    """The seven modules at work and a witness who gives them orders."""

    def __init__(self, witness: Witness, sink: MailSink, asker: Asker) -> None:
        self.witness = witness
        self.sink = sink
        self.asker = asker

    async def do(self, kind: str, *, key: str | None = None, tenant: str = "acme", **data: Any) -> Envelope:
        """Gives an order and answers its outcome."""
        command = order(kind, data, key=key, tenant=tenant)
        module = REGISTRY.command(kind).module
        outcomes = {module.type_of(outcome) for outcome in REGISTRY.command(kind).command.outcomes}
        before = len(self.witness.replies(command))

        def answers() -> list[Envelope]:
            return [event for event in self.witness.replies(command)[before:] if event.type in outcomes]

        await self.witness.give(command)
        await self.witness.until(lambda: bool(answers()))
        return answers()[0]

    async def undo(self, kind: str, done: str, **data: Any) -> Envelope:
        return await self.do(kind, key=f"{done}/undo", **data)

    def types(self) -> list[str]:
        return [event.type for event in self.witness.heard]


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("servers", marks=[pytest.mark.rabbitmq, pytest.mark.postgres]),
    ]
)
def settled(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str | None]:
    """Where bus and databases are."""
    if request.param == "servers":
        return str(request.getfixturevalue("rabbitmq_url")), str(request.getfixturevalue("postgres_url"))
    return f"embedded://{tmp_path / 'bus.db'}", None


@pytest.fixture
async def town(settled: tuple[str, str | None], tmp_path: Path) -> AsyncIterator[Town]:
    bus_url, database_url = settled
    witness = Witness(open_transport(bus_url, name="witness"))
    await witness.start()
    sink = MailSink(folder=tmp_path / "mail", refusals={"nobody@example.org": "550 no such user"})
    transport = open_transport(bus_url, name="modules")
    await transport.start()
    settings = ModuleSettings(
        data_dir=tmp_path,
        mail=MailServer(port=await sink.start()),
        database_url=database_url,
        rehearsals=True,
        max_attempts=2,
    )
    modules = shipped_modules(transport, settings)
    await asyncio.gather(*(module.start() for module in modules))
    asker = Asker(witness.transport, name="tester")
    yield Town(witness, sink, asker)
    await asker.stop()
    await asyncio.gather(*(module.stop() for module in modules))
    await transport.stop()
    await witness.stop()
    await sink.stop()


OWNER = {"owner_email": "ann@example.org", "owner_name": "Ann"}


async def test_a_tenant_becomes_active_only_when_every_step_is_reported(town: Town) -> None:
    registered = await town.do("tenancy.RegisterTenantV1", name="Acme", **OWNER)
    assert registered.type == "tenancy.TenantRegisteredV1"
    await town.do("tenancy.BeginProvisioningV1")
    for left_out in PROVISIONING_STEPS:
        refused = await town.do(
            "tenancy.ActivateTenantV1", steps=[step for step in PROVISIONING_STEPS if step != left_out]
        )
        assert (refused.type, refused.data["code"]) == ("tenancy.TenantTransitionRefusedV1", "steps_missing")
    assert (await town.do("tenancy.CompleteProvisioningStepV1", step="owner")).data["remaining"] == [
        "subscription",
        "entitlements",
        "activation_mail",
    ]
    active = await town.do("tenancy.ActivateTenantV1", steps=["subscription", "entitlements", "activation_mail"])
    assert (active.type, active.data["state"]) == ("tenancy.TenantProvisionedV1", "Active")
    assert active.data["owner_id"] == registered.data["owner_id"]


async def test_what_the_table_does_not_hold_is_refused_and_changes_nothing(town: Town) -> None:
    assert (await town.do("tenancy.SuspendTenantV1", reason="x")).data["code"] == "tenant_unknown"
    await town.do("tenancy.RegisterTenantV1", name="Acme", **OWNER)
    refused = await town.do("tenancy.SuspendTenantV1", reason="policy")
    assert refused.type == "tenancy.TenantTransitionRefusedV1"
    assert (refused.data["code"], refused.data["state"]) == ("transition_refused", "Registered")
    again = await town.do("tenancy.RegisterTenantV1", name="Acme", **OWNER)
    assert again.data["code"] == "tenant_exists"
    snapshot = await town.asker.ask(
        tenancy.MODULE, tenancy.GetTenantV1(), tenancy.TenantSnapshotV1, tenant="acme", deadline_seconds=10
    )
    assert (snapshot.state, snapshot.revision) == ("Registered", 1)


@pytest.mark.parametrize(
    ("cause", "state", "fact_type"),
    [
        ("failed", "ProvisioningFailed", "tenancy.TenantProvisioningFailedV1"),
        ("cancelled", "ProvisioningFailed", "tenancy.TenantProvisioningFailedV1"),
        ("timed_out", "ProvisioningFailed", "tenancy.TenantProvisioningTimedOutV1"),
        ("abandoned", "Decommissioned", "tenancy.TenantDecommissionedV1"),
    ],
)
async def test_the_cause_of_the_unwinding_decides_where_a_tenant_goes(
    town: Town, cause: str, state: str, fact_type: str
) -> None:
    await town.do("tenancy.RegisterTenantV1", name="Acme", **OWNER)
    begun = await town.do("tenancy.BeginProvisioningV1", key="run/begin/1")
    undone = await town.undo("tenancy.RevertProvisioningV1", "run/begin/1", input={}, receipt=begun.data, cause=cause)
    assert (undone.type, undone.data["state"]) == ("tenancy.ProvisioningRevertedV1", state)
    assert town.types().count(fact_type) == 1


async def _hear(town: Town, kind: str, tenant: str, **data: Any) -> None:
    notice = fact(UNWIND.source, kind, {"run_id": "r1", "workflow_version": 1, **data}, tenant=tenant)
    await town.witness.give_raw(notice.type, notice.to_json(), exchange="unwind.events")


@pytest.mark.parametrize("in_order", [True, False])
async def test_a_tenant_goes_with_its_onboarding_whichever_notice_comes_first_and_with_no_other_run(
    town: Town, in_order: bool
) -> None:
    given_up = {"state": "Decommissioned", "previous": "ProvisioningFailed"}
    notices: list[tuple[str, dict[str, Any]]] = [
        ("unwind.RunParkedV1", {"incident": "i1", "reason": "step_failed", "step": "begin"}),
        ("unwind.RunStateEnteredV1", {"state": "ProvisioningFailed", "previous": "Registered"}),
        ("unwind.RunStateEnteredV1", given_up),
    ]
    for tenant in ("acme", "globex"):
        await town.do("tenancy.RegisterTenantV1", tenant=tenant, name=tenant, **OWNER)
    for kind, data in notices:
        await _hear(town, kind, "globex", workflow="another", **data)
    for kind, data in notices if in_order else notices[::-1]:
        await _hear(town, kind, "acme", workflow=tenancy.ONBOARDING, **data)
    moved = [
        "tenancy.TenantProvisioningStartedV1",
        "tenancy.TenantProvisioningFailedV1",
        "tenancy.TenantDecommissionedV1",
    ]
    await town.witness.until(lambda: moved[-1] in town.types())
    assert [kind for kind in town.types() if kind in moved] == moved
    for tenant, state, revision in (("acme", "Decommissioned", 4), ("globex", "Registered", 1)):
        snapshot = await town.asker.ask(
            tenancy.MODULE, tenancy.GetTenantV1(), tenancy.TenantSnapshotV1, tenant=tenant, deadline_seconds=10
        )
        assert (snapshot.state, snapshot.revision) == (state, revision)


async def test_a_failed_tenant_begins_again_or_is_abandoned(town: Town) -> None:
    await town.do("tenancy.RegisterTenantV1", name="Acme", **OWNER)
    await town.do("tenancy.BeginProvisioningV1")
    assert (await town.do("tenancy.FailProvisioningV1", reason="no card", step="subscription")).data["state"] == (
        "ProvisioningFailed"
    )
    assert (await town.do("tenancy.BeginProvisioningV1")).data["previous"] == "ProvisioningFailed"
    await town.do("tenancy.FailProvisioningV1", reason="no card")
    assert (await town.do("tenancy.DecommissionTenantV1", reason="abandoned")).data["state"] == "Decommissioned"
    refused = await town.do("tenancy.BeginProvisioningV1")
    assert refused.data["code"] == "transition_refused"


async def test_an_undone_suspension_reinstates_the_tenant(town: Town) -> None:
    await town.do("tenancy.RegisterTenantV1", name="Acme", **OWNER)
    await town.do("tenancy.BeginProvisioningV1")
    await town.do("tenancy.ActivateTenantV1", steps=list(PROVISIONING_STEPS))
    suspended = await town.do("tenancy.SuspendTenantV1", key="run/suspend/1", reason="past due")
    undone = await town.undo(
        "tenancy.UndoSuspensionV1", "run/suspend/1", input={"reason": "past due"}, receipt=suspended.data
    )
    assert undone.data["state"] == "Active"
    assert town.types().count("tenancy.TenantReinstatedV1") == 1


async def test_a_user_who_is_removed_cannot_sign_in_and_frees_the_address(town: Town) -> None:
    person = {"email": "Bob@Example.org", "name": "Bob"}
    created = await town.do("identity.CreateUserV1", key="run/account/1", **person)
    assert (await _sign_in(town)).allowed
    assert (await town.do("identity.CreateUserV1", **person)).data["code"] == "email_taken"
    await town.undo("identity.RemoveUserV1", "run/account/1", input=person, receipt=created.data)
    assert (await _sign_in(town)).reason == "unknown"
    assert (await town.do("identity.CreateUserV1", **person)).type == "identity.UserCreatedV1"


async def test_an_invitation_that_is_withdrawn_lets_nobody_in_and_may_be_repeated(town: Town) -> None:
    person = {"email": "bob@example.org", "name": "Bob", "user_id": "usr_1"}
    invited = await town.do("identity.InviteUserV1", key="run/owner/1", **person)
    assert (await _sign_in(town)).reason == "invited"
    await town.undo("identity.DisableUserV1", "run/owner/1", input=person, receipt=invited.data)
    assert (await _sign_in(town)).reason == "disabled"
    assert (await town.do("identity.ActivateUserV1", user_id="usr_1")).data["code"] == "user_unknown"
    assert (await town.do("identity.InviteUserV1", key="run/owner/2", **person)).data["user_id"] == "usr_1"
    await town.do("identity.ActivateUserV1", user_id="usr_1")
    assert (await _sign_in(town)).allowed


async def test_blocked_sign_ins_stop_everybody_until_they_are_allowed(town: Town) -> None:
    await town.do("identity.CreateUserV1", email="bob@example.org", name="Bob")
    await town.do("identity.BlockSignInsV1", reason="past due")
    assert (await _sign_in(town)).reason == "blocked"
    await town.do("identity.AllowSignInsV1")
    assert (await _sign_in(town)).allowed


async def test_a_tenant_has_one_live_subscription(town: Town) -> None:
    first = await town.do("billing.CreateSubscriptionV1", key="run/subscription/1", edition="standard", trial=True)
    assert (first.type, first.data["status"]) == ("billing.SubscriptionActivatedV1", "trial")
    assert (await town.do("billing.CreateSubscriptionV1", edition="standard")).data["code"] == "already_subscribed"
    assert (await town.do("billing.CreateSubscriptionV1", edition="gold")).data["code"] == "edition_not_sold"
    await town.undo(
        "billing.CancelSubscriptionV1",
        "run/subscription/1",
        input={"edition": "standard", "trial": True},
        receipt=first.data,
    )
    snapshot = await town.asker.ask(
        billing.MODULE, billing.GetSubscriptionV1(), billing.SubscriptionSnapshotV1, tenant="acme", deadline_seconds=10
    )
    assert (snapshot.status, snapshot.live) == ("cancelled", 0)


async def test_the_first_payment_of_a_customer_is_a_fact_of_its_own(town: Town) -> None:
    customer = await town.do("billing.CreateCustomerV1", account_id="usr_1", email="b@example.org", name="Bob")
    identity_of = customer.data["customer_id"]
    first = await town.do("billing.RecordPaymentV1", customer_id=identity_of, amount_minor=900, currency="EUR")
    second = await town.do("billing.RecordPaymentV1", customer_id=identity_of, amount_minor=900, currency="EUR")
    assert (first.data["first"], second.data["first"]) == (True, False)
    assert town.types().count("billing.FirstPaymentReceivedV1") == 1
    snapshot = await town.asker.ask(
        billing.MODULE,
        billing.GetCustomerV1(account_id="usr_1"),
        billing.CustomerSnapshotV1,
        tenant="acme",
        deadline_seconds=10,
    )
    assert (snapshot.payments, snapshot.paid_minor) == (2, 1800)


async def test_entitlements_are_revoked_only_by_the_undo_of_the_order_that_applied_them(town: Town) -> None:
    first = await town.do("configuration.ApplyEntitlementsV1", key="run/a/1", edition="free")
    await town.do("configuration.ApplyEntitlementsV1", key="run/b/1", edition="enterprise")
    await town.undo("configuration.RevokeEntitlementsV1", "run/a/1", input={"edition": "free"}, receipt=first.data)
    assert (await _entitled(town)).edition == "enterprise"
    await town.undo("configuration.RevokeEntitlementsV1", "run/b/1", input={"edition": "enterprise"})
    assert (await _entitled(town)).edition is None


async def test_a_contact_is_reviewed_and_deleted_with_its_customer(town: Town) -> None:
    given = {"customer_id": "cus_1", "email": "b@example.org", "name": "Bob"}
    contact = await town.do("crm.CreateContactV1", key="run/contact/1", **given)
    reviewed = await town.do("crm.RecordSalesReviewV1", customer_id="cus_1", approved=True, reviewer="sam")
    assert reviewed.type == "crm.SalesReviewCompletedV1"
    await town.undo("crm.DeleteContactV1", "run/contact/1", input=given, receipt=contact.data)
    found = await town.asker.ask(
        crm.MODULE, crm.FindContactV1(customer_id="cus_1"), crm.ContactV1, tenant="acme", deadline_seconds=10
    )
    assert found.contact_id is None


async def test_a_mail_ordered_many_times_is_one_mail(town: Town) -> None:
    data = {
        "template": "welcome",
        "to": "bob@example.org",
        "recipient_id": "usr_1",
        "data": {"name": "Bob", "link": "/confirm"},
    }
    command = order("notifications.SendNotificationV1", data)
    await town.witness.give(command, copies=5)
    await town.witness.reply(command, 5)
    message_id = town.witness.replies(command)[0].data["message_id"]
    assert dict(town.sink.count_by_id) == {message_id: 1}
    mail = town.sink.mails[0]
    assert (mail.to, mail.subject, mail.tenant) == (("bob@example.org",), "Welcome, Bob", "acme")
    assert "http://127.0.0.1:8080/confirm" in mail.body
    sent = await town.asker.ask(
        notifications.MODULE,
        notifications.GetSentNotificationsV1(recipient_id="usr_1"),
        notifications.SentNotificationsV1,
        tenant="acme",
        deadline_seconds=10,
    )
    assert sent.message_ids == [message_id]


async def test_mails_that_can_never_be_sent_are_refused_for_good(town: Town) -> None:
    async def code(**data: Any) -> str:
        reply = await town.do("notifications.SendNotificationV1", template="welcome", **data)
        assert reply.type == "notifications.NotificationRefusedV1"
        return str(reply.data["code"])

    assert await code(to="nobody@example.org", data={"name": "Bob", "link": "/confirm"}) == "mail_refused"
    assert await code(to="bob@example.org") == "value_missing"
    for addresses in (
        "bob@example.org\nBcc: all@example.org",
        "bob@example.org\r\n\r\nanother body",
        "bob@example.org, all@example.org",
        "all: a@example.org, b@example.org;",
        "",
    ):
        assert await code(to=addresses, data={"name": "Bob", "link": "/confirm"}) == "address_invalid"
    assert town.sink.mails == type(town.sink.mails)()


async def test_paused_sending_and_a_mail_server_that_is_away_are_worth_another_try(town: Town) -> None:
    data: dict[str, Any] = {"template": "welcome", "to": "bob@example.org", "data": {"name": "Bob", "link": "/confirm"}}
    await town.do("notifications.PauseSendingV1", paused=True)
    paused = await town.do("notifications.SendNotificationV1", **data)
    assert (paused.type, paused.data["code"]) == ("notifications.NotificationDelayedV1", "sending_paused")
    await town.do("notifications.PauseSendingV1", paused=False)
    port = town.sink.port
    await town.sink.stop()
    key = "run/mail/1"
    away = await town.do("notifications.SendNotificationV1", key=key, **data)
    assert away.type == "notifications.NotificationDelayedV1"
    await town.sink.start(port=port)
    assert (await town.do("notifications.SendNotificationV1", key=key, **data)).type == (
        "notifications.NotificationSentV1"
    )
    assert len(town.sink.mails) == 1


async def test_every_transition_of_tenants_and_runs_is_audited_once(town: Town) -> None:
    await town.do("tenancy.RegisterTenantV1", name="Acme", **OWNER)
    await town.do("tenancy.BeginProvisioningV1")
    notice = fact(
        UNWIND.source,
        "unwind.RunStateEnteredV1",
        {"run_id": "r1", "workflow": "w", "workflow_version": 1, "state": "Provisioning", "previous": "Registered"},
    )
    for _ in range(3):
        await town.witness.give_raw(notice.type, notice.to_json(), exchange="unwind.events")
    recorded = "audit.AuditEntryRecordedV1"
    await town.witness.until(lambda: town.types().count(recorded) >= 3)
    entries = (
        await town.asker.ask(
            audit.MODULE, audit.ListAuditEntriesV1(), audit.AuditEntriesV1, tenant="acme", deadline_seconds=10
        )
    ).entries
    told = {(entry.subject, entry.previous, entry.state) for entry in entries}
    assert told == {
        ("tenant/acme", None, "Registered"),
        ("tenant/acme", "Registered", "Provisioning"),
        ("run/r1", "Registered", "Provisioning"),
    }
    assert [entry.number for entry in entries] == [1, 2, 3]
    about = {event.data["about_id"] for event in town.witness.heard if event.type == recorded}
    assert about == {entry.about_id for entry in entries}


@pytest.mark.parametrize(
    ("mode", "answer"), [("retryable", "billing.BillingUnavailableV1"), ("irrecoverable", "billing.BillingRefusedV1")]
)
async def test_a_scripted_failure_happens_as_often_as_asked_for(town: Town, mode: str, answer: str) -> None:
    await town.do("billing.ScriptFaultV1", command="CreateCustomerV1", mode=mode, times=2, code="card_declined")
    outcomes = [
        await town.do("billing.CreateCustomerV1", account_id=f"usr_{n}", email="b@example.org", name="Bob")
        for n in range(3)
    ]
    assert [outcome.type for outcome in outcomes] == [answer, answer, "billing.CustomerCreatedV1"]
    assert outcomes[0].data["code"] == "card_declined"


async def test_scripted_answers_are_doubled_lost_or_garbled_after_one_effect(town: Town) -> None:
    given = {"email": "b@example.org", "name": "Bob"}
    await town.do("billing.ScriptFaultV1", command="CreateCustomerV1", mode="twice", key="double")
    double = order("billing.CreateCustomerV1", {"account_id": "a", **given}, key="run/double/1")
    await town.witness.give(double)
    await town.witness.reply(double, 2)
    assert len({reply.id for reply in town.witness.replies(double)}) == 1

    await town.do("billing.ScriptFaultV1", command="CreateCustomerV1", mode="garbage", key="garble")
    garbled = await town.witness.give(
        order("billing.CreateCustomerV1", {"account_id": "b", **given}, key="run/garble/1")
    )
    await town.witness.until(lambda: len(town.witness.garbage) == 1)
    assert town.witness.replies(garbled) == []
    await town.witness.give(garbled)
    assert (await town.witness.reply(garbled)).type == "billing.CustomerCreatedV1"

    await town.do("billing.ScriptFaultV1", command="CreateCustomerV1", mode="mute", key="mute")
    mute = await town.witness.give(order("billing.CreateCustomerV1", {"account_id": "c", **given}, key="run/mute/1"))
    await _until_customer(town, "c")
    assert town.witness.replies(mute) == []
    await town.witness.give(mute)
    assert (await town.witness.reply(mute)).type == "billing.CustomerCreatedV1"


async def test_a_scripted_crash_becomes_a_dead_letter_and_another_tenant_notices_nothing(town: Town) -> None:
    given = {"account_id": "a", "email": "b@example.org", "name": "Bob"}
    await town.do("billing.ScriptFaultV1", command="CreateCustomerV1", mode="crash", times=9)
    crashed = await town.witness.give(order("billing.CreateCustomerV1", given))
    other = await town.do("billing.CreateCustomerV1", tenant="globex", **given)
    assert other.type == "billing.CustomerCreatedV1"
    await town.witness.until(lambda: len(town.witness.dead) == 1)
    assert town.witness.dead[0].body == crashed.to_json()


async def test_a_module_without_rehearsals_refuses_to_fail_on_request(tmp_path: Path) -> None:
    bus_url = f"embedded://{tmp_path / 'bus.db'}"
    witness = Witness(open_transport(bus_url, name="witness"))
    await witness.start()
    transport = open_transport(bus_url, name="modules")
    await transport.start()
    modules = shipped_modules(transport, ModuleSettings(data_dir=tmp_path, mail=MailServer(port=9)))
    await asyncio.gather(*(module.start() for module in modules))
    try:
        for module in modules:
            name = module.module.name
            asked = {"command": "CreateCustomerV1", "mode": "crash"}
            refused = await witness.reply(await witness.give(order(f"{name}.ScriptFaultV1", asked)))
            assert (refused.type, refused.data["code"]) == (f"{name}.FaultScriptRefusedV1", "rehearsals_off")
    finally:
        await asyncio.gather(*(module.stop() for module in modules))
        await transport.stop()
        await witness.stop()


async def _sign_in(town: Town) -> identity.SignInAnswerV1:
    return await town.asker.ask(
        identity.MODULE,
        identity.CanSignInV1(email="bob@example.org"),
        identity.SignInAnswerV1,
        tenant="acme",
        deadline_seconds=10,
    )


async def _entitled(town: Town) -> configuration.EntitlementsV1:
    return await town.asker.ask(
        configuration.MODULE,
        configuration.GetEntitlementsV1(),
        configuration.EntitlementsV1,
        tenant="acme",
        deadline_seconds=10,
    )


async def _until_customer(town: Town, account: str) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            found = await town.asker.ask(
                billing.MODULE,
                billing.GetCustomerV1(account_id=account),
                billing.CustomerSnapshotV1,
                tenant="acme",
                deadline_seconds=10,
            )
            if found.customer_id is not None:
                return
