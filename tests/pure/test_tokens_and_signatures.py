"""Tokens, roles and webhook signatures: one refusal for every cause, and never another status."""

from __future__ import annotations

import ast
import base64
import hashlib
import hmac
import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from contracts.problems import Forbidden, NotFound, Unauthenticated
from engine.guards import signatures
from engine.guards.first_run import first_run
from engine.guards.permission_sets import PermissionSets
from engine.guards.permissions import (
    ALL_PERMISSIONS,
    PERMISSIONS,
    PLATFORM,
    ROLES,
    AdminTokenFileBroken,
    Principal,
    RoleUnknown,
    digest_of,
    first_admin,
    make_token,
    permissions_of,
    verify_authorization,
    verify_token,
    well_formed,
)
from engine.guards.signatures import (
    HUB_HEADER,
    STRIPE_HEADER,
    sign_plain,
    sign_standard,
    sign_stripe,
    verify_plain,
    verify_scheme,
    verify_standard,
    verify_stripe,
    verify_webhook,
)
from engine.settings import Settings
from engine.store import HookScheme
from engine.store.key_ring import KeyRing, KeyRingMissing, KeyRingUnsafe
from engine.store.keys import Vault
from tests.pure.kept_in_memory import MemoryCatalog

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
ONE_REFUSAL = "send a valid token as `Authorization: Bearer unw_...` or a valid signature, or sign in"


# -------------------------------------------------------------------------------------------------------------- tokens


async def test_a_token_proves_who_it_stands_for() -> None:
    catalog = MemoryCatalog()
    text, token = make_token("ci", ["viewer", "operator"], tenant="acme", now=NOW)
    await catalog.add_token(token)
    principal = await verify_authorization(catalog, f"Bearer {text}", now=NOW)
    assert (principal.name, principal.tenant, principal.roles) == ("ci", "acme", ("viewer", "operator"))
    assert principal.may("runs.start")


async def test_every_failed_proof_gets_the_same_answer() -> None:
    catalog = MemoryCatalog()
    text, token = make_token("ci", ["viewer"], tenant="acme", now=NOW)
    expired, of_expired = make_token("old", ["viewer"], tenant="acme", now=NOW, expires_at=NOW)
    revoked, of_revoked = make_token("gone", ["viewer"], tenant="acme", now=NOW)
    unknown, _ = make_token("never stored", ["viewer"], tenant="acme", now=NOW)
    for one in (token, of_expired, of_revoked):
        await catalog.add_token(one)
    catalog.revoke(of_revoked.prefix)
    twin, _ = make_token("twin", ["admin"], tenant=None, now=NOW)
    forged = text[:13] + twin[13:]
    headers = [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {text}",
        text,
        f"Bearer {text}x",
        f"Bearer {text[:-1]}",
        f"Bearer {expired}",
        f"Bearer {revoked}",
        f"Bearer {unknown}",
        f"Bearer {forged}",
        "Bearer ünw_\udcff",
        "Bearer " + "x" * 10_000,
    ]
    for header in headers:
        with pytest.raises(Unauthenticated) as refused:
            await verify_authorization(catalog, header, now=NOW)
        assert (refused.value.detail, refused.value.context) == (ONE_REFUSAL, {})


@given(st.text(max_size=80))
async def test_no_text_makes_verification_fail_in_another_way(text: str) -> None:
    with pytest.raises(Unauthenticated):
        await verify_token(MemoryCatalog(), text, now=NOW)


async def test_a_right_prefix_with_a_wrong_secret_is_refused() -> None:
    catalog = MemoryCatalog()
    text, token = make_token("ci", ["viewer"], tenant="acme", now=NOW)
    other, stranger = make_token("other", ["viewer"], tenant="acme", now=NOW)
    catalog.kept_tokens[stranger.prefix] = token
    with pytest.raises(Unauthenticated):
        await verify_token(catalog, other, now=NOW)
    assert well_formed(text)


def test_a_token_holds_256_random_bits_and_the_store_none_of_them() -> None:
    texts = {make_token("x", ["viewer"], tenant=None, now=NOW)[0] for _ in range(200)}
    assert len({text.split("_")[2][:43] for text in texts}) == 200
    text, token = make_token("x", ["viewer"], tenant=None, now=NOW)
    assert token.digest == digest_of(text)
    assert len(token.digest) == 32
    assert text.split("_")[2] not in repr(token)
    assert 62**43 > 2**256


def test_a_typo_in_a_token_is_seen_without_the_store() -> None:
    text, _ = make_token("x", ["viewer"], tenant=None, now=NOW)
    assert well_formed(text)
    for at in range(4, len(text)):
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        assert not well_formed(changed)


