"""`unwind hooks ...`: a tenant's webhook endpoints."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any, Final

import typer

from contracts.problems import PayloadInvalid
from scripts.answer import Answer, instant, table
from scripts.border import verb
from scripts.verbs.runs import Tenant

app = typer.Typer(no_args_is_help=True, help="Webhook endpoints: what starts a workflow from outside.")

Name = Annotated[str, typer.Argument(help="The last part of the address: /hooks/<tenant>/NAME.", metavar="NAME")]
Given = Annotated[
    bool, typer.Option("--secret-stdin", help="Read the secret that the sender has chosen; one is made otherwise.")
]
_SPAN: Final = re.compile(r"([0-9]{1,9})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@verb(app, "add")
async def add(
    name: Name,
    workflow: Annotated[str, typer.Argument(help="The workflow it starts.", metavar="WORKFLOW")],
    scheme: Annotated[str, typer.Option(help="How the sender signs: standard, github or stripe.")] = "standard",
    field: Annotated[
        list[str] | None,
        typer.Option("--field", help="name=/json/pointer: a field of the run's input from the message."),
    ] = None,
    constant: Annotated[
        list[str] | None, typer.Option("--constant", help="name=value: a field that is always this; JSON, or text.")
    ] = None,
    id_pointer: Annotated[
        str | None, typer.Option("--id", help="Where the message says its id, such as /id; else its body tells it.")
    ] = None,
    secret_stdin: Given = False,
    tenant: Tenant = None,
) -> Answer:
    """Make an endpoint and print its secret, this once and never again.

    Without --field and --constant the whole message is the run's input.
    """
    from scripts.reach import reach

    fields: dict[str, Any] = dict(_pair(text, "--field") for text in field or ())
    fields |= {key: {"constant": _value(text)} for key, text in (_pair(one, "--constant") for one in constant or ())}
    given = {
        "name": name,
        "workflow": workflow,
        "scheme": scheme,
        "fields": fields,
        "id_pointer": id_pointer,
        "secret": given_secret(secret_stdin),
    }
    async with reach() as api:
        made = await api.post("/v1/hooks", given, act_for=tenant)
    return Answer(made, f"{made['path']}\n{made['secret']}")


@verb(app, "list")
async def list_hooks(tenant: Tenant = None) -> Answer:
    """Endpoints by name, without their secrets."""
    from scripts.reach import reach

    async with reach() as api:
        found = await api.get("/v1/hooks", tenant=tenant)
    rows = [
        (one["path"], one["workflow"], one["scheme"], instant(one["rotated_at"]), instant(one["old_secret_until"]))
        for one in found["items"]
    ]
    columns = ("PATH", "WORKFLOW", "SCHEME", "ROTATED", "OLD SECRET UNTIL")
    return Answer(found["items"], table(columns, rows, empty="No endpoints."))


@verb(app, "rotate")
async def rotate(
    name: Name,
    overlap: Annotated[
        str, typer.Option(help="How long the secret before is still taken: 90s, 15m, 24h, 7d; 0s: no longer.")
    ] = "24h",
    secret_stdin: Given = False,
    tenant: Tenant = None,
) -> Answer:
    """Give an endpoint a new secret and print it, this once and never again."""
    from scripts.reach import reach, segment

    given = {"overlap_seconds": seconds_of(overlap), "secret": given_secret(secret_stdin)}
    async with reach() as api:
        made = await api.post(f"/v1/hooks/{segment(name)}/rotate", given, act_for=tenant)
    until = instant(made["old_secret_until"])
    print(f"the secret before is taken until {until}" if until else "the secret before is refused", file=sys.stderr)
    return Answer(made, str(made["secret"]))


@verb(app, "remove")
async def remove(name: Name, tenant: Tenant = None) -> Answer:
    """Take nothing at this endpoint any more."""
    from scripts.reach import reach, segment

    async with reach() as api:
        gone = await api.delete(f"/v1/hooks/{segment(name)}", tenant=tenant)
    return Answer(gone, f"endpoint {name} is removed")


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise PayloadInvalid(f"{option} {text!r} has no =; write name=value", field=option)
    return name, value


def _value(text: str) -> Any:
    import orjson

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def seconds_of(text: str) -> int:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise PayloadInvalid(f"{text!r} is no span of time; write 90s, 15m, 24h or 7d", field="--overlap")
    return int(found.group(1)) * _SECONDS[found.group(2)]


def given_secret(asked: bool) -> str | None:
    return sys.stdin.readline().strip() if asked else None
