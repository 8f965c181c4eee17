"""What goes out over HTTP about outlets and their deliveries."""

from __future__ import annotations

from pydantic import Field

from consumers.web.asked import Instant
from consumers.web.told import Told
from engine.store import OutletState


class Outlet(Told):
    """`old_secret_until`: the secret before the present one signs, too, until then."""

    tenant: str
    name: str
    url: str
    types: list[str] = Field(description="Types of notices it takes; none: all")
    enabled: bool
    created_at: Instant
    created_by: str
    rotated_at: Instant | None
    old_secret_until: Instant | None
    failing_since: Instant | None = Field(description="The first failure since the last success")
    switched_at: Instant | None
    switched_why: str


class Outlets(Told):
    items: list[Outlet]


class OutletSecret(Outlet):
    """The outlet with its secret, which is told this once and never again."""

    secret: str


class OutletRemoved(Told):
    tenant: str
    name: str


class OutletTest(Told):
    message_id: str = Field(description="As the delivery log names it; the webhook-id of the request")


class Redelivered(Told):
    redelivered: int = Field(description="How many are sent again; 0 for one that comes within two minutes by itself")
    more: bool = Field(description="There may be more that have failed: ask again")


class Delivery(Told):
    message_id: str
    tenant: str = Field(description="Whose notice it is")
    type: str
    state: OutletState
    attempts: int
    created_at: Instant
    due_at: Instant | None = Field(description="When it is sent next; null: it is not")
    status: int | None = Field(description="The answer to the last attempt")
    error: str | None
    settled_at: Instant | None


class Deliveries(Told):
    items: list[Delivery]