def test_a_token_needs_a_known_role() -> None:
    for roles in ([], ["root"], ["viewer", "root"]):
        with pytest.raises(RoleUnknown):
            make_token("x", roles, tenant=None, now=NOW)


# --------------------------------------------------------------------------------------------------------------- roles


def test_roles_hold_what_the_table_says_and_only_admin_holds_all() -> None:
    assert set(PERMISSIONS) == set(ROLES)
    for role in ROLES:
        assert PERMISSIONS["viewer"] <= PERMISSIONS[role]
        assert (PERMISSIONS[role] == ALL_PERMISSIONS) == (role == "admin")
    assert "approvals.decide" not in PERMISSIONS["author"] | PERMISSIONS["publisher"] | PERMISSIONS["operator"]
    assert "workflows.publish" not in PERMISSIONS["author"] | PERMISSIONS["approver"]
    assert PERMISSIONS["auditor"] & {"runs.start", "runs.cancel", "deadletters.redrive", "workflows.write"} == set()


@pytest.mark.parametrize("role", ROLES)
def test_a_tenants_token_never_holds_a_platform_permission(role: str) -> None:
    assert not permissions_of([role], "acme") & PLATFORM


def test_an_unknown_role_holds_nothing() -> None:
    assert permissions_of(["root", ""], None) == frozenset()


def test_another_tenant_looks_as_if_it_were_not_there() -> None:
    ours = Principal("x", "acme", ("viewer",), permissions_of(["viewer"], "acme"))
    assert ours.require_tenant("acme") == "acme"
    with pytest.raises(NotFound) as refused:
        ours.require_tenant("other")
    assert "other" not in refused.value.detail
    assert Principal("x", None, (), frozenset()).reaches("other")


def test_a_missing_permission_is_named() -> None:
    with pytest.raises(Forbidden, match=r"runs\.start"):
        Principal("x", "acme", (), frozenset()).require("runs.start")


class _Settings:
    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Any] = {}
        self.written = 0

    async def setting(self, tenant: str, name: str) -> Any:
        return self.kept.get((tenant, name))

    async def put_setting(self, tenant: str, name: str, value: Any) -> None:
        self.written += 1
        self.kept[tenant, name] = value


async def test_a_set_of_permissions_is_kept_once_and_read_once() -> None:
    settings = _Settings()
    sets, others = PermissionSets(settings), PermissionSets(settings)
    name = await sets.intern(["b", "a"])
    assert await sets.intern(frozenset({"a", "b"})) == name != await sets.intern({"a"})
    assert settings.written == 2
    assert others.known(name) is None
    assert await others.of(name) == {"a", "b"}
    assert others.known(name) is not None


async def test_a_set_that_is_missing_or_was_changed_permits_nothing() -> None:
    settings = _Settings()
    name = await PermissionSets(settings).intern(["a"])
    settings.kept["*", f"permissions/{name}"] = ["a", "action.http"]
    assert await PermissionSets(settings).of(name) == frozenset()
    assert await PermissionSets(settings).of("unheard-of") == frozenset()


# ----------------------------------------------------------------------------------------------------------- first run


async def test_the_first_admin_token_is_written_once_to_a_private_file(tmp_path: Path) -> None:
    catalog, path = MemoryCatalog(), tmp_path / "admin.token"
    assert await first_admin(catalog, path, now=NOW) == path
    assert path.stat().st_mode & 0o777 == 0o600
    principal = await verify_token(catalog, path.read_text().strip(), now=NOW)
    assert (principal.tenant, principal.permissions) == (None, ALL_PERMISSIONS)
    before = path.read_text()
    assert await first_admin(catalog, path, now=NOW) is None
    assert (path.read_text(), len(catalog.kept_tokens)) == (before, 1)


async def test_a_crash_between_the_file_and_the_store_heals(tmp_path: Path) -> None:
    path = tmp_path / "admin.token"
    await first_admin(MemoryCatalog(), path, now=NOW)
    catalog = MemoryCatalog()
    assert await first_admin(catalog, path, now=NOW) == path
    assert (await verify_token(catalog, path.read_text().strip(), now=NOW)).tenant is None


async def test_a_revoked_admin_token_is_replaced_by_a_new_one(tmp_path: Path) -> None:
    catalog, path = MemoryCatalog(), tmp_path / "admin.token"
    await first_admin(catalog, path, now=NOW)
    revoked = path.read_text()
    catalog.revoke(revoked[4:12])
    assert await first_admin(catalog, path, now=NOW) == path
    assert path.read_text() != revoked
    await verify_token(catalog, path.read_text().strip(), now=NOW)


