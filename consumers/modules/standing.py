"""Whether a tenant may be served, as a module knows it: from tenancy's facts, ordered by the tenant's own revision and
not by their arrival. A tenant nobody has said anything about may.

A module makes one `Standing` and asks it in the transaction of the command it obeys. It never asks tenancy itself.
"""

from __future__ import annotations

from typing import Final

from contracts.modules import tenancy
from contracts.sdk import Call, Refused, Service, Tx
from contracts.sdk.statements import statements

SQL = statements("standing.sql", "consumers.modules")

FACTS: Final = (tenancy.TenantSuspendedV1, tenancy.TenantReinstatedV1, tenancy.TenantDecommissionedV1)


class Standing:
    """Listens for `service`; its schema is `SQL["schema"]`."""

    def __init__(self, service: Service) -> None:
        for model in FACTS:
            service.on(tenancy.MODULE, model)(self.hear)

    async def hear(self, fact: tenancy.TenantFact, call: Call, tx: Tx) -> None:
        await tx.run(SQL["hear"], call.tenant, fact.state, fact.revision, call.at)

    async def barred(self, tenant: str, tx: Tx) -> str | None:
        """`tenant_suspended` or `tenant_closed`; None: the tenant may be served."""
        row = await tx.row(SQL["standing"], tenant)
        return None if row is None else tenancy.BARS.get(row["state"])

    async def require(self, tenant: str, tx: Tx) -> None:
        """Raises `Refused` under the code of the bar."""
        code = await self.barred(tenant, tx)
        if code is not None:
            raise Refused(code, tenancy.BAR_WORDS[code])
