"""`unwind secrets ...`: secrets of a tenant. A value comes from a file or from standard input, never from the command
line, which other users of the machine can read.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from scripts.answer import Answer, instant, table
from scripts.border import verb
from scripts.verbs.runs import Tenant

app = typer.Typer(no_args_is_help=True, help="Secrets that steps are proven with outside; values are never shown.")

Name = Annotated[str, typer.Argument(help="As steps name it: lower-case letters, digits, dots, dashes.")]
From = Annotated[
    Path | None, typer.Option("--from", help="File with the value as a JSON object; none: standard input.")
]


@verb(app, "set")
async def set_secret(
    name: Name,
    kind: Annotated[str, typer.Option("--kind", help="api_key, basic or oauth2.")],
    host: Annotated[list[str], typer.Option("--host", help="host or host:port that it may be sent to; repeatable.")],
    tenant: Tenant = None,
    source: From = None,
) -> Answer:
    """Set a secret, or replace all of it.

    The value is a JSON object: {"key"} with "header" and "prefix" for api_key, {"username", "password"} for basic,
    {"client_id", "client_secret", "token_url"} with "scope", "refresh_token" and "client_auth" for oauth2.
    """
    from scripts.reach import reach, segment

    body = {"kind": kind, "hosts": host, "value": _value(source)}
    async with reach() as api:
        made = await api.put(f"/v1/secrets/{segment(name)}", body, act_for=tenant)
    return Answer(made, f"secret {name} is set, version {made['version']}")


@verb(app, "rotate")
async def rotate(name: Name, tenant: Tenant = None, source: From = None) -> Answer:
    """Give a secret a new value of the same kind, for the same hosts. The one before is destroyed."""
    from scripts.reach import reach, segment

    async with reach() as api:
        made = await api.post(f"/v1/secrets/{segment(name)}/rotate", {"value": _value(source)}, act_for=tenant)
    return Answer(made, f"secret {name} has version {made['version']}")


@verb(app, "list")
async def list_secrets(tenant: Tenant = None) -> Answer:
    """Names, kinds, versions and hosts."""
    from scripts.reach import reach

    async with reach() as api:
        found = await api.get("/v1/secrets", tenant=tenant)
    rows = [
        (
            one["name"],
            one["kind"],
            one["version"],
            " ".join(one["hosts"]),
            instant(one["changed_at"]),
            one["changed_by"],
        )
        for one in found["items"]
    ]
    return Answer(found, table(("NAME", "KIND", "VERSION", "HOSTS", "CHANGED"), rows, empty="No secrets."))


@verb(app, "remove")
async def remove(name: Name, tenant: Tenant = None) -> Answer:
    """Delete a secret for good, with its data key. Steps that name it fail from now on."""
    from scripts.reach import reach, segment

    async with reach() as api:
        removed = await api.delete(f"/v1/secrets/{segment(name)}", tenant=tenant)
    return Answer(removed, f"secret {name} is removed")


def _value(source: Path | None) -> dict[str, Any]:
    import orjson

    from contracts.problems import PayloadInvalid

    try:
        content = sys.stdin.buffer.read() if source is None else source.read_bytes()
    except OSError as error:
        raise PayloadInvalid(f"{source} cannot be read: {error.strerror}", field="from") from None
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise PayloadInvalid('the value must be a JSON object, such as {"key": "..."}', field="from")
    return found