async def test_a_file_that_is_no_token_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "admin.token"
    path.write_text("my notes")
    with pytest.raises(AdminTokenFileBroken, match="move it away"):
        await first_admin(MemoryCatalog(), path, now=NOW)
    assert path.read_text() == "my notes"


async def test_a_first_run_makes_the_key_file_and_the_admin_token_once(tmp_path: Path) -> None:
    settings, catalog = Settings(data_dir=tmp_path / "data"), MemoryCatalog()
    made = await first_run(settings, catalog, now=NOW)
    assert (made.key_file, made.admin_token_file) == (settings.key_path, settings.admin_token_path)
    assert {path.stat().st_mode & 0o777 for path in (settings.key_path, settings.admin_token_path)} == {0o600}
    again = await first_run(settings, catalog, now=NOW)
    assert (again.key_file, again.admin_token_file) == (None, None)


async def test_a_lost_key_file_is_never_replaced_by_a_new_one(tmp_path: Path) -> None:
    settings, catalog = Settings(data_dir=tmp_path / "data"), MemoryCatalog()
    await first_run(settings, catalog, now=NOW)
    await Vault(catalog, KeyRing.load(settings.key_path)).keys_for("acme")
    settings.key_path.unlink()
    with pytest.raises(KeyRingMissing, match="restore it from its backup"):
        await first_run(settings, catalog, now=NOW)
    assert not settings.key_path.exists()


async def test_a_key_file_open_to_others_stops_the_first_run(tmp_path: Path) -> None:
    settings, catalog = Settings(data_dir=tmp_path / "data"), MemoryCatalog()
    await first_run(settings, catalog, now=NOW)
    settings.key_path.chmod(0o644)
    with pytest.raises(KeyRingUnsafe):
        await first_run(settings, catalog, now=NOW)


# ---------------------------------------------------------------------------------------------------------- signatures

BODY = b'{"email":"ada@example.org"}\xff'
KEY = "whsec_" + base64.b64encode(b"k" * 32).decode()


def test_the_plain_signature_is_the_published_one() -> None:
    # GitHub's documented example.
    assert (
        sign_plain(b"Hello, World!", "It's a Secret to Everybody")
        == "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    )
    verify_plain(sign_plain(BODY, "s"), BODY, ["s"])
    verify_plain(sign_plain(BODY, "previous"), BODY, ["s", "previous"])


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "sha256=",
        "sha256=é",
        "sha256=\udcff",
        "ü" * 71,
        sign_plain(BODY, "wrong"),
        sign_plain(b"other", "s"),
        sign_plain(BODY, "s").upper(),
        sign_plain(BODY, "s")[7:],
        sign_plain(BODY, "s") + "0",
        "sha1=" + "0" * 40,
        sign_plain(BODY, ""),
    ],
)
def test_every_wrong_plain_signature_gets_the_same_refusal(header: str | None) -> None:
    for secrets in (["s"], ["s", "t"], [], [""]):
        with pytest.raises(Unauthenticated) as refused:
            verify_plain(header, BODY, secrets)
        assert refused.value.detail == ONE_REFUSAL


def test_a_standard_webhook_verifies_and_answers_its_id() -> None:
    body = b'{"a": "\xc3\xa4"}'
    headers = sign_standard("msg_1", NOW, body, KEY)
    assert verify_webhook({name.title(): value for name, value in headers.items()}, body, [KEY], now=NOW) == "msg_1"
    rotated = {**headers, "webhook-signature": "v1,AAAA v2,x " + headers["webhook-signature"]}
    assert verify_standard(rotated, body, ["whsec_" + base64.b64encode(b"n" * 32).decode(), KEY], now=NOW) == "msg_1"


def test_our_standard_signature_is_the_librarys() -> None:
    now = datetime.now(UTC)
    Webhook(KEY).verify(b"{}", sign_standard("msg_1", now, b"{}", KEY))


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "msg_2"},
        {"webhook-id": ""},
        {"webhook-id": "msg.1"},
        {"webhook-id": "msg_\u00e9"},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "1e9"},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "9" * 30},
        {"webhook-timestamp": "\u0661"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,\u00e9"},
        {"webhook-signature": "v1,===="},
        {"webhook-signature": "v1," + base64.b64encode(b"x" * 32).decode()},
        {"content-encoding": "gzip"},
    ],
)
def test_every_wrong_standard_webhook_gets_the_same_refusal(change: dict[str, str]) -> None:
    headers = {**sign_standard("msg_1", NOW, b"{}", KEY), **change}
    with pytest.raises(Unauthenticated) as refused:
        verify_webhook(headers, b"{}", [KEY], now=NOW)
    assert refused.value.detail == ONE_REFUSAL


