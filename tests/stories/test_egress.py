"""Where a tenant's calls may go and how many it may make: nowhere inside, to one private host if the platform says so,
and no faster than its rate.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.stories.house import House, Record, Stack, until
from tests.stories.keeper import Keeper
from tests.stories.test_bounds_of_a_run import said
from tests.stories.test_secrets import proven
from tests.stories.wire import CutWire

SAGAS = (proven,)
FAILED = ("failed", "compensated")


async def error_of(house: House, tenant: str, **call: Any) -> str:
    """How the run fails that makes this call; `none` when it succeeds."""
    ended = await house.until_status(await house.start("proven", tenant, call), "succeeded", *FAILED)
    return str((ended["error"] or {"code": "none"})["code"])


@pytest.mark.acceptance("J4")
async def test_no_address_inside_is_called_in_any_spelling(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = CutWire(monkeypatch)
    async with Keeper() as inside, Keeper() as public:
        port = inside.address.rpartition(":")[2]
        addresses = [
            "http://10.0.0.1/", "http://172.16.0.1/", "http://192.168.0.1/", "http://169.254.169.254/latest/meta-data/",
            "http://100.100.100.200/", "http://[fd00:ec2::254]/", "http://[64:ff9b::7f00:1]/",
            *(f"http://{host}:{port}/" for host in (
                "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "localhost", "[::1]",
                "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "①②⑦.0.0.1",
            )),
        ]  # fmt: skip
        async with House(stack, sagas=SAGAS, egress={"sandbox": (public.address,)}) as house:
            found = {address: await error_of(house, "acme", url=address, method="GET") for address in addresses}
            assert found == dict.fromkeys(addresses, "egress_refused")
            for status in (302, 307):
                for address in addresses[:9]:
                    by = public.url(f"/to/{status}/{address}")
                    assert (
                        await error_of(house, "acme", url=by, method="GET", follow_redirects=True) == "egress_refused"
                    )
            assert await error_of(house, "acme", url=public.url("/echo"), method="GET") == "none"
        assert (inside.seen, wire.tried) == ([], [])


@pytest.mark.acceptance("J5")
async def test_a_name_that_answers_differently_the_next_time_gains_nothing(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def rebinding(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        """The machine's resolver; `rebind.example` is public at first, and loopback from then on."""
        if host != "rebind.example":
            return resolve(host, port, *more, **options)
        asked.append(host)
        return resolve("93.184.216.34" if len(asked) == 1 else "127.0.0.1", port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    wire = CutWire(monkeypatch)
    async with Keeper() as inside, House(stack, sagas=SAGAS) as house:
        port = inside.address.rpartition(":")[2]
        url = f"http://rebind.example:{port}/"
        assert await error_of(house, "acme", url=url, method="GET") == "egress_failed"
        assert (asked, wire.tried) == (["rebind.example"], [f"93.184.216.34:{port}"])
        assert await error_of(house, "acme", url=url, method="GET") == "egress_refused"
        assert (len(asked), len(wire.tried)) == (2, 1)
        assert inside.seen == []


@pytest.mark.acceptance("J6")
async def test_a_private_host_is_opened_to_one_tenant_alone(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    private = {"url": "http://10.1.2.3:8080/echo", "method": "GET"}
    resolve = socket.getaddrinfo

    def inside(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        return resolve("169.254.169.254" if host == "meta.example" else host, port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", inside)
    wire = CutWire(monkeypatch)
    async with Keeper() as there, House(stack, sagas=SAGAS) as house:
        wire.leads["10.1.2.3:8080"] = there.address
        assert await error_of(house, "acme", **private) == "egress_refused"
        made = await house.cli("egress", "set", "acme", "--allow", "10.1.2.3:8080")
        assert made == {"tenant": "acme", "allow": ["10.1.2.3:8080"], "requests": None, "seconds": None}

        async def error() -> str:
            return await error_of(house, "acme", **private)

        # It answers the tenant that it was opened to, once, and nobody else's call reaches it.
        assert there.seen == []
        await until(error, lambda code: code == "none")
        assert [one["path"] for one in there.seen] == ["/echo"]
        assert await error_of(house, "globex", **private) == "egress_refused"
        assert await error_of(house, "acme", **private | {"url": "http://10.1.2.3:8081/"}) == "egress_refused"
        assert (await house.cli("egress", "show", "globex"))["allow"] == []
        assert (len(there.seen), wire.tried) == (1, [])

        # Neither the platform nor the tenant opens what is never open; a tenant opens nothing.
        for never in ("127.0.0.1:8080", "169.254.169.254", "127.0.0.0/8", "8.8.8.8"):
            code, _, complaint = await house.cli_raw("egress", "set", "acme", "--allow", never)
            assert (code, "allow" in complaint) == (2, True), never
        admin = await house.make_token("admin", "acme")
        for path in ("/v1/egress", "/v1/egress?tenant=acme"):
            async with house.session.put(
                house.url + path, json={"allow": ["10.0.0.0/8"]}, headers={"Authorization": f"Bearer {admin}"}
            ) as answer:
                assert answer.status == 403

        # A name may be opened that leads to the metadata service: it stays shut all the same.
        rules = ("--allow", "meta.example", "--requests", "50000", "--seconds", "60")
        await house.cli("egress", "set", "acme", *rules)
        await until(error, lambda code: code == "egress_refused")
        for tenant in ("acme", "globex"):
            assert await error_of(house, tenant, url="http://meta.example/latest/", method="GET") == "egress_refused"
        assert (len(there.seen), wire.tried) == (1, [])

        async def audited() -> list[Record]:
            page = await house.api.get("/v1/audit", tenant="acme", limit=100)
            return [entry for entry in reversed(page["items"]) if entry["topic"] == "egress.changed"]

        entries = await until(audited, lambda found: len(found) >= 2)
        assert [entry["details"] for entry in entries] == [
            {"allow": ["10.1.2.3:8080"]},
            {"allow": ["meta.example"], "requests": 50_000, "seconds": 60.0},
        ]


@pytest.mark.acceptance("I2")
async def test_a_tenants_calls_keep_to_its_rate_over_all_processes_and_hold_nobody_else_up(stack: Stack) -> None:
    heard: dict[str, list[float]] = {"acme": [], "globex": []}

    async def note(request: web.Request) -> web.Response:
        heard[request.path.strip("/")].append(time.monotonic())
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", note)
    async with TestServer(app) as server:
        address = f"127.0.0.1:{server.port}"
        # A slot of slack is a second: so late may a call arrive on a busy machine.
        rate, seconds, runs = 6, 10, 10
        async with House(stack, loads=("tests.stories.test_secrets",), egress={"sandbox": (address,)}) as house:
            await house.process("intake", "worker", "timer", "janitor")
            await house.cli("egress", "set", "acme", "--requests", str(rate), "--seconds", str(seconds))
            ids = await asyncio.gather(
                *(
                    house.start("proven", tenant, {"url": f"http://{address}/{tenant}", "method": "GET"})
                    for tenant in ("acme", "globex")
                    for _ in range(runs)
                )
            )
            for run in ids:
                await house.until_status(run, "succeeded")
            # Requests that had to wait for the rate say so once, though there are two processes.
            assert await said(house, 1) == [("outbound_requests", rate)]
    times = sorted(heard["acme"])
    assert len(times) == len(heard["globex"]) == runs
    assert max(sum(since <= at < since + seconds for at in times) for since in times) <= rate
    assert max(heard["globex"]) < times[rate]
