"""A customer is onboarded: identity, billing, CRM, welcome mail, in this order; then confirmation, review and payment.
Whatever cannot succeed, or does not come in time, leaves nobody half-made."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from contracts.modules import billing, crm, identity
from engine.guards.signatures import sign_plain, sign_standard
from tests.stories.house import SIGNUP_SECRET, House, MovableClock, Stack, until
from tests.stories.understudy import asked, fact, success

STEPS = ("create-account", "create-billing", "create-crm-contact", "send-welcome")
OUTCOMES = (
    "identity.UserCreatedV1",
    "billing.CustomerCreatedV1",
    "crm.ContactCreatedV1",
    "notifications.NotificationSentV1",
)
WITHOUT_MAIL = ("tenancy", "identity", "billing", "configuration", "crm", "audit")


async def _sign_in(house: House, tenant: str, who: str = "bob") -> identity.SignInAnswerV1:
    query = identity.CanSignInV1(email=f"{who}@customer.example")
    return await house.ask(identity.MODULE, query, identity.SignInAnswerV1, tenant)


async def _customer(house: House, tenant: str, account: str) -> billing.CustomerSnapshotV1:
    query = billing.GetCustomerV1(account_id=account)
    return await house.ask(billing.MODULE, query, billing.CustomerSnapshotV1, tenant)


async def _contact(house: House, tenant: str, customer: str) -> crm.ContactV1:
    return await house.ask(crm.MODULE, crm.FindContactV1(customer_id=customer), crm.ContactV1, tenant)


async def _made(house: House, run: str) -> tuple[str, str]:
    """The ids of account and customer, once the read model shows them."""
    account = await house.until_step(run, "create-account", lambda step: bool(step["output"]))
    customer = await house.until_step(run, "create-billing", lambda step: bool(step["output"]))
    return account["output"]["user_id"], customer["output"]["customer_id"]


async def _confirm(house: House, tenant: str, account: str) -> None:
    await house.order(tenant, "identity.ConfirmEmailV1", user_id=account)


async def _pay(house: House, tenant: str, customer: str) -> None:
    await house.order(tenant, "billing.RecordPaymentV1", customer_id=customer, amount_minor=4900, currency="EUR")


async def _nothing_is_left(house: House, tenant: str, run: str) -> None:
    """No login without billing, no contact without customer: here, none of them."""
    steps = await house.steps(run)
    assert not (await _sign_in(house, tenant)).allowed
    if steps["create-account"]["output"]:
        account = steps["create-account"]["output"]["user_id"]
        assert (await _customer(house, tenant, account)).customer_id is None
    if (steps.get("create-billing") or {}).get("output"):
        customer = steps["create-billing"]["output"]["customer_id"]
        assert (await _contact(house, tenant, customer)).contact_id is None


@pytest.mark.acceptance("H14")
async def test_a_customer_is_made_everywhere_in_order_with_ids_passed_on(stack: Stack) -> None:
    async with House(stack) as house:
        run = await house.sign_up("acme")
        await house.until_state(run, "AwaitingConfirmation")
        account, customer = await _made(house, run)
        await _confirm(house, "acme", account)
        await house.until_state(run, "AwaitingPayment")
        await _pay(house, "acme", customer)
        ended = await house.until_status(run, "succeeded")

        said = [event for event in house.ear.events(tenant="acme") if event.type in OUTCOMES]
        assert tuple(event.type for event in said) == OUTCOMES
        assert said[1].data["account_id"] == account == said[0].data["user_id"]
        assert said[2].data["customer_id"] == customer == said[1].data["customer_id"]
        assert said[3].data["recipient_id"] == account
        assert ended["output"] == {
            "account_id": account,
            "customer_id": customer,
            "contact_id": said[2].data["contact_id"],
        }
        assert (await _sign_in(house, "acme")).user_id == account
        bill = await _customer(house, "acme", account)
        assert (bill.customer_id, bill.payments, bill.paid_minor) == (customer, 1, 4900)
        assert (await _contact(house, "acme", customer)).contact_id == said[2].data["contact_id"]
        assert house.host.sink is not None
        assert [(mail.to, mail.subject) for mail in house.host.sink.mails] == [
            (("bob@customer.example",), "Welcome, Bob")
        ]
        took = datetime.fromisoformat(ended["ended_at"]) - datetime.fromisoformat(ended["started_at"])
        assert 0 < took.total_seconds() < 60
        found = await house.api.get("/v1/runs", tenant="acme", attribute="email:bob@customer.example")
        assert [one["run_id"] for one in found["items"]] == [run]


@pytest.mark.acceptance("A8")
async def test_the_signup_webhook_starts_the_saga_by_token_or_signature_and_by_nothing_else(stack: Stack) -> None:
    async with House(stack) as house:
        form = {"signup_id": "s-1", "email": "ann@customer.example", "name": "Ann"}
        body = orjson.dumps(form)

        async def post(headers: dict[str, str], content: bytes = body) -> tuple[int, Any]:
            async with house.session.post(f"{house.url}/signup", data=content, headers=headers) as answer:
                return answer.status, await answer.json()

        tenant = {"X-Tenant": "signed"}
        signature = {"X-Hub-Signature-256": sign_plain(body, SIGNUP_SECRET)}
        status, begun = await post(tenant | signature)
        assert status == 202
        again = await post(tenant | signature)
        assert (again[0], again[1]["run_id"], again[1]["duplicate"]) == (200, begun["run_id"], True)

        late = sign_standard("m-1", datetime(2020, 1, 1, tzinfo=UTC), body, SIGNUP_SECRET)
        changed = body.replace(b"Ann", b"Eve")
        refusals = [
            await post(tenant),
            await post(tenant | {"X-Hub-Signature-256": sign_plain(body, "another secret")}),
            await post(tenant | signature, changed),
            await post(tenant | late),
            await post(tenant | {"Authorization": "Bearer unw_wrong"}),
        ]
        assert {status for status, _ in refusals} == {401}
        assert len({orjson.dumps(problem) for _, problem in refusals}) == 1

        by_token = await house.sign_up("token", "ann")
        by_standard = await post(
            {"X-Tenant": "standard"} | sign_standard("m-2", datetime.now(UTC), body, SIGNUP_SECRET)
        )
        assert by_standard[0] == 202
        for run, where in ((begun["run_id"], "signed"), (by_token, "token"), (by_standard[1]["run_id"], "standard")):
            await house.until_state(run, "AwaitingConfirmation")
            account, customer = await _made(house, run)
            await _confirm(house, where, account)
            await house.until_state(run, "AwaitingPayment")
            await _pay(house, where, customer)
            ended = await house.until_status(run, "succeeded")
            assert ended["trigger"]["kind"] == "hook"
            assert ended["output"]["account_id"] == account
            page = await house.api.get("/v1/runs", tenant=where, workflow="customer-onboarding")
            assert len(page["items"]) == 1


@pytest.mark.acceptance("H15")
async def test_whichever_step_cannot_succeed_no_half_made_customer_is_left(stack: Stack) -> None:
    commands = {
        "create-account": "identity.CreateUserV1",
        "create-billing": "billing.CreateCustomerV1",
        "create-crm-contact": "crm.CreateContactV1",
        "send-welcome": "notifications.SendNotificationV1",
    }
    undos = {
        "create-account": "identity.RemoveUserV1",
        "create-billing": "billing.CloseCustomerV1",
        "create-crm-contact": "crm.DeleteContactV1",
    }
    async with House(stack) as house:

        async def fail(step: str) -> None:
            tenant = f"no-{step}"
            await house.script(tenant, commands[step], "irrecoverable", code="not_today")
            run = await house.sign_up(tenant)
            done = STEPS[: STEPS.index(step)]
            ended = await house.until_status(run, "compensated" if done else "failed")
            assert (ended["error_code"], ended["left"]) == ("not_today", [])
            await _nothing_is_left(house, tenant, run)
            steps = await house.steps(run)
            given = {}
            for name in done:
                [undo] = house.ear.commands(undos[name], tenant=tenant)
                given[name] = undo.time
                # Whoever undoes is told what was done, what came of it, and why it is undone.
                assert undo.data["cause"] == "failed"
                [order] = house.ear.commands(commands[name], tenant=tenant)
                assert undo.data["input"] == order.data
                assert undo.data["receipt"].keys() == steps[name]["output"].keys()
            assert sorted(given, key=lambda name: given[name]) == list(done)[::-1]
            assert house.host.sink is not None
            assert [mail for mail in house.host.sink.mails if mail.tenant == tenant] == []

        await asyncio.gather(*(fail(step) for step in STEPS))


@pytest.mark.acceptance("H12")
async def test_one_trace_and_one_story_lead_from_the_event_to_the_last_mail(stack: Stack) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    data = {"signup_id": "s-1", "email": "bob@customer.example", "name": "Bob"}
    began = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "correlationid": "web/basket 7"}
    async with House(stack) as house:
        body = {"type": "crm.SignupRequestedV1", "data": data, **began}
        published = await house.api.post("/v1/events", body, tenant="acme")
        page = await until(lambda: house.api.get("/v1/runs", tenant="acme"), lambda found: found["items"])
        run = await house.until_state(page["items"][0]["run_id"], "AwaitingConfirmation")

        said = [*house.ear.events(tenant="acme"), *house.ear.commands(tenant="acme")]
        assert {(one.correlationid, str(one.traceparent).split("-")[1]) for one in said} == {("web/basket 7", trace)}
        assert [one.id for one in said if one.causationid is None] == [published["id"]]
        tree = await house.api.get("/v1/causation/web%2Fbasket%207", tenant="acme", as_of=run["as_of"])
        [root] = tree["roots"]
        assert (root["kind"], root["id"], root["name"]) == ("event", published["id"], "crm.SignupRequestedV1")
        [child] = root["children"]
        assert child["run_id"] == run["run_id"]
        ordered = {node["id"]: node["name"] for node in child["children"] if node["kind"] == "step"}
        assert ordered.keys() == {command.id for command in house.ear.commands(tenant="acme")}
        assert list(ordered.values())[-1] == "notifications.send_notification"

        # A request names its trace in the header that every tracer writes, whichever way it starts a run.
        form = {"signup_id": "s-2", "email": "ann@customer.example", "name": "Ann"}
        owner = {"owner_email": "owner@initech.example", "owner_name": "Bill"}
        requests = {
            "globex": ("/signup", form, {"X-Tenant": "globex"}),
            "initech": ("/v1/tenants", {"tenant": "initech", "name": "Initech", **owner}, {}),
        }
        for tenant, (path, asked_for, headers) in requests.items():
            headers |= {"Authorization": f"Bearer {house.token}", "traceparent": began["traceparent"]}
            async with house.session.post(house.url + path, json=asked_for, headers=headers) as answer:
                begun = await answer.json()
                assert answer.status == 202, begun
            await house.until_run(
                begun["run_id"], lambda found: found["business_state"] in ("AwaitingConfirmation", "Active")
            )
            said = [*house.ear.events(tenant=tenant), *house.ear.commands(tenant=tenant)]
            assert {str(one.traceparent).split("-")[1] for one in said} == {trace}

        # The trace finds each of them, and the tree of the story that it belongs to.
        for tenant in ("acme", *requests):
            page = await house.api.get("/v1/runs", tenant=tenant, trace_id=trace)
            shown = await house.cli("runs", "list", "--tenant", tenant, "--trace-id", trace)
            [found] = page["items"]
            assert (found["tenant"], found["trace_id"]) == (tenant, trace)
            assert [one["run_id"] for one in shown["items"]] == [found["run_id"]]
            story = found["correlation_id"].replace("/", "%2F").replace(" ", "%20")
            tree = await house.api.get(f"/v1/causation/{story}", tenant=tenant)
            assert [one["run_id"] for one in tree["roots"][0]["children"]] == [found["run_id"]]
        assert (await house.api.get("/v1/runs", trace_id="0" * 31 + "1"))["items"] == []


@pytest.mark.acceptance("H16")
@pytest.mark.parametrize("first", ["confirmation", "payment"])
async def test_a_confirmation_and_a_payment_that_came_before_the_wait_are_not_missed_in_whichever_order(
    stack: Stack, first: str
) -> None:
    async with House(stack, modules=WITHOUT_MAIL) as house:
        run = await house.sign_up("early")
        mail = await asked(house, "notifications.SendNotificationV1", "early")
        account, customer = await _made(house, run)
        if first == "payment":
            await _pay(house, "early", customer)
        await _confirm(house, "early", account)
        if first == "confirmation":
            await _pay(house, "early", customer)
        still = await house.until_run(run, lambda _: True)
        assert still["business_state"] is None
        await house.ear.send(success(mail))
        ended = await house.until_status(run, "succeeded")
        states = [entry["event"]["name"] for entry in await house.timeline(run) if entry["topic"] == "state.entered"]
        assert states == ["AwaitingConfirmation", "AwaitingPayment", "Active"]
        assert ended["output"]["account_id"] == account


@pytest.mark.acceptance("H16")
async def test_a_review_decides_and_only_who_holds_its_role_may_decide(stack: Stack) -> None:
    async with House(stack) as house:
        form = {"plan": "enterprise", "company": "Big & Co"}
        runs = {who: await house.sign_up("acme", who, **form) for who in ("ann", "bob")}
        for who, run in runs.items():
            await house.until_state(run, "AwaitingConfirmation")
            account, customer = await _made(house, run)
            await _confirm(house, "acme", account)
            await house.until_state(run, "AwaitingReview")
            await house.until_heard("unwind.ApprovalRequestedV1", tenant="acme")
            viewer = await house.make_token("viewer", "acme")
            refused = await house.refused(f"/v1/runs/{run}/approvals/sales-review", {"approved": True}, token=viewer)
            assert refused["status"] == 403
            answer = {"approved": who == "ann", "comment": "as discussed"}
            await house.api.post(f"/v1/runs/{run}/approvals/sales-review", answer)
            if who == "ann":
                await house.until_state(run, "AwaitingPayment")
                await _pay(house, "acme", customer)
        assert (await house.until_status(runs["ann"], "succeeded"))["business_state"] == "Active"
        lost = await house.until_status(runs["bob"], "compensated")
        assert lost["error_code"] == "review_refused"
        assert not (await _sign_in(house, "acme", "bob")).allowed


@pytest.mark.acceptance("H16")
async def test_what_does_not_come_in_time_unwinds_and_what_comes_later_is_ignored(stack: Stack) -> None:
    clock = MovableClock()
    async with House(stack, clock=clock) as house:
        runs = {
            "unconfirmed": await house.sign_up("unconfirmed"),
            "unreviewed": await house.sign_up("unreviewed", plan="enterprise"),
            "unpaid": await house.sign_up("unpaid"),
        }
        accounts, customers = {}, {}
        for tenant, run in runs.items():
            await house.until_state(run, "AwaitingConfirmation")
            accounts[tenant], customers[tenant] = await _made(house, run)
        await _confirm(house, "unreviewed", accounts["unreviewed"])
        await _confirm(house, "unpaid", accounts["unpaid"])
        await house.until_state(runs["unreviewed"], "AwaitingReview")
        await house.until_state(runs["unpaid"], "AwaitingPayment")

        clock.forward(days=8)
        assert (await house.until_status(runs["unconfirmed"], "compensated"))["error_code"] == "mail_not_confirmed"
        clock.forward(days=7)
        assert (await house.until_status(runs["unreviewed"], "compensated"))["error_code"] == "review_refused"
        assert (await house.until_status(runs["unpaid"], "waiting"))["business_state"] == "AwaitingPayment"
        clock.forward(days=16)
        assert (await house.until_status(runs["unpaid"], "compensated"))["error_code"] == "payment_missing"
        for tenant, run in runs.items():
            await _nothing_is_left(house, tenant, run)

        versions = {tenant: (await house.run(run) or {})["version"] for tenant, run in runs.items()}
        confirmed = {"user_id": accounts["unconfirmed"], "email": "bob@customer.example"}
        await house.ear.send(fact("identity.EmailConfirmedV1", confirmed, tenant="unconfirmed"))
        paid = {"customer_id": customers["unpaid"], "payment_id": "pay_1", "amount_minor": 4900, "currency": "EUR"}
        await house.ear.send(fact("billing.FirstPaymentReceivedV1", paid, tenant="unpaid"))
        late = await house.refused(f"/v1/runs/{runs['unreviewed']}/approvals/sales-review", {"approved": True})
        assert late["status"] == 409
        for tenant in runs:
            marker = await house.sign_up(tenant, "marker")
            await house.until_state(marker, "AwaitingConfirmation")
        assert {tenant: (await house.run(run) or {})["version"] for tenant, run in runs.items()} == versions


@pytest.mark.acceptance("H16")
async def test_a_confirmation_at_the_very_deadline_has_one_winner(stack: Stack) -> None:
    clock = MovableClock()
    async with House(stack, clock=clock) as house:
        runs = {f"tenant-{number}": await house.sign_up(f"tenant-{number}") for number in range(6)}
        confirmations = []
        for tenant, run in runs.items():
            await house.until_state(run, "AwaitingConfirmation")
            account, _ = await _made(house, run)
            data = {"user_id": account, "email": "bob@customer.example"}
            confirmations.append(fact("identity.EmailConfirmedV1", data, tenant=tenant))
        half = len(confirmations) // 2
        await asyncio.gather(*(house.ear.send(one) for one in confirmations[:half]))
        clock.forward(days=7)
        await asyncio.gather(*(house.ear.send(one) for one in confirmations[half:]))
        for tenant, run in runs.items():
            seen = await house.until_run(
                run, lambda found: found["business_state"] == "AwaitingPayment" or found["ended_at"] is not None
            )
            topics = [entry["topic"] for entry in await house.timeline(run)]
            assert topics.count("wait.matched") + topics.count("wait.timed_out") == 1
            assert (seen["status"] == "waiting") == ("wait.matched" in topics)
            assert (await _sign_in(house, tenant)).allowed == ("wait.matched" in topics)


@pytest.mark.acceptance("H16")
@pytest.mark.parametrize(("awaited", "days"), [("review", 14), ("payment", 30)])
async def test_a_review_and_a_payment_at_the_very_deadline_have_one_winner(
    stack: Stack, awaited: str, days: int
) -> None:
    clock = MovableClock()
    plan = {"plan": "enterprise"} if awaited == "review" else {}
    async with House(stack, clock=clock) as house:
        runs = {f"tenant-{number}": await house.sign_up(f"tenant-{number}", **plan) for number in range(6)}
        customers = {}
        for tenant, run in runs.items():
            await house.until_state(run, "AwaitingConfirmation")
            account, customers[tenant] = await _made(house, run)
            await _confirm(house, tenant, account)
            await house.until_state(run, f"Awaiting{awaited.capitalize()}")

        async def come(tenant: str) -> int:
            """The review, or the payment, of this tenant's customer; the status of the answer, if it is asked for."""
            if awaited == "payment":
                paid = {"payment_id": f"pay-{tenant}", "amount_minor": 4900, "currency": "EUR"}
                data = {"customer_id": customers[tenant], **paid}
                await house.ear.send(fact("billing.FirstPaymentReceivedV1", data, tenant=tenant))
                return 202
            path = f"/v1/runs/{runs[tenant]}/approvals/sales-review"
            headers = {"Authorization": f"Bearer {house.token}", "X-Tenant": tenant}
            async with house.session.post(house.url + path, json={"approved": True}, headers=headers) as answer:
                return answer.status

        early, late = list(runs)[:3], list(runs)[3:]
        answers = await asyncio.gather(*(come(tenant) for tenant in early))
        clock.forward(days=days)
        answers += await asyncio.gather(*(come(tenant) for tenant in late))
        came, passed = (
            ("approval.decided", "approval.timed_out") if awaited == "review" else ("wait.matched", "wait.timed_out")
        )
        further = "AwaitingPayment" if awaited == "review" else "Active"
        for (tenant, run), status in zip(runs.items(), answers, strict=True):
            seen = await house.until_run(
                run, lambda found: found["business_state"] == further or found["status"] == "compensated"
            )
            name = "sales-review" if awaited == "review" else "first-payment"
            told = [entry for entry in await house.timeline(run) if entry["event"].get("name") == name]
            [winner] = [entry["topic"] for entry in told if entry["topic"] in (came, passed)]
            assert (seen["business_state"] == further) == (winner == came)
            assert (await _sign_in(house, tenant)).allowed == (winner == came)
            # Whoever was too late to be heard at all was told so, and only they.
            assert status == 202 or (status == 409 and winner == passed)
