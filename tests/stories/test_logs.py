"""What log lines say of run work: whose, which run, which story; and never what it was about, even where the code that
failed put it into its exception."""

from __future__ import annotations

import io
from typing import Any

import orjson

from engine.logs import configure
from engine.plan.code import Run, saga
from tests.stories.house import House, Record, Stack
from tests.stories.workshop import direct_command, workbench

SECRETS = ("4111-1111", "eve@customer.example", "Eve", "canary")


@saga("outspoken", version=1)
async def outspoken(run: Run, order: dict[str, Any]) -> None:
    raise ValueError(f"cannot work on {order['card']}")


def lines(stream: io.StringIO, **wanted: Any) -> list[Record]:
    found = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in found if wanted.items() <= line.items()]


async def test_lines_of_run_work_name_tenant_run_and_story_and_hold_no_payload(stack: Stack) -> None:
    stream = io.StringIO()
    configure(format="json", level="info", stream=stream)
    async with House(stack, sagas=(outspoken, workbench, direct_command)) as house:
        card = {"card": "4111-1111"}
        parked = await house.start("outspoken", "acme", card, key="story-1")
        await house.until_status(parked, "parked")
        await house.script("acme", "identity.CreateUserV1", "crash", code="canary")
        unwound = await house.start("workbench", "acme", {"email": "eve@customer.example", **card})
        await house.until_status(unwound, "compensated")
        await house.ear.send_raw("crm.SignupRequestedV1", b'{"tenantid": "acme", "id": "e1", "data": {"x": "canary"')
        await house.until_letter(reason="envelope_invalid")
        story = (await house.run(unwound) or {})["correlation_id"]

    [told] = lines(stream, event="run_parked")
    assert {name: told[name] for name in ("tenant_id", "run_id", "workflow", "reason")} == {
        "tenant_id": "acme", "run_id": parked, "workflow": "outspoken", "reason": "saga_raised",
    }  # fmt: skip
    assert told["correlation_id"]
    raised = lines(stream, event="action_raised", tenant_id="acme", run_id=unwound, correlation_id=story)
    assert [(line["step_id"], line["attempt"], line["error"]) for line in raised] == [
        ("break", 1, "ValueError"), ("break", 2, "ValueError"),
    ]  # fmt: skip
    assert all("workshop.py" in line["frames"][-1] for line in raised)
    [crashed] = lines(stream, message_type="identity.CreateUserV1", tenant_id="acme", correlation_id=story)
    assert (crashed["error"], crashed["step_key"], crashed["level"]) == (
        "ScriptedCrash",
        f"{unwound}/user/1",
        "warning",
    )
    [letter] = lines(stream, event="dead_letter")
    assert letter["reason"] == "envelope_invalid"
    for secret in SECRETS:
        assert secret not in stream.getvalue(), secret
