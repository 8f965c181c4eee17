"""Nothing but the egress guard opens outbound connections that a tenant could direct."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("engine", "projections", "consumers")

FORBIDDEN_MODULES = {
    "urllib.request", "urllib3", "http.client", "requests", "httpx", "httpcore", "smtplib", "ftplib", "telnetlib",
    "poplib", "imaplib", "nntplib", "xmlrpc.client", "websockets", "websocket", "pycurl", "aiosmtplib", "paramiko",
}  # fmt: skip
FORBIDDEN_NAMES = {
    "aiohttp.ClientSession", "aiohttp.request", "aiohttp.TCPConnector", "aiohttp.UnixConnector", "aiohttp.client",
    "aiohttp.connector", "socket.create_connection", "asyncio.open_connection",
}  # fmt: skip
FORBIDDEN_METHODS = {"create_connection", "sock_connect", "open_connection", "connect_ex"}

# The guard itself, and the mail module, which speaks SMTP over a socket that the guard dialled and checked.
GUARD = "engine/guards/egress.py"
MAIL = {"aiosmtplib"}
MAIL_PLACES = ("consumers/modules/notifications",)


def outbound_uses(source: str) -> set[str]:
    """Every outbound client that the source names, whatever alias it uses."""
    found: set[str] = set()
    aliases: dict[str, str] = {}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                aliases[name.asname or name.name.split(".")[0]] = name.name if name.asname else name.name.split(".")[0]
                found |= {name.name} & (FORBIDDEN_MODULES | FORBIDDEN_NAMES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} & (FORBIDDEN_MODULES | FORBIDDEN_NAMES)
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                aliases[name.asname or name.name] = whole
                found |= {whole} & (FORBIDDEN_MODULES | FORBIDDEN_NAMES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name):
                found |= {f"{aliases.get(node.value.id, node.value.id)}.{node.attr}"} & FORBIDDEN_NAMES
            if node.attr in FORBIDDEN_METHODS:
                found.add(node.attr)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module"):
            named = {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
            found |= {str(name) for name in named} & FORBIDDEN_MODULES
    return found


def sources() -> list[Path]:
    return sorted(
        path
        for floor in FLOORS
        for path in (ROOT / floor).rglob("*.py")
        if not {"node_modules", "console"} & set(path.parts)
    )


def test_only_the_egress_guard_opens_outbound_connections() -> None:
    offenders = {}
    for path in sources():
        place = path.relative_to(ROOT).as_posix()
        uses = outbound_uses(path.read_text(encoding="utf-8"))
        if place.startswith(MAIL_PLACES):
            uses -= MAIL
        if uses and place != GUARD:
            offenders[place] = sorted(uses)
    assert offenders == {}, "send it through engine.guards.egress"


def test_the_guard_is_where_the_exception_says() -> None:
    assert outbound_uses((ROOT / GUARD).read_text(encoding="utf-8")) >= {"aiohttp.ClientSession", "sock_connect"}


@pytest.mark.parametrize(
    "source",
    [
        "import requests",
        "import requests as r",
        "from http import client\nimport http.client",
        "from urllib import request\nimport urllib.request",
        "import aiohttp\naiohttp.ClientSession()",
        "import aiohttp as a\na.ClientSession()",
        "from aiohttp import ClientSession",
        "from aiohttp import ClientSession as S",
        "from urllib.request import urlopen",
        "import socket\nsocket.create_connection(('x', 1))",
        "import asyncio\nasyncio.open_connection('x', 1)",
        "import asyncio\nasyncio.get_running_loop().create_connection(f, 'x', 1)",
        "import smtplib",
        "import aiosmtplib",
        "__import__('httpx')",
        "import importlib\nimportlib.import_module('httpx')",
    ],
)
def test_the_search_finds_what_it_is_for(source: str) -> None:
    assert outbound_uses(source)


def test_the_search_leaves_servers_alone() -> None:
    assert (
        outbound_uses("from aiohttp import web\nimport aiohttp.web\nimport socket, asyncio\nweb.Application()") == set()
    )
