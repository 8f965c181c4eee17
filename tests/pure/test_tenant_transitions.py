"""The life of a tenant is a table: ten transitions, and nothing else."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from consumers.modules.tenancy import TRANSITIONS
from contracts.modules.tenancy import TenantState

TRIGGERS = ("begin", "complete_step", "activate", "fail", "suspend", "reinstate", "decommission")

LEGAL = {
    "Registered": {"begin": "Provisioning"},
    "Provisioning": {"complete_step": "Provisioning", "activate": "Active", "fail": "ProvisioningFailed"},
    "Active": {"suspend": "Suspended", "decommission": "Decommissioned"},
    "ProvisioningFailed": {"begin": "Provisioning", "decommission": "Decommissioned"},
    "Suspended": {"reinstate": "Active", "decommission": "Decommissioned"},
    "Decommissioned": {},
}


@pytest.mark.parametrize(("state", "trigger"), list(product(get_args(TenantState), TRIGGERS)))
def test_the_table_holds_the_ten_legal_transitions_and_no_other(state: TenantState, trigger: str) -> None:
    assert TRANSITIONS.get((state, trigger)) == LEGAL[state].get(trigger)


def test_there_are_ten() -> None:
    assert len(TRANSITIONS) == 10
    assert {trigger for _, trigger in TRANSITIONS} == set(TRIGGERS)
