"""`unwind doctor --security`: the state of every guardrail of this installation, one line each. It changes nothing, and
there is nothing to switch: what it finds `wrong` lets somebody past a guardrail; a `note` is an opening that an
operator chose, or that this stack cannot close.
"""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from contracts.problems import Problem
from scripts.doctor import Finding

if TYPE_CHECKING:
    from engine.settings import Settings
    from engine.store import Store

_NEVER: Final = ("127.0.0.1", "10.0.0.1", "::ffff:169.254.169.254", "fe80::1")


async def guardrails() -> list[Finding]:
    """Every guardrail, those that need no database first."""
    from engine.settings import load

    try:
        settings = load()
    except Problem as problem:
        return [Finding("settings", "wrong", problem.detail)]
    found = [_sealing(settings), _redaction(), _egress(settings), _api(settings), _sign_in(settings)]
    found += [_provider(settings), *_wires(settings)]
    found.extend([finding async for finding in _database(settings)])
    return found


def _sealing(settings: Settings) -> Finding:
    from engine.store.key_ring import KeyRing

    if not settings.key_path.exists():
        return Finding("sealing", "note", f"{settings.key_path} does not exist yet; the first `unwind up` makes it")
    try:
        ring = KeyRing.load(settings.key_path)
    except Problem as problem:
        return Finding("sealing", "wrong", problem.detail)
    mode = stat.S_IMODE(settings.key_path.stat().st_mode)
    return Finding("sealing", "ok", f"bodies are sealed under root key {ring.current}; its file has mode {mode:04o}")


def _redaction() -> Finding:
    from engine.guards.redaction import redact, redact_text

    seen = str(redact({"password": "hunter2"})) + redact_text("ann@example.org, 4111 1111 1111 1111")
    leaked = [word for word in ("hunter2", "ann@example.org", "4111 1111") if word in seen]
    if leaked:
        return Finding("redaction", "wrong", f"{', '.join(leaked)} is shown: this program is damaged")
    return Finding("redaction", "ok", "a planted password, address and card number are masked")


def _egress(settings: Settings) -> Finding:
    from engine.guards.addresses import refusal, unmapped

    passed = [text for text in _NEVER if refusal(unmapped(ip_address(text))) is None]
    if passed:
        return Finding("egress", "wrong", f"{', '.join(passed)} would be reached: this program is damaged")
    if settings.egress.sandbox:
        opened = ", ".join(settings.egress.sandbox)
        return Finding("egress", "note", f"only public addresses, and what the operator opened: {opened}")
    rate = settings.egress.requests_per_minute
    return Finding("egress", "ok", f"only public addresses are reached, by a tenant {rate} times in any minute")


def _api(settings: Settings) -> Finding:
    host = settings.http.host
    if _is_near(host):
        return Finding("API", "ok", f"listens on {host} alone; what is in front of it brings TLS")
    public = settings.http.public_url or ""
    if public.startswith("https://"):
        return Finding("API", "note", f"listens on {host} without TLS, behind {public}; nobody else may reach the port")
    return Finding(
        "API", "wrong", f"listens on {host} without TLS: tokens travel in clear; see UNWIND_HTTP__PUBLIC_URL"
    )


def _sign_in(settings: Settings) -> Finding:
    public, terms = settings.http.public_url, settings.session
    lasts = f"a session lasts {terms.longest_seconds / 3600:g} h, {terms.idle_seconds / 3600:g} h without use"
    if public is None:
        return Finding("sign-in", "ok", f"people sign in over https, or on this machine; {lasts}")
    if public.startswith("https://") or _is_near(urlsplit(public).hostname or ""):
        return Finding("sign-in", "ok", f"people sign in at {public}; {lasts}")
    return Finding("sign-in", "wrong", f"passwords travel in clear to {public}; see UNWIND_HTTP__PUBLIC_URL")


