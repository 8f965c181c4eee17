"""A real API over a real store: the app as it is served, a token for every role, two tenants with mirrored data."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from consumers.projector import VIEWS, Projector
from consumers.web import create_app
from consumers.web.routes import Deps
from contracts.modules import SHIPPED
from contracts.notices import UNWIND
from contracts.registry import Registry
from contracts.sdk.queries import Asker
from contracts.sdk.transport import Transport, open_transport
from engine.bus.topology import engine_topology
from engine.clock import SystemClock
from engine.door import Door
from engine.guards.permissions import ROLES, Principal, make_token, permissions_of
from engine.metrics import Metrics
from engine.sagas import SHIPPED as SAGAS
from engine.store import DeadLetter, Store, open_store
from engine.store.key_ring import create_key_ring
from engine.store.keys import Vault
from engine.store.mapper import Mapper, seal_blob
from engine.store.people import Membership
from engine.triggers import Plans
from projections.reader import Reader
from tests.projections.histories import SHAPES, record

SIGNUP_SECRET = "whsec_" + "c2lnbnVwLXNlY3JldC1vZi10aGUtdGVzdHM="
TENANTS = ("acme", "globex")


@dataclass
class Site:
    """`tokens` by (tenant, role); tenant None is the platform's. The others by tenant."""

    client: TestClient[Any, Any]
    store: Store
    vault: Vault
    door: Door
    metrics: Metrics
    projector: Projector
    transport: Transport
    epoch: int
    deps: Deps
    tokens: dict[tuple[str | None, str], str] = field(default_factory=dict)
    runs: dict[str, list[UUID]] = field(default_factory=dict)
    letters: dict[str, UUID] = field(default_factory=dict)
    users: dict[str, UUID] = field(default_factory=dict)
    invitations: dict[str, UUID] = field(default_factory=dict)
    spare: dict[str, str] = field(default_factory=dict)
    """By tenant, the prefix of a token that nobody uses."""

    def headers(self, tenant: str | None = "acme", role: str = "admin", **more: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[tenant, role]}", **more}

    async def get(self, path: str, *, tenant: str | None = "acme", role: str = "admin", **query: Any) -> ClientResponse:
        return await self.client.get(path, headers=self.headers(tenant, role), params=query)

    async def post(
        self,
        path: str,
        body: Any = None,
        *,
        tenant: str | None = "acme",
        role: str = "admin",
        headers: Mapping[str, str] | None = None,
    ) -> ClientResponse:
        return await self.client.post(
            path, json={} if body is None else body, headers=self.headers(tenant, role) | dict(headers or {})
        )


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite://{tmp_path / 'store.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def site(store_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    store = open_store(store_url)
    await store.migrate()
    await store.start()
    vault = Vault(store, create_key_ring(tmp_path / "keys.json"))
    await vault.start()
    epoch = await store.register("test", ("web",))
    registry = Registry((*SHIPPED, UNWIND))
    plans = Plans(SAGAS, registry.action_specs())
    transport = open_transport(f"embedded://{tmp_path / 'bus.db'}", name="test")
    await transport.start()
    await transport.declare(engine_topology(registry))
    clock, metrics = SystemClock(), Metrics()
    door = Door(store, vault, Mapper(), registry, plans, clock, transport, epoch)

    async def checks() -> dict[str, dict[str, Any]]:
        await store.ping()
        return {"database": {"ok": True}, "bus": {"ok": transport.ready}}

    deps = Deps(
        store=store,
        vault=vault,
        door=door,
        reader=Reader(store, vault),
        registry=registry,
        plans=plans,
        clock=clock,
        metrics=metrics,
        checks=checks,
        asker=Asker(transport, name="web"),
        signup_secrets=(SIGNUP_SECRET,),
    )
    projector = Projector(store, vault, Mapper(), VIEWS, clock, metrics)
    async with TestClient(TestServer(create_app(deps))) as client:
        yield Site(client, store, vault, door, metrics, projector, transport, epoch, deps)
    await transport.stop()
    await store.stop()


@pytest.fixture
async def town(site: Site) -> Site:
    """The site with data: both tenants have the same runs and a dead letter each, and a token for every role."""
    now = SystemClock().now()
    for tenant in (*TENANTS, None):
        for role in ROLES:
            text, token = make_token(f"{role} of {tenant or 'the platform'}", (role,), tenant=tenant, now=now)
            await site.store.add_token(token)
            site.tokens[tenant, role] = text
    for tenant in TENANTS:
        _, token = make_token("spare", ("viewer",), tenant=tenant, now=now)
        await site.store.add_token(token)
        site.spare[tenant] = token.prefix
        site.runs[tenant] = [
            await record(site.store, site.vault, tenant, shape(), epoch=site.epoch, at_once=100) for shape in SHAPES
        ]
        letter = UUID(int=TENANTS.index(tenant) + 1)
        site.letters[tenant] = letter
        keys = await site.vault.keys_for(tenant)
        envelope = b'{"type":"crm.SignupRequestedV1","data":{"email":"ada@example.org"},"id":"e1"}'
        await site.store.bury(
            DeadLetter(
                id=letter,
                tenant=tenant,
                reason="payload_invalid",
                detail="signup_id is missing",
                source="unwind.events",
                routing_key="crm.SignupRequestedV1",
                event_id="e1",
                type="crm.SignupRequestedV1",
                attempts=[{"at": "2030-01-01T00:00:00Z", "reason": "payload_invalid"}],
                envelope=seal_blob(keys, "dead_letter", str(letter), envelope),
                headers={"x-first": "1"},
                state="dead",
                created_at=now,
            )
        )
        await _people(site, tenant)
    await site.projector.catch_up()
    return site


async def _people(site: Site, tenant: str) -> None:
    """A member without a password, and an open invitation."""
    people = site.deps.door.people
    user = await people.newcomer(f"member@{tenant}.example", "A member", None)
    await site.store.add_user(user)
    await site.store.put_membership(
        Membership(user_id=user.id, tenant=tenant, roles=("viewer",), created_at=user.created_at)
    )
    site.users[tenant] = user.id
    admin = Principal("admin", tenant, ("admin",), permissions_of(("admin",), tenant))
    invited = await people.invite(f"new@{tenant}.example", tenant, ["viewer"], by=admin)
    site.invitations[tenant] = invited.invitation.id
