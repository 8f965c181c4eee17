"""What each tenant makes the installation do is accounted to it: CPU time, rows, messages, local attempts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.stories.house import House, Record, Stack, until
from tests.stories.workshop import direct_command, errand, forgiving, workbench

SAGAS = (errand, forgiving, workbench, direct_command)


@pytest.mark.acceptance("L8")
async def test_what_a_tenant_uses_is_accounted_to_it_as_a_report_and_as_metrics(stack: Stack) -> None:
    async with House(stack, sagas=SAGAS) as house:
        runs: dict[str, list[str]] = {tenant: [] for tenant in ("acme", "globex")}
        for tenant, times in (("acme", 4), ("globex", 1)):
            for _ in range(times):
                run = await house.start("workbench", tenant, {"email": "eve@customer.example", "card": "4111-1111"})
                await house.until_status(run, "compensated")
                runs[tenant].append(run)

        async def report() -> dict[str, Record]:
            found = await house.cli("accounting")
            return {one["tenant"]: one for one in found["items"]}

        def whole(found: dict[str, Record]) -> bool:
            return found.keys() >= runs.keys() and found["acme"]["rows"] == 4 * found["globex"]["rows"]

        found = await until(report, whole)
        acme, globex = found["acme"], found["globex"]
        assert acme["rows"] == sum([len(await house.timeline(run)) for run in runs["acme"]])
        # Of each run: one command and its undo are sent; notes and two tries of what breaks are local.
        assert acme["sends"] == 4 * globex["sends"] > 0
        assert acme["actions"] == 4 * globex["actions"] > 0
        assert acme["cpu_seconds"] > 0
        assert [day["rows"] for day in acme["days"]] == [acme["rows"]]

        # A tenant sees its own alone; the metrics say the same; the log says so too.
        token = await house.make_token("viewer", "globex")
        seen = await _get(house, "/v1/accounting", token)
        assert [one["tenant"] for one in seen["items"]] == ["globex"]
        async with house.session.get(f"{house.url}/metrics") as answer:
            page = (await answer.text()).splitlines()
        assert f'unwind_tenant_rows_total{{tenant="acme"}} {float(acme["rows"])}' in page
        assert any(line.startswith('unwind_tenant_cpu_seconds_total{stage="project",tenant="acme"}') for line in page)
        again = await house.cli("accounting", "--recount", "--tenant", "acme")
        assert again["items"][0]["rows"] == acme["rows"]


async def _get(house: House, path: str, token: str) -> Any:
    async with house.session.get(house.url + path, headers={"authorization": f"Bearer {token}"}) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()
