"""Mail of a tenant keeps to the tenant's outbound rate, which holds over mails and calls alike, and none is lost."""

from __future__ import annotations

import time
from typing import Any

import pytest

from consumers.modules.mailsink import MailSink
from tests.stories.house import House, Record, Stack
from tests.stories.keeper import Keeper
from tests.stories.test_secrets import proven
from tests.stories.workshop import direct_command


class Postbox(MailSink):
    """Notes when each mail came, by tenant."""

    def __init__(self) -> None:
        super().__init__()
        self.came: dict[str, list[float]] = {"acme": [], "globex": []}

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        said = await super().handle_DATA(server, session, envelope)
        self.came[str(self.mails[-1].tenant)].append(time.monotonic())
        return said


@pytest.mark.acceptance("I2")
async def test_mails_keep_to_their_tenants_rate_and_none_is_lost(stack: Stack) -> None:
    mails, rate, seconds = 4, 2, 2
    postbox = Postbox()
    async with Keeper() as keeper:
        given: Record = {"smtp": {"port": await postbox.start()}, "egress": {"sandbox": (keeper.address,)}}
        async with House(stack, sagas=(direct_command, proven), modules=("notifications",), **given) as house:
            await house.api.put("/v1/egress", {"requests": rate, "seconds": seconds}, act_for="acme")
            # Calls and mails have one rate: this one is the first of them.
            call = await house.start("proven", "acme", {"url": keeper.url("/echo"), "method": "GET"})
            await house.until_status(call, "succeeded")
            called = time.monotonic()
            runs = []
            for number in range(mails):
                for tenant in ("acme", "globex"):
                    values = {"name": "Ann", "tenant_name": tenant, "reason": f"story {number}"}
                    data = {"template": "suspended", "to": f"ann{number}@{tenant}.example", "data": values}
                    begun = await house.api.post(
                        "/v1/commands", {"type": "notifications.SendNotificationV1", "data": data}, tenant=tenant
                    )
                    runs.append((tenant, begun["run_id"]))
            for _, run in runs:
                await house.until_status(run, "succeeded")
            put_off = [
                attempt["error"]
                for tenant, run in runs
                for attempt in (await house.steps(run))["command"]["attempts"]
                if attempt["error"] is not None and tenant == "acme"
            ]
    await postbox.stop()
    assert set(postbox.count_by_id.values()) == {1}
    assert {tenant: len(times) for tenant, times in postbox.came.items()} == {"acme": mails, "globex": mails}
    times = sorted([called, *postbox.came["acme"]])
    # 0.4 s of slack: so late may a mail arrive on a busy machine.
    assert max(sum(since <= at < since + seconds - 0.4 for at in times) for since in times) <= rate
    assert max(postbox.came["globex"]) < times[rate + 2]
    assert {(error["code"], error["put_off_seconds"] > 0) for error in put_off} == {("egress_limited", True)}
