"""The states of a tenant as a diagram and a table, drawn from `contracts.modules.tenancy.TRANSITIONS` into
docs/tenants.md: `python -m scripts.tenant_states`. A test keeps the page current."""

from __future__ import annotations

from pathlib import Path
from typing import Final, get_args

from contracts.manifest import base_name
from contracts.modules.tenancy import ORDERS, TRANSITIONS, TenantState, Trigger

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "tenants.md"
BEGIN: Final = "<!-- drawn by python -m scripts.tenant_states -->\n"
END: Final = "<!-- end of what is drawn -->\n"
WHY: Final[dict[tuple[TenantState, Trigger], str]] = {
    ("Registered", "begin"): "begin provisioning",
    ("Provisioning", "complete_step"): "step completed",
    ("Provisioning", "activate"): "all steps succeeded",
    ("Provisioning", "fail"): "a step failed, or time ran out",
    ("ProvisioningFailed", "begin"): "retry after remediation",
    ("ProvisioningFailed", "decommission"): "abandoned",
    ("Active", "suspend"): "past due, policy, operator",
    ("Suspended", "reinstate"): "reinstated",
    ("Active", "decommission"): "closed",
    ("Suspended", "decommission"): "closed",
}


def drawn() -> str:
    """Diagram and table, with the marks around them."""
    states, triggers = get_args(TenantState), get_args(Trigger)
    arrows = [f"    {state} --> {goal} : {WHY[state, trigger]}" for (state, trigger), goal in TRANSITIONS.items()]
    ends = [state for state in states if not any(state == before for before, _ in TRANSITIONS)]
    rows = [
        f"| {state} | " + " | ".join(TRANSITIONS.get((state, trigger), "refused") for trigger in triggers) + " |"
        for state in states
    ]
    orders = [
        f"| {trigger} | `{base_name(order)}` | `{base_name(fact)}` |" for trigger, (order, fact) in ORDERS.items()
    ]
    return "\n".join(
        [
            BEGIN.rstrip("\n"),
            "```mermaid",
            "stateDiagram-v2",
            "    [*] --> Registered",
            *arrows,
            *(f"    {state} --> [*]" for state in ends),
            "```",
            "",
            "| in state | " + " | ".join(triggers) + " |",
            "|---" * (len(triggers) + 1) + "|",
            *rows,
            "",
            "| transition | ordered by | told by |",
            "|---|---|---|",
            *orders,
            END,
        ]
    )


def page(text: str) -> str:
    """The page with what is drawn put between its marks."""
    before, _, rest = text.partition(BEGIN)
    return before + drawn() + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
