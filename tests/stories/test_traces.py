"""One story told by traces: across engine and modules as processes of their own, over a wait of days, and without a
word of what it was about."""

from __future__ import annotations

import pytest

from contracts.modules import billing, identity
from tests.stories.collector import Collector, Span
from tests.stories.house import House, MovableClock, Stack, until
from tests.stories.provider import Provider
from tests.stories.workshop import errand

MODULES = ("identity", "billing", "crm", "notifications")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
DAY_NANOSECONDS = 86_400 * 10**9
ALLOWED = {
    "unwind.tenant", "unwind.run_id", "unwind.workflow", "unwind.step", "unwind.attempt", "unwind.outcome",
    "messaging.destination.name", "http.request.method", "http.route", "http.response.status_code",
}  # fmt: skip
STEPS = {
    "create-account": ("identity.create_user", "identity.CreateUserV1", "identity.UserCreatedV1"),
    "create-billing": ("billing.create_customer", "billing.CreateCustomerV1", "billing.CustomerCreatedV1"),
    "create-crm-contact": ("crm.create_contact", "crm.CreateContactV1", "crm.ContactCreatedV1"),
    "send-welcome": (
        "notifications.send_notification",
        "notifications.SendNotificationV1",
        "notifications.NotificationSentV1",
    ),
}


@pytest.mark.acceptance("L7")
async def test_the_traces_of_one_correlation_id_are_linked_across_processes_and_a_wait_of_days(stack: Stack) -> None:
    clock = MovableClock()
    async with Collector() as collector:
        tracing = {"endpoint": collector.endpoint}
        async with House(stack, clock=clock, separate_modules=True, modules=MODULES, tracing=tracing) as house:
            data = {"signup_id": "s-1", "email": "bob@customer.example", "name": "Bobby"}
            story = {"correlationid": "basket-7", "traceparent": f"00-{TRACE}-{CALLER}-01"}
            await house.api.post("/v1/events", {"type": "crm.SignupRequestedV1", "data": data, **story}, tenant="acme")
            page = await until(
                lambda: house.api.get("/v1/runs", correlation_id="basket-7"), lambda found: bool(found["items"])
            )
            [listed] = page["items"]
            run = listed["run_id"]
            await house.until_state(run, "AwaitingConfirmation")
            account = (await house.steps(run))["create-account"]["output"]["user_id"]
            customer = (await house.steps(run))["create-billing"]["output"]["customer_id"]

            clock.forward(days=3)
            await house.order("acme", "identity.ConfirmEmailV1", user_id=account)
            await house.until_state(run, "AwaitingPayment")
            await house.order("acme", "billing.RecordPaymentV1", customer_id=customer, amount_minor=100, currency="EUR")
            await house.until_status(run, "succeeded")
            assert (await house.run(run) or {})["trace_id"] == TRACE

        start = collector.one("start customer-onboarding", run_id=run)
        assert start.trace == TRACE
        taken = collector.one("take crm.SignupRequestedV1")
        assert (taken.parent, start.parent) == (CALLER, taken.context[1])

        for step, (action, command, reply) in STEPS.items():
            attempt = collector.one(f"step {action}", run_id=run, step=step)
            assert (attempt.trace, attempt.parent, attempt.attributes["unwind.outcome"]) == (
                TRACE,
                start.context[1],
                "succeeded",
            )
            [handled] = _children(collector, attempt, f"handle {command}")
            assert handled.service == f"module-{command.partition('.')[0]}"
            assert attempt.service != handled.service
            assert _children(collector, attempt, f"publish {command}")
            assert _children(collector, handled, f"publish {reply}")
            [heard] = _children(collector, handled, f"take {reply}")
            assert _children(collector, heard, f"reply {reply}")

        confirmed, paid = collector.one("wake mail-confirmed"), collector.one("wake first-payment")
        assert len({TRACE, confirmed.trace, paid.trace}) == 3
        assert start.context in confirmed.links
        assert {start.context, confirmed.context} == set(paid.links)
        assert confirmed.began - start.ended > 2 * DAY_NANOSECONDS
        assert collector.one("end customer-onboarding", run_id=run).trace == paid.trace
        for fact, woken in (
            (identity.MODULE.type_of(identity.EmailConfirmedV1), confirmed),
            (billing.MODULE.type_of(billing.FirstPaymentReceivedV1), paid),
        ):
            matched = collector.one(f"match {fact}", run_id=run)
            assert matched.links == (woken.context,)

        assert {span.trace for span in collector.of_run(run)} <= collector.linked(TRACE)
        known = {span.context[1] for span in collector.spans} | {CALLER}
        assert [span.name for span in collector.spans if span.parent is not None and span.parent not in known] == []
        assert not any(span.ended - span.began > DAY_NANOSECONDS for span in collector.spans), "nothing spans a wait"
        assert {name for span in collector.spans for name in span.attributes} <= ALLOWED
        for personal in (b"bob@customer.example", b"Bobby", account.encode(), customer.encode()):
            assert personal not in collector.raw


def _children(collector: Collector, parent: Span, name: str) -> list[Span]:
    return [span for span in collector.spans if (span.trace, span.parent) == parent.context and span.name == name]


@pytest.mark.acceptance("L7")
async def test_a_request_its_run_and_the_call_that_it_makes_are_one_trace(stack: Stack) -> None:
    async with Collector() as collector, Provider() as provider:
        egress = {"sandbox": (provider.address,)}
        tracing = {"endpoint": collector.endpoint}
        async with House(stack, sagas=(errand,), modules=(), egress=egress, tracing=tracing) as house:
            run = await house.start("errand", "acme", {"url": provider.url("/orders"), "id": "o-1"})
            await house.until_status(run, "succeeded")
            [carried] = provider.traces
        asked = collector.one("POST /v1/workflows/{workflow}/runs")
        start, step, sent = collector.one("start errand"), collector.one("step http.request"), collector.one("POST")
        assert [asked.trace] * 3 == [start.trace, step.trace, sent.trace]
        assert (start.parent, step.parent, sent.parent) == (asked.context[1], start.context[1], step.context[1])
        assert carried == f"00-{sent.trace}-{sent.context[1]}-01"
        assert sent.attributes["http.response.status_code"] == 200
        assert provider.address.encode() not in collector.raw
