"""`unwind config show`: every setting with its effective value and where it came from. Secrets are never shown."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import typer

from scripts.answer import Answer, table
from scripts.border import verb

if TYPE_CHECKING:
    from engine.settings import Setting, Settings

app = typer.Typer(no_args_is_help=True, help="Settings of this environment.")


@verb(app, "show")
def show(
    changed: bool = typer.Option(False, "--changed", help="Only settings that come from the environment."),
) -> Answer:
    """Every setting, its value, and where the value comes from."""
    from engine.settings import describe, load

    settings = load()
    document = [
        {"name": setting.name, "value": _value(settings, setting), "source": source, "meaning": setting.meaning}
        for setting in describe()
        if (source := _source(setting)) != "default" or not changed
    ]
    rows = [(row["name"], row["value"], row["source"]) for row in document]
    return Answer(document, table(("SETTING", "VALUE", "FROM"), rows, empty="Every setting has its default."))


def _source(setting: Setting) -> str:
    from engine.settings import PLAIN_NAMES

    for name in (setting.name, f"{setting.name}_FILE", PLAIN_NAMES.get(setting.path[-1], "")):
        if name and os.environ.get(name):
            return name
    return "default"


def _value(settings: Settings, setting: Setting) -> str:
    value: Any = settings
    for part in setting.path:
        value = getattr(value, part)
    if value is None:
        return ""
    if setting.secret:
        return masked(value.get_secret_value())
    return ",".join(str(part) for part in value) if isinstance(value, tuple) else str(value)


def masked(secret: str) -> str:
    """Of a URL, what is not secret: scheme, user, host, port and path. Of anything else nothing."""
    parts = urlsplit(secret)
    if not parts.scheme or not parts.hostname:
        return "****"
    user = f"{parts.username}:****@" if parts.password else f"{parts.username}@" if parts.username else ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{user}{parts.hostname}{port}{parts.path}"
