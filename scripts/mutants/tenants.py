"""Mutants of the life of tenants: who may move them, and what bars them."""

from __future__ import annotations

from typing import Final

from scripts.mutants.run import Mutant

_LIFE: Final = "tests/stories/test_tenant_life.py"

TENANTS: Final = (
    Mutant(
        name="standing-by-arrival",
        law="The tenant's own number orders its facts, not their arrival",
        path="consumers/modules/sql/standing.sql",
        old="WHERE tenant_standing.revision < excluded.revision;",
        new="WHERE tenant_standing.revision >= 0;",
        test=_LIFE,
        select="own_number and embedded",
    ),
    Mutant(
        name="paid-and-let-in",
        law="What is held for another cause stays suspended",
        path="consumers/modules/tenancy.py",
        old='    if tenant.state != "Suspended" or await _holds(call.tenant, tx):\n',
        new='    if tenant.state != "Suspended":\n',
        test=_LIFE,
        select="payment_ends and embedded",
    ),
    Mutant(
        name="tenant-reinstates-itself",
        law="Who moves tenants needs the platform's permission, by whichever address",
        path="consumers/web/acting.py",
        old='    permission = call.deps.plans.saga(call.path("workflow")).permission\n',
        new="    permission = None\n",
        test=_LIFE,
        select="operator_suspends and embedded",
    ),
    Mutant(
        name="tenant-cancels-its-suspension",
        law="Who may not start a workflow may not stop its runs",
        path="consumers/web/acting.py",
        old="            permission = call.deps.plans.saga(state.workflow).permission\n",
        new="            permission = None\n",
        test=_LIFE,
        select="operator_suspends and embedded",
    ),
)