def _provider(settings: Settings) -> Finding:
    oidc = settings.oidc
    if oidc.issuer is None:
        return Finding("identity provider", "ok", "none; people sign in by accounts of this installation alone")
    parts = urlsplit(oidc.issuer)
    if parts.scheme != "https" and not _is_near(parts.hostname or ""):
        found = f"{oidc.issuer} is asked without TLS: whoever stands in between signs in as anybody"
        return Finding("identity provider", "wrong", found)
    if oidc.private_hosts:
        opened = ", ".join(oidc.private_hosts)
        return Finding("identity provider", "note", f"{oidc.issuer}, for which the operator opened {opened}")
    return Finding("identity provider", "ok", f"{oidc.issuer}; an address that it has not verified is nobody's")


def _wires(settings: Settings) -> Iterator[Finding]:
    if settings.database_url is not None:
        parts = urlsplit(settings.database_url.get_secret_value())
        mode = parse_qs(parts.query).get("sslmode", [""])[0]
        if _is_near(parts.hostname or "") or mode == "verify-full":
            yield Finding("database wire", "ok", f"{parts.hostname or 'a socket'}, sslmode {mode or 'not needed'}")
        else:
            yield Finding("database wire", "wrong", f"{parts.hostname} without sslmode=verify-full: anybody may listen")
    if settings.bus_url is not None:
        parts = urlsplit(settings.bus_url.get_secret_value())
        if _is_near(parts.hostname or "") or parts.scheme == "amqps":
            yield Finding("bus wire", "ok", f"{parts.scheme} to {parts.hostname}")
        else:
            yield Finding("bus wire", "wrong", f"{parts.scheme} to {parts.hostname}: anybody may listen; use amqps")


def _is_near(host: str) -> bool:
    if host in ("", "localhost") or host.startswith("/"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


async def _database(settings: Settings) -> AsyncIterator[Finding]:
    from engine.settings import database_url
    from engine.store import open_store

    if settings.database_url is None and not (settings.data_dir / "unwind.db").exists():
        yield Finding("database", "note", "there is none yet; the first `unwind up` makes it")
        return
    store = open_store(database_url(settings))
    try:
        await store.start()
        for guard in await store.guards():
            # A superuser, or no roles, is how a small installation may choose to live; the rest is never right.
            chosen = guard.name in ("login", "roles")
            yield Finding(guard.name, "ok" if guard.holds else "note" if chosen else "wrong", guard.detail)
        if settings.database_url is None:
            yield Finding("roles", "note", "SQLite has none, and no row-level security: the folder is what guards it")
        yield await _quotas(store)
        yield await _tokens(store)
    except Problem as problem:
        yield Finding("database", "wrong", problem.detail)
    finally:
        await store.stop()


async def _quotas(store: Store) -> Finding:
    from contracts.quotas import Quotas
    from engine.guards.quotas import EVERYONE, SETTING

    document = (await store.settings_named(SETTING)).get(EVERYONE)
    if document is None:
        return Finding("quotas", "note", "there are none yet; the first process that starts sets everybody's")
    said = Quotas.model_validate(document)
    bounds = {"concurrent_runs": said.concurrent_runs, "open_runs": said.open_runs, "daily_runs": said.daily_runs}
    endless = [name for name, bound in bounds.items() if bound is None]
    if endless:
        return Finding("quotas", "note", f"{', '.join(endless)} of a tenant without quotas of its own have no bound")
    return Finding("quotas", "ok", ", ".join(f"{name} {bound}" for name, bound in bounds.items()))


async def _tokens(store: Store) -> Finding:
    now = datetime.now(UTC)
    good = [
        token
        for token in await store.tokens(None)
        if token.revoked_at is None and (token.expires_at is None or token.expires_at > now)
    ]
    endless = [token for token in good if token.expires_at is None]
    if endless:
        named = ", ".join(f"{token.name} ({token.prefix})" for token in endless[:5])
        return Finding("tokens", "note", f"{len(endless)} of {len(good)} never expire: {named}")
    return Finding("tokens", "ok", f"each of the {len(good)} expires")
