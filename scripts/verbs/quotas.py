"""`unwind quotas ...`: what a tenant's runs may use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.problems import PayloadInvalid
from scripts.answer import Answer, instant, pairs, stacked, table
from scripts.border import verb

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(no_args_is_help=True, help="Show and set what tenants' runs may use.")

Whom = Annotated[str, typer.Argument(help="The tenant; '*' for everybody's.", metavar="TENANT")]
Mine = Annotated[str | None, typer.Argument(help="The tenant; a tenant's own token needs none.", metavar="TENANT")]
Words = Annotated[
    list[str],
    typer.Argument(
        help="name=value: concurrent_runs, open_runs, daily_runs, daily_cost_micros, monthly_cost_micros, steps, "
        "depth, run_seconds, payload_bytes, weight (a number), at_limit (queue or refuse), or one of a workflow, such "
        "as WORKFLOW.concurrent_runs, WORKFLOW.daily_runs, WORKFLOW.daily_cost_micros, WORKFLOW.monthly_cost_micros "
        "('*': each that is not named). null takes the tenant's own word back.",
        metavar="NAME=VALUE...",
    ),
]


@verb(app, "show")
async def show(tenant: Whom) -> Answer:
    """What bounds a tenant's runs, and what of it is its own."""
    from scripts.reach import reach

    async with reach() as api:
        found = await api.get(_path(tenant))
    return Answer(found, _shown(found))


@verb(app, "set")
async def put(tenant: Whom, words: Words) -> Answer:
    """Change some of a tenant's quotas; the others stay. In force everywhere within a second."""
    from scripts.reach import reach

    given = [_word(text) for text in words]
    async with reach() as api:
        document: dict[str, Any] = (await api.get(_path(tenant)))["own"] or {}
        workflows = document.setdefault("workflows", {})
        for workflow, name, value in given:
            if workflow is None:
                document[name] = value
            else:
                workflows.setdefault(workflow, {})[name] = value
        found = await api.put(_path(tenant), document)
    return Answer(found, _shown(found))


@verb(app, "use")
async def use(
    tenant: Annotated[str | None, typer.Argument(help="The tenant; a tenant's own token needs none.")] = None,
) -> Answer:
    """How much of each quota is used, from the very counts that are enforced."""
    from scripts.reach import reach

    async with reach() as api:
        found = await api.get("/v1/quotas/use", tenant=tenant)
    rows = [
        (
            one["cap"] if one["workflow"] is None else f"{one['workflow']}.{one['cap']}",
            _limit(one["limit"]),
            _limit(one["used"]),
            instant(one["ends_at"]) if one["ends_at"] else "-",
            "yes" if one["breached"] else "",
        )
        for one in found["items"]
    ]
    return Answer(found, table(("QUOTA", "LIMIT", "USED", "UNTIL", "BREACHED"), rows))


def _word(text: str) -> tuple[str | None, str, int | str | None]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise PayloadInvalid(f"{text!r} is not name=value, such as daily_runs=1000", field="words")
    workflow, dot, quota = name.rpartition(".")
    given = None if value == "null" else int(value) if value.isascii() and value.isdigit() else value
    return workflow if dot else None, quota, given


def _path(tenant: str) -> str:
    from scripts.reach import segment

    return f"/v1/tenants/{segment(tenant)}/quotas"


def _shown(found: dict[str, Any]) -> Callable[[], RenderableType]:
    holding = dict(found["holding"])
    workflows = holding.pop("workflows")
    shown = pairs({"tenant": found["tenant"], **holding})
    if not workflows:
        return shown
    quotas = tuple(next(iter(workflows.values())))
    rows = [(name, *(_limit(one[quota]) for quota in quotas)) for name, one in sorted(workflows.items())]
    return stacked(shown, table(("WORKFLOW", *map(str.upper, quotas)), rows))


def _limit(value: int | None) -> str:
    return "-" if value is None else str(value)
