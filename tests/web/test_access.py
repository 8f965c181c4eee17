"""Who may call what: every role against every route, and every route of one tenant against the things of another. Both
walk the route table, so a new route is covered by being in it.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from consumers import subjects
from consumers.web.routes import Route
from consumers.web.table import ROUTES
from engine.guards.gate import BAD_TOKENS
from engine.guards.permissions import PLATFORM, ROLES, make_token, permissions_of
from tests.web.conftest import Site


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes the read models here: what waits for them gives up at once."""
    monkeypatch.setattr(subjects, "VIEW_SECONDS", 0.01)


GUARDED = [route for route in ROUTES if route.permission is not None]


def _address(route: Route, site: Site, tenant: str, *, run: int = 0) -> str:
    values = {
        "run_id": str(site.runs[tenant][run]),
        "letter_id": str(site.letters[tenant]),
        "user_id": str(site.users[tenant]),
        "invitation_id": str(site.invitations[tenant]),
        "event_id": "e1",
        "workflow": "customer-onboarding",
        "name": "review",
        "correlation_id": "story-1",
        "tenant": tenant,
        "month": "2030-01",
        "secret": "provider",
        "hook": "orders",
        "prefix": site.spare[tenant],
        "outlet": "ops",
        "bulk_id": "0190b2f4-7c1e-7e58-b1b2-3c4d5e6f7a8b",
    }
    return re.sub(r"{(\w+)(:[^}]*)?}", lambda found: values[found.group(1)], route.path)


BODIES: dict[str, Any] = {
    "publish_event": {"type": "crm.SignupRequestedV1", "data": {"signup_id": "s1", "email": "a@b.c", "name": "A"}},
    "start_run": {"input": {"email": "a@b.c", "name": "A"}},
    "order_command": {"type": "identity.CreateUserV1", "data": {"email": "a@b.c", "name": "A"}},
    "add_hook": {"name": "orders", "workflow": "customer-onboarding"},
    "skip_step": {"step": "charge", "output": {}},
    "decide_approval": {"approved": True},
    "change_policies": {"approvals_own": "allow"},
    **{name: {"reason": "policy"} for name in ("suspend_tenant", "reinstate_tenant", "close_tenant")},
    "put_egress": {"allow": ["10.1.2.3:8443"], "requests": 5, "seconds": 60.0},
    "add_outlet": {"name": "ops", "url": "https://ops.example.org/notices"},
    "switch_outlet": {"enabled": True},
    "redeliver_notices": {"since": "2030-01-01T00:00:00Z"},
    "create_token": {"name": "ann", "roles": ["viewer"]},
    "put_secret": {"kind": "api_key", "hosts": ["api.example.org"], "value": {"key": "a value"}},
    "rotate_secret": {"value": {"key": "another value"}},
    "invite_user": {"email": "a@b.c", "roles": ["viewer"]},
    "change_user": {"roles": ["viewer"], "disabled": False},
    "register_tenant": {"tenant": "new", "name": "New", "owner_email": "a@b.c", "owner_name": "A"},
}


async def _call(route: Route, site: Site, headers: dict[str, str], address: str) -> tuple[int, bytes]:
    body = BODIES.get(route.name, {}) if route.method in ("POST", "PUT", "PATCH") else None
    async with site.client.request(route.method, address, headers=headers, json=body) as response:
        return response.status, await response.read()


@pytest.mark.acceptance("J10")
async def test_each_role_reaches_exactly_the_routes_its_permissions_name(town: Site) -> None:
    for tenant in ("acme", None):
        for role in ROLES:
            headers = town.headers(tenant, role, **({"X-Tenant": "acme"} if tenant is None else {}))
            for route in GUARDED:
                status, content = await _call(route, town, headers, _address(route, town, "acme"))
                allowed = route.permission in permissions_of((role,), tenant)
                forbidden = status == 403 and b"needs the permission " + str(route.permission).encode() in content
                assert forbidden != allowed, (tenant, role, route.name, status, content)
                # Nobody answers for tenancy here.
                asks_tenancy = route.name in ("show_tenant", "offboard_tenant")
                assert status < 500 or (asks_tenancy and status == 504), (role, route.name, content)


async def test_no_route_answers_without_a_valid_token(town: Site) -> None:
    answers = set()
    for headers in (
        {},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": town.headers()["Authorization"][:-1] + "!"},
    ):
        for route in GUARDED:
            status, content = await _call(route, town, headers, _address(route, town, "acme"))
            assert status == 401
            answers.add(content)
    assert len(answers) == 1


