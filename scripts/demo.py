"""The demonstration of `unwind up --demo`: tenants and customers sign up, and what can go wrong does. Everything
happens through the HTTP API, as anybody could do it; failures are scripted with the modules' own rehearsal command."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TextIO

import aiohttp

from contracts.problems import Unavailable
from contracts.run_events import TERMINAL
from scripts.reach import Api, segment

DEADLINE_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.1

Run = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chapter:
    """What was shown: a title, the run it is about, and how that run stands."""

    title: str
    run_id: str
    tenant: str
    status: str
    state: str | None

    def to_document(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "run_id": self.run_id,
            "tenant": self.tenant,
            "status": self.status,
            "state": self.state,
        }


async def play(url: str, token: str, out: TextIO) -> list[dict[str, Any]]:
    """Plays all chapters against the API at `url` and tells them on `out`; answers them as data."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        demo = Demo(Api(session, url, token), lambda line: print(line, file=out, flush=True))
        await demo.play()
    return [chapter.to_document() for chapter in demo.chapters]


class Demo:
    """One performance. Names carry a suffix of their own, so that it can be given again on the same data."""

    def __init__(self, api: Api, say: Callable[[str], None]) -> None:
        self._api = api
        self._say = say
        self._suffix = uuid.uuid4().hex[:4]
        self.chapters: list[Chapter] = []

    async def play(self) -> None:
        self._say("\nThe demo: tenants and customers sign up.\n")
        home = await self._tenant_is_provisioned()
        # The rest goes on side by side, as it would in life.
        async with asyncio.TaskGroup() as chapters:
            chapters.create_task(self._tenant_is_unwound())
            chapters.create_task(self._tenant_is_parked_and_repaired())
            chapters.create_task(self._customers_of(home))
        last = self.chapters[-1]
        self._say(
            f"Look further:\n"
            f"  unwind runs list                     every run, newest first\n"
            f"  unwind runs show {last.run_id}    its steps\n"
            f"  unwind runs explain {last.run_id} why it stands where it is\n"
            f"  curl {self._api.url}/metrics         what monitoring sees\n"
        )

    # ---------------------------------------------------------------------------------------------------- chapters

    async def _tenant_is_provisioned(self) -> str:
        tenant = self._name("acme")
        run = await self._register(tenant)
        run = await self._until(run, lambda seen: seen["status"] in TERMINAL)
        await self._tell("A tenant signs up and is provisioned", run)
        return tenant

    async def _tenant_is_unwound(self) -> None:
        tenant = self._name("globex")
        async with self._failing(tenant, "identity", "InviteUserV1", "irrecoverable", times=1):
            run = await self._register(tenant)
            run = await self._until(run, lambda seen: seen["status"] in TERMINAL)
        await self._tell("A tenant's owner cannot be invited, ever: what was done is undone, newest first", run)

    async def _tenant_is_parked_and_repaired(self) -> None:
        tenant = self._name("initech")
        async with self._failing(tenant, "notifications", "SendNotificationV1", "retryable", times=1000):
            run = await self._register(tenant)
            run = await self._until(run, lambda seen: seen["status"] == "parked")
            explained = await self._api.get(f"/v1/runs/{segment(run['run_id'])}/explain", tenant=tenant)
        await self._tell(
            "The mail server is down: retries run out, the run is parked and nothing is undone",
            run,
            explained["sentence"],
        )
        await self._api.post(f"/v1/runs/{segment(run['run_id'])}/retry", {}, tenant=tenant)
        run = await self._until(run, lambda seen: seen["status"] in TERMINAL)
        await self._tell("An operator repairs it and retries: only the failed step is done again", run)

    async def _customers_of(self, tenant: str) -> None:
        # Failures are scripted per tenant, so whoever must not meet one signs up later.
        await self._customer_is_unwound(tenant)
        await self._customer_becomes_active(tenant)
        await self._customer_waits(tenant)

    async def _customer_becomes_active(self, tenant: str) -> None:
        run = await self._sign_up(tenant, "ann", "Ann Archer")
        run = await self._until(run, lambda seen: seen["business_state"] == "AwaitingConfirmation")
        account, customer = await self._outputs(run, "create-account", "create-billing")
        await self._order(tenant, "identity.ConfirmEmailV1", {"user_id": account["user_id"]})
        run = await self._until(run, lambda seen: seen["business_state"] == "AwaitingPayment")
        payment = {"customer_id": customer["customer_id"], "amount_minor": 4900, "currency": "EUR"}
        await self._order(tenant, "billing.RecordPaymentV1", payment)
        run = await self._until(run, lambda seen: seen["status"] in TERMINAL)
        await self._tell("A customer confirms her address, pays, and is active", run)

    async def _customer_is_unwound(self, tenant: str) -> None:
        async with self._failing(tenant, "crm", "CreateContactV1", "irrecoverable", times=1):
            run = await self._sign_up(tenant, "bob", "Bob Byers")
            run = await self._until(run, lambda seen: seen["status"] in TERMINAL)
        await self._tell("A customer cannot be entered into the CRM: billing and login are taken back", run)

    async def _customer_waits(self, tenant: str) -> None:
        run = await self._sign_up(tenant, "carol", "Carol Chen")
        run = await self._until(run, lambda seen: seen["status"] == "waiting")
        explained = await self._api.get(f"/v1/runs/{segment(run['run_id'])}/explain", tenant=tenant)
        await self._tell(
            "A customer has not confirmed her address yet: the run waits and holds no resources",
            run,
            explained["sentence"],
        )

    # ---------------------------------------------------------------------------------------------------- deeds

    async def _register(self, tenant: str) -> Run:
        person = tenant.partition("-")[0]
        body = {
            "tenant": tenant,
            "name": person.capitalize(),
            "owner_email": f"owner@{person}.example",
            "owner_name": f"{person.capitalize()} Owner",
        }
        begun: Run = await self._api.post("/v1/tenants", body)
        return begun

    async def _sign_up(self, tenant: str, who: str, name: str) -> Run:
        signup = {
            "signup_id": f"{who}-{self._suffix}",
            "email": f"{who}@customer.example",
            "name": name,
            "plan": "starter",
        }
        begun: Run = await self._api.post("/signup", signup, key=f"{who}-{self._suffix}", act_for=tenant)
        return begun

    async def _order(self, tenant: str, command: str, data: dict[str, Any]) -> None:
        """A command given directly is a run of one step; it must end well."""
        begun = await self._api.post("/v1/commands", {"type": command, "data": data}, tenant=tenant)
        run = await self._until(begun, lambda seen: seen["status"] in TERMINAL)
        if run["status"] != "succeeded":
            raise Unavailable(
                f"{command} ended {run['status']}: {run['error_message']}; `unwind runs show {run['run_id']}`"
            )

    @asynccontextmanager
    async def _failing(self, tenant: str, module: str, command: str, mode: str, *, times: int) -> AsyncIterator[None]:
        """Within the block the module fails this command as scripted."""
        script = f"{module}.ScriptFaultV1"
        await self._order(
            tenant, script, {"command": command, "mode": mode, "times": times, "code": "scripted_for_the_demo"}
        )
        try:
            yield
        finally:
            await self._order(tenant, script, {"command": command, "mode": mode, "times": 0})

    async def _until(self, run: Run, reached: Callable[[Run], bool]) -> Run:
        """The run as soon as it is so; raises `Unavailable` when that takes too long."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            found = await self._api.get("/v1/runs", tenant=run["tenant"], limit=200)
            seen: Run | None = next((one for one in found["items"] if one["run_id"] == run["run_id"]), None)
            if seen is not None and reached(seen):
                return seen
            if time.monotonic() > deadline:
                stands = "not there yet" if seen is None else f"{seen['status']} in state {seen['business_state']}"
                raise Unavailable(f"run {run['run_id']} of {run['workflow']} is {stands} after {DEADLINE_SECONDS:g} s")
            await asyncio.sleep(POLL_SECONDS)

    async def _outputs(self, run: Run, *names: str) -> list[dict[str, Any]]:
        steps = await self._api.get(f"/v1/runs/{segment(run['run_id'])}/steps", tenant=run["tenant"])
        by_name = {step["step"]: step["output"] for step in steps["items"]}
        return [by_name[name] for name in names]

    def _name(self, name: str) -> str:
        return f"{name}-{self._suffix}"

    # ---------------------------------------------------------------------------------------------------- words

    async def _tell(self, title: str, run: Run, *more: str) -> None:
        steps = await self._api.get(f"/v1/runs/{segment(run['run_id'])}/steps", tenant=run["tenant"])
        told = [f"* {title}", f"  run {run['run_id']}  tenant {run['tenant']}  {run['workflow']}"]
        state = f", state {run['business_state']}" if run["business_state"] else ""
        told.append(f"  {run['status']}{state}: " + " · ".join(_step(step) for step in steps["items"]))
        told += [f"  {line}" for line in more]
        self._say("\n".join(told) + "\n")
        self.chapters.append(Chapter(title, run["run_id"], run["tenant"], run["status"], run["business_state"]))


def _step(step: dict[str, Any]) -> str:
    """A step in a few signs: its name, how it ended, and whether it was undone."""
    undone = step["undo"] is not None and step["undo"]["status"] == "done"
    tried = f" after {len(step['attempts'])} attempts" if len(step["attempts"]) > 1 else ""
    how = "undone" if undone else "done" if step["status"] == "succeeded" else step["status"]
    return f"{step['step']} {how}{tried}"
