"""The life of a tenant is a table: ten transitions, and nothing else."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from contracts.modules.tenancy import MODULE, ORDERS, TRANSITIONS, TenantState, TenantTransitionRefusedV1, Trigger
from scripts.tenant_states import PAGE, page

TRIGGERS = get_args(Trigger)

LEGAL = {
    "Registered": {"begin": "Provisioning"},
    "Provisioning": {"complete_step": "Provisioning", "activate": "Active", "fail": "ProvisioningFailed"},
    "Active": {"suspend": "Suspended", "decommission": "Decommissioned"},
    "ProvisioningFailed": {"begin": "Provisioning", "decommission": "Decommissioned"},
    "Suspended": {"reinstate": "Active", "decommission": "Decommissioned"},
    "Decommissioned": {},
}


@pytest.mark.parametrize(("state", "trigger"), list(product(get_args(TenantState), TRIGGERS)))
def test_the_table_holds_the_ten_legal_transitions_and_no_other(state: TenantState, trigger: Trigger) -> None:
    assert TRANSITIONS.get((state, trigger)) == LEGAL[state].get(trigger)


def test_there_are_ten() -> None:
    assert len(TRANSITIONS) == 10
    assert {trigger for _, trigger in TRANSITIONS} == set(TRIGGERS)


def test_every_trigger_has_an_order_whose_success_is_its_fact_and_whose_refusal_is_declared() -> None:
    assert set(ORDERS) == set(TRIGGERS)
    commands = {command.model: command for command in MODULE.commands}
    for order, fact in ORDERS.values():
        assert commands[order].success is fact
        assert TenantTransitionRefusedV1 in commands[order].irrecoverable


def test_the_page_shows_the_table_as_it_is() -> None:
    """When this fails: python -m scripts.tenant_states"""
    written = PAGE.read_text(encoding="utf-8")
    assert page(written) == written
    assert all(f"{state} --> {goal}" in written for (state, _), goal in TRANSITIONS.items())