@pytest.mark.acceptance("J11")
@pytest.mark.parametrize(("mine", "other"), [("acme", "globex"), ("globex", "acme")])
async def test_another_tenants_things_look_exactly_like_things_that_are_not_there(
    town: Site, mine: str, other: str
) -> None:
    headers = town.headers(mine)
    walked = 0
    for route in GUARDED:
        if not {"run_id", "letter_id", "prefix", "user_id", "invitation_id"} & set(route.parameters):
            continue
        if route.permission in PLATFORM:
            continue
        walked += 1
        theirs = await _call(route, town, headers, _address(route, town, other))
        missing = re.sub(
            r"{(\w+)(:[^}]*)?}",
            lambda found: "0190b2f4-7c1e-7e58-b1b2-3c4d5e6f7a8b" if found.group(1).endswith("_id") else "review",
            route.path,
        )
        assert theirs == await _call(route, town, headers, missing)
        assert theirs[0] == 404
        # The owner is not told so.
        assert (await _call(route, town, town.headers(other), _address(route, town, other)))[0] != 404
    assert walked >= 16


@pytest.mark.acceptance("J11")
async def test_naming_another_tenant_is_a_404_whether_it_exists_or_not(town: Site) -> None:
    for route in GUARDED:
        if route.name == "register_tenant":
            continue
        address = _address(route, town, "globex")
        answers = [
            await _call(route, town, town.headers("acme", **{"X-Tenant": name}), address)
            for name in ("globex", "nobody-of-that-name")
        ]
        assert answers[0] == answers[1]
        assert answers[0][0] == 404


async def test_lists_of_one_tenant_hold_nothing_of_another(town: Site) -> None:
    reports = ("/v1/usage?from_day=2030-01-01&to_day=2030-12-31", "/v1/stats?from_day=2030-01-01&to_day=2030-12-31")
    for path in ("/v1/runs", "/v1/approvals?state=any", "/v1/dead-letters", *reports, "/v1/audit"):
        response = await town.get(path, tenant="acme")
        items = (await response.json())["items"]
        assert items, path
        assert {item["tenant"] for item in items} == {"acme"}
        assert "globex" not in await response.text()


async def test_the_platform_sees_all_tenants_or_the_one_it_names(town: Site) -> None:
    everyone = await (await town.get("/v1/runs", tenant=None, limit=100)).json()
    assert {item["tenant"] for item in everyone["items"]} == {"acme", "globex"}
    one = await (await town.get("/v1/runs", tenant=None, limit=100)).json()
    named = await (await town.client.get("/v1/runs?tenant=globex&limit=100", headers=town.headers(None))).json()
    assert {item["tenant"] for item in named["items"]} == {"globex"}
    assert len(one["items"]) == 2 * len(named["items"])
    refused = await town.post("/v1/workflows/customer-onboarding/runs", {"input": {}}, tenant=None)
    assert (refused.status, (await refused.json())["field"]) == (422, "tenant")


async def test_an_approval_is_decided_only_by_who_holds_its_role(town: Site) -> None:
    from tests.projections import histories
    from tests.projections.histories import record

    run_id = await record(town.store, town.vault, "acme", histories.approved()[:2], epoch=town.epoch)
    path = f"/v1/runs/{run_id}/approvals/review"
    assert (await town.post(path, {"approved": True}, role="operator")).status == 403
    assert (await town.post(f"/v1/runs/{run_id}/approvals/other", {"approved": True}, role="approver")).status == 409
    assert (await town.post(path, {"approved": True}, role="approver")).status == 202


async def test_a_revoked_token_is_a_stranger(town: Site) -> None:
    token = town.tokens["acme", "viewer"]
    assert (await town.get("/v1/runs", role="viewer")).status == 200
    await town.store.revoke_token(token[4:12])
    assert (await town.get("/v1/runs", role="viewer")).status == 401


async def test_the_last_use_of_a_token_is_seen_and_costs_no_write_per_request(
    town: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = town.tokens["acme", "viewer"][4:12]
    real, touched = town.store.touch_token, []

    async def counted(prefix: str, **when: Any) -> bool:
        touched.append(prefix)
        return await real(prefix, **when)

    monkeypatch.setattr(town.store, "touch_token", counted)
    for _ in range(5):
        assert (await town.get("/v1/runs", role="viewer")).status == 200
    assert touched == [prefix]
    kept = await town.store.token(prefix)
    assert kept is not None
    assert kept.last_used_at is not None
    assert kept.last_used_at >= kept.created_at


@pytest.mark.acceptance("J10")
async def test_an_address_that_guesses_tokens_is_slowed_and_its_neighbours_are_not(town: Site) -> None:
    assert (await town.get("/v1/runs", role="viewer")).status == 200

    async def guess() -> int:
        text, _ = make_token("nobody", ("admin",), tenant=None, now=town.deps.clock.now())
        answer = await town.client.get("/v1/runs", headers={"Authorization": f"Bearer {text}"})
        return answer.status

    assert [await guess() for _ in range(BAD_TOKENS)] == [401] * BAD_TOKENS
    assert [await guess() for _ in range(3)] == [429] * 3
    # A token that was good here before, and a typo, are answered as ever.
    assert (await town.get("/v1/runs", role="viewer")).status == 200
    assert (await town.client.get("/v1/runs", headers={"Authorization": "Bearer nonsense"})).status == 401
