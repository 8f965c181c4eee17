"""What a route is, as data: method, path, who may call it, what goes in and out. The table is `consumers.web.table`.

The dispatcher (`consumers.web.dispatch`) reads a route to check a call before its handler sees it; the OpenAPI document
(`consumers.web.openapi`) is written from the same fields, so neither can say what the other does not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from contracts.problems import NotFound, PayloadInvalid
from contracts.registry import Registry
from contracts.sdk.queries import Asker
from engine.clock import Clock
from engine.door import Door
from engine.guards.gate import Gate
from engine.guards.oidc import Provider
from engine.guards.permissions import Principal
from engine.guards.quotas import KnownQuotas
from engine.guards.sessions import Sessions, Terms, Visit
from engine.metrics import Metrics
from engine.oidc_sign_in import OidcSignIns
from engine.pauses import Pauses
from engine.sign_in import SignIns
from engine.store import Store
from engine.store.keys import Vault
from engine.tracing import RunTracing
from engine.triggers import Plans
from projections.reader import Reader

AS_OF_HEADER: Final = "Unwind-As-Of"
WAIT_HEADER: Final = "Unwind-Wait-For-Position"
"""The same as the query parameter `wait_for_position`, for a client that sends a position with every request."""
TENANT_HEADER: Final = "X-Tenant"

Checks = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deps:
    """Everything handlers use. `pauses` and `quotas` are as this process last read them, None where nothing is run."""

    store: Store
    vault: Vault
    door: Door
    reader: Reader
    registry: Registry
    plans: Plans
    clock: Clock
    metrics: Metrics
    checks: Callable[[], Awaitable[Checks]]
    asker: Asker
    """Asks modules; never for what the engine knows itself."""
    signup_secrets: Sequence[str] = ()
    max_body_bytes: int = 262_144
    run_days: int = 0
    """Days after which ended runs are archived; 0: never."""
    pauses: Pauses | None = None
    quotas: KnownQuotas | None = None
    tracing: RunTracing | None = None
    public_url: str | None = None
    """Where people reach the API; None: at its own address."""
    terms: Terms = field(default_factory=Terms)
    oidc: Provider | None = None
    """The identity provider; None: there is none."""
    gate: Gate = field(init=False)
    sessions: Sessions = field(init=False)
    sign_ins: SignIns = field(init=False)
    oidc_sign_ins: OidcSignIns | None = field(init=False)

    def __post_init__(self) -> None:
        # Frozen for handlers; made here, so that whoever wires the API cannot leave them out.
        sessions = Sessions(self.store, self.clock, self.terms)
        sign_ins = SignIns(self.door.people, sessions, self.vault, self.door.tenants, self.clock, self.metrics)
        object.__setattr__(self, "gate", Gate(self.store, self.clock))
        object.__setattr__(self, "sessions", sessions)
        object.__setattr__(self, "sign_ins", sign_ins)
        by_oidc = None
        if self.oidc is not None:
            door = self.door
            by_oidc = OidcSignIns(self.oidc, door.people, sign_ins, self.vault, door.tenants, self.clock, self.metrics)
        object.__setattr__(self, "oidc_sign_ins", by_oidc)


class Empty(BaseModel):
    """No fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(slots=True, kw_only=True)
class Call:
    """One checked request. `tenant` None: the platform asks over all tenants. `body` and `query` are of the route's
    models; `raw` is the body as received, for routes that verify it. `visit` is the session that the call came with,
    None: it came with a token, or with nothing.
    """

    deps: Deps
    request: web.Request
    principal: Principal
    tenant: str | None
    body: Any
    query: Any
    raw: bytes = b""
    visit: Visit | None = None

    @property
    def signed_in(self) -> Visit:
        """The session, for a route that asks for one."""
        assert self.visit is not None
        return self.visit

    @property
    def named_tenant(self) -> str:
        """The tenant. Raises `PayloadInvalid` when a platform token did not name one."""
        if self.tenant is None:
            raise PayloadInvalid(f"name the tenant: header {TENANT_HEADER}, or query parameter tenant", field="tenant")
        return self.tenant

    @property
    def run_id(self) -> UUID:
        """The run of the path. Raises the `NotFound` of a run that does not exist when it is no id."""
        return self.identifier("run_id", "run")

    def identifier(self, name: str, word: str) -> UUID:
        try:
            return UUID(self.request.match_info[name])
        except ValueError:
            raise NotFound(f"there is no such {word}", field=name) from None

    def path(self, name: str) -> str:
        return self.request.match_info[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cookie:
    """For this host and every path, unseen by scripts, sent along from elsewhere only when a link is followed. An empty
    `value` deletes it. `seconds` None: until the browser is closed.
    """

    name: str
    value: str
    secure: bool
    seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`content` is JSON-native or a pydantic model."""

    content: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: Sequence[Cookie] = ()


Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row of the table. `permission` None: the handler itself proves who is calling (webhooks, sign-in), or with
    `session` whoever is signed in may call. `key`: it takes an Idempotency-Key header. `view`: the read model it
    answers from, which a caller may wait for with `wait_for_position`.
    `signed`: the handler gets the body as received. `always`: an order that is taken under maintenance, too.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    handler: Handler
    summary: str
    tag: str
    permission: str | None
    answer: type[BaseModel]
    body: type[BaseModel] | None = None
    query: type[BaseModel] = Empty
    status: int = 200
    key: bool = False
    view: str | None = None
    signed: bool = False
    always: bool = False
    session: bool = False

    @property
    def name(self) -> str:
        """The operation's id in the OpenAPI document."""
        return self.handler.__name__

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names in the path, in order."""
        return tuple(part[1:].split("}")[0].split(":")[0] for part in self.path.split("/") if part.startswith("{"))
