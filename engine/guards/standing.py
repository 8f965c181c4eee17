"""Whether a tenant may be served, by what tenancy's facts said of it last (decisions 0030 and 0033). Asked where people
sign in and are invited, and at each request with a session or an API token of that tenant.
"""

from __future__ import annotations

from contracts.modules.tenancy import BAR_WORDS, BARS
from contracts.problems import Forbidden


class TenantSuspended(Forbidden):
    code = "tenant_suspended"
    title = "The tenant is suspended"


class TenantClosed(Forbidden):
    code = "tenant_closed"
    title = "The tenant is closed"


def require_served(state: str | None) -> None:
    """Raises `TenantSuspended` or `TenantClosed` for a tenant in one of the states of `BARS`. None: nothing was said of
    it, so that it may be served.
    """
    if state in BARS:
        raise barred(state)


def barred(state: str | None) -> Forbidden:
    """The refusal for a tenant in one of the states of `BARS`."""
    code = BARS[str(state)]
    return (TenantSuspended if code == TenantSuspended.code else TenantClosed)(BAR_WORDS[code])
