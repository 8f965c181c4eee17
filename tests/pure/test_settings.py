"""Settings: every mistake at once, secrets that never print, one table that says it all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from consumers.module_host import link_base
from engine import settings as module
from engine.settings import OidcSettings, Settings, SettingsInvalid, describe, known_names, load


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("UNWIND_") or name in module.PLAIN_NAMES.values():
            monkeypatch.delenv(name)


def test_without_any_setting_the_embedded_product_runs() -> None:
    settings = load()
    assert settings.embedded
    assert settings.roles == module.ROLES
    assert settings.key_path == settings.data_dir / "keys.json"
    assert (settings.lease.heartbeat_seconds, settings.lease.dead_seconds) == (1.0, 4.0)


def test_all_mistakes_are_reported_at_once_with_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "UNWIND_LIMITS__PREFETCH": "0",
        "UNWIND_ROLES": "web,foo",
        "UNWIND_HTTP__PORT": "abc",
        "UNWIND_EGRESS__SANDBOX": "127.0.0.1",
        "DATABASE_URL": "mysql://u:hunter2@h/d",
        "UNWIND_DATABSE_URL": "x",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid) as refused:
        load()
    named = {mistake.split(":")[0] for mistake in refused.value.mistakes}
    assert named == {
        "UNWIND_LIMITS__PREFETCH", "UNWIND_ROLES", "UNWIND_HTTP__PORT", "UNWIND_EGRESS__SANDBOX", "UNWIND_DATABASE_URL",
        "UNWIND_DATABSE_URL",
    }  # fmt: skip
    assert "did you mean UNWIND_DATABASE_URL?" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_secret_never_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hunter2@h/d")
    settings = load()
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://u:hunter2@h/d"


def test_a_secret_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hunter2\n")
    monkeypatch.setenv("UNWIND_SMTP__PASSWORD_FILE", str(file))
    settings = load()
    assert settings.smtp.password is not None
    assert settings.smtp.password.get_secret_value() == "hunter2"
    monkeypatch.setenv("UNWIND_SMTP__PASSWORD_FILE", str(tmp_path / "missing"))
    with pytest.raises(SettingsInvalid, match="UNWIND_SMTP__PASSWORD_FILE"):
        load()


def test_our_own_name_wins_over_the_plain_one_and_an_option_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQP_URL", "amqp://plain/")
    assert _bus(load()) == "amqp://plain/"
    monkeypatch.setenv("UNWIND_BUS_URL", "amqp://ours/")
    assert _bus(load()) == "amqp://ours/"
    assert _bus(load(bus_url="amqp://option/")) == "amqp://option/"


def test_nested_names_and_lists_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNWIND_HTTP__PORT", "0")
    monkeypatch.setenv("UNWIND_ROLES", "web, relay,web")
    monkeypatch.setenv("UNWIND_EGRESS__SANDBOX", "127.0.0.1:2525, mailpit:1025")
    settings = load(http={"host": "0.0.0.0"})
    assert (settings.http.host, settings.http.port) == ("0.0.0.0", 0)
    assert settings.roles == ("web", "relay")
    assert settings.egress.sandbox == ("127.0.0.1:2525", "mailpit:1025")


def test_a_provider_is_set_up_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNWIND_OIDC__ISSUER", "")
    assert load().oidc == OidcSettings()
    monkeypatch.setenv("UNWIND_OIDC__CLIENT_ID", "unwind")
    with pytest.raises(SettingsInvalid, match="UNWIND_OIDC__ISSUER: must be set"):
        load()
    monkeypatch.delenv("UNWIND_OIDC__CLIENT_ID")
    monkeypatch.setenv("UNWIND_OIDC__ISSUER", "https://id.example.org/realms/main")
    with pytest.raises(SettingsInvalid, match=r"UNWIND_OIDC__CLIENT_ID[^\0]*UNWIND_HTTP__PUBLIC_URL"):
        load()
    monkeypatch.setenv("UNWIND_OIDC__CLIENT_ID", "unwind")
    monkeypatch.setenv("UNWIND_HTTP__PUBLIC_URL", "https://unwind.example.org")
    (tmp_path / "secret").write_text("hunter2\n")
    monkeypatch.setenv("UNWIND_OIDC__CLIENT_SECRET_FILE", str(tmp_path / "secret"))
    monkeypatch.setenv("UNWIND_OIDC__PRIVATE_HOSTS", "id.internal.example:8443")
    found = load().oidc
    assert found.client_secret is not None
    assert found.client_secret.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(found)
    assert found.private_hosts == ("id.internal.example:8443",)
    for name, wrong in (
        ("ISSUER", "id.example.org"),
        ("ISSUER", "https://id.example.org/?realm=main"),
        ("SCOPES", "email"),
        ("PRIVATE_HOSTS", "id.internal.example"),
    ):
        with monkeypatch.context() as now:
            now.setenv(f"UNWIND_OIDC__{name}", wrong)
            with pytest.raises(SettingsInvalid, match=f"UNWIND_OIDC__{name}"):
                load()


def test_a_lease_shorter_than_three_heartbeats_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNWIND_LEASE__DEAD_SECONDS", "2")
    with pytest.raises(SettingsInvalid, match="three heartbeats"):
        load()


def test_names_of_other_tools_under_the_prefix_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNWIND_TEST_POSTGRES_URL", "x")
    monkeypatch.setenv("UNWIND_CACHE", "x")
    load()


def test_every_setting_has_a_meaning_and_its_default_reads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = describe()
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.meaning and row.name.startswith("UNWIND_") for row in rows)
    for row in rows:
        if row.default:
            monkeypatch.setenv(row.name, row.default)
    assert load() == Settings()
    assert {"DATABASE_URL", "UNWIND_DATABASE_URL", "UNWIND_DATABASE_URL_FILE", "UNWIND_HTTP__PORT"} <= known_names()


def _bus(settings: Settings) -> str:
    assert settings.bus_url is not None
    return settings.bus_url.get_secret_value()


def test_links_lead_to_the_public_url_or_to_an_address_that_can_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert link_base(load()) == "http://127.0.0.1:8080"
    monkeypatch.setenv("UNWIND_HTTP__HOST", "0.0.0.0")
    assert link_base(load()) == "http://127.0.0.1:8080"
    monkeypatch.setenv("UNWIND_HTTP__PUBLIC_URL", "https://unwind.example.org/app")
    assert link_base(load()) == "https://unwind.example.org/app"
    monkeypatch.setenv("UNWIND_HTTP__PUBLIC_URL", "unwind.example.org")
    with pytest.raises(SettingsInvalid, match="UNWIND_HTTP__PUBLIC_URL"):
        load()