@pytest.mark.parametrize("seconds", [301, -301])
def test_a_stale_or_future_webhook_is_refused(seconds: int) -> None:
    headers = sign_standard("msg_1", NOW, b"{}", KEY)
    with pytest.raises(Unauthenticated):
        verify_standard(headers, b"{}", [KEY], now=NOW + timedelta(seconds=seconds))
    assert verify_standard(headers, b"{}", [KEY], now=NOW + timedelta(seconds=seconds // 2)) == "msg_1"


def test_another_body_or_secret_does_not_verify() -> None:
    headers = sign_standard("msg_1", NOW, b"{}", KEY)
    for body, secrets in (
        (b"{} ", [KEY]),
        (b"\xff", [KEY]),
        (b"{}", ["other"]),
        (b"{}", []),
        (b"{}", [""]),
        (b"{}", ["whsec_%"]),
    ):
        with pytest.raises(Unauthenticated):
            verify_standard(headers, body, secrets, now=NOW)


def test_a_stripe_signature_is_over_the_moment_and_the_body() -> None:
    # As their documentation says it: HMAC-SHA256 of "<t>.<body>" under the whole text of the secret, in hex.
    right = hmac.new(KEY.encode(), b"%d." % int(NOW.timestamp()) + BODY, hashlib.sha256).hexdigest()
    header = sign_stripe(NOW, BODY, KEY)
    assert header == f"t={int(NOW.timestamp())},v1={right}"
    for accepted in (header, header + ",v0=0", header.replace(",v1", ",v1=00,v1"), header.replace(",", ", ")):
        verify_stripe(accepted, BODY, ["other", KEY], now=NOW + timedelta(seconds=299))


@pytest.mark.parametrize(
    "change",
    [
        lambda header: None,
        lambda header: "",
        lambda header: header.replace("t=", "t=1"),
        lambda header: header.replace("t=", "t=+"),
        lambda header: header.replace("t=", "s="),
        lambda header: header + ",t=1",
        lambda header: header.replace("v1", "v0"),
        lambda header: header[:-1],
        lambda header: header.replace("v1=", "v1=\u00fc"),
        lambda header: "," * 1_000 + header,
        lambda header: "t=" + "9" * 5_000 + ",v1=0",
        lambda header: "t=\u0661,v1=0",
    ],
)
def test_every_wrong_stripe_signature_gets_the_same_refusal(change: Callable[[str], str | None]) -> None:
    with pytest.raises(Unauthenticated) as refused:
        verify_stripe(change(sign_stripe(NOW, BODY, KEY)), BODY, [KEY], now=NOW)
    assert refused.value.detail == ONE_REFUSAL


@pytest.mark.parametrize("seconds", [301, -301])
def test_a_stale_or_future_stripe_signature_is_refused(seconds: int) -> None:
    with pytest.raises(Unauthenticated):
        verify_stripe(sign_stripe(NOW, BODY, KEY), BODY, [KEY], now=NOW + timedelta(seconds=seconds))


def test_a_scheme_takes_no_signature_of_another() -> None:
    headers = {
        "standard": sign_standard("m1", NOW, b"{}", KEY),
        "github": {HUB_HEADER: sign_plain(b"{}", KEY)},
        "stripe": {STRIPE_HEADER: sign_stripe(NOW, b"{}", KEY)},
    }
    schemes: tuple[HookScheme, ...] = get_args(HookScheme)
    for scheme in schemes:
        assert verify_scheme(scheme, headers[scheme], b"{}", [KEY], now=NOW) == ("m1" if scheme == "standard" else None)
        others = {name: value for other in schemes if other != scheme for name, value in headers[other].items()}
        for wrong in (others, headers[scheme] | {"Content-Encoding": "gzip"}):
            with pytest.raises(Unauthenticated):
                verify_scheme(scheme, wrong, b"{}", [KEY], now=NOW)


def test_signatures_are_compared_in_constant_time() -> None:
    """Timing cannot be measured here without chance; what compares can be read."""
    source = inspect.getsource(signatures)
    assert source.count("compare_digest(") == 3
    for verifier in (verify_plain, verify_standard, verify_stripe):
        compared = [node for node in ast.walk(ast.parse(inspect.getsource(verifier))) if isinstance(node, ast.Compare)]
        names = {node.id for one in compared for node in ast.walk(one) if isinstance(node, ast.Name)}
        assert not names & {"given", "signature", "right", "encoded", "header"}
