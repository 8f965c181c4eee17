"""Mutants of the life of tenants: who may move them, and what bars them."""

from __future__ import annotations

from typing import Final

from scripts.mutants.run import Mutant

_LIFE: Final = "tests/stories/test_tenant_life.py"

_BLUEPRINT: Final = "tests/pure/plan/test_blueprint.py"

TENANTS: Final = (
    Mutant(
        name="uncovered-step-generated",
        law="A step has an undo, or its action says that it needs none",
        path="engine/plan/blueprint.py",
        old="        if undo is None and spec.coverage not in _WITHOUT_UNDO:\n",
        new="        if False:\n",
        test=f"{_BLUEPRINT}::test_an_effect_that_nothing_takes_back_is_refused",
    ),
    Mutant(
        name="value-before-its-step",
        law="A value stands in its place before it is used",
        path="engine/plan/blueprint.py",
        old="            if parts[1] not in known:\n",
        new="            if False:\n",
        test=_BLUEPRINT,
    ),
    Mutant(
        name="template-cut-short",
        law="A product's saga is the template's with its own steps added",
        path="engine/plan/blueprint.py",
        old="        found.append(operation)\n        if label_of",
        new="        if not places:\n            found.append(operation)\n        if label_of",
        test=_BLUEPRINT,
    ),
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
        old="    require_start(call, workflow)\n",
        new="",
        test=_LIFE,
        select="operator_suspends and embedded",
    ),
    Mutant(
        name="tenant-cancels-its-suspension",
        law="Who may not start a workflow may not stop its runs",
        path="consumers/web/acting.py",
        old="            require_start(call, state.workflow)\n",
        new="            pass\n",
        test=_LIFE,
        select="operator_suspends and embedded",
    ),
    Mutant(
        name="pauses-its-suspension",
        law="A tenant's own pause does not hold what the platform does to it",
        path="consumers/process.py",
        old="self.pauses.holds(EVERYONE if workflow in self.plans.platforms else tenant)",
        new="self.pauses.holds(tenant)",
        test=_LIFE,
        select="evades and embedded",
    ),
)
