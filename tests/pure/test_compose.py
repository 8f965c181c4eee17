"""compose.yaml against the product: what it starts exists, what it sets is a setting, what it waits for tells its
health."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from consumers.modules import NAMES
from contracts.version import __version__
from engine.settings import ROLES, Settings, describe, known_names, load
from scripts.provision.compose import image_of

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
# Health checks of other people's images: the tools that those images are known to hold.
FOREIGN_TOOLS = {
    "postgres": {"pg_isready"}, "rabbitmq": {"rabbitmq-diagnostics"}, "prometheus": {"promtool"}, "grafana": {"wget"},
}  # fmt: skip
EXACT = re.compile(r"^[a-z0-9./-]+:v?\d+\.\d+(\.\d+)?(-[a-z0-9.]+)*$")


def environment(service: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = service.get("environment", {})
    return found


def seconds(duration: str) -> float:
    match = re.fullmatch(r"(\d+)s", duration)
    assert match, f"{duration}: write it in seconds"
    return float(match[1])


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned_by_an_exact_tag(name: str) -> None:
    assert EXACT.match(SERVICES[name]["image"]), SERVICES[name]["image"]


def test_the_built_image_is_pinned_and_hash_checked_and_not_root() -> None:
    (dockerfile,) = {service["build"]["dockerfile_inline"] for service in OURS.values()}
    (base,) = re.findall(r"^FROM (\S+)$", dockerfile, re.MULTILINE)
    assert EXACT.match(base), base
    assert "--require-hashes" in dockerfile
    assert re.search(r"^USER unwind$", dockerfile, re.MULTILINE)
    assert {service["image"] for service in OURS.values()} == {f"unwind-saga:{__version__}"}


def test_everything_the_image_copies_exists_and_passes_the_ignore_file() -> None:
    (dockerfile,) = {service["build"]["dockerfile_inline"] for service in OURS.values()}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    lines = re.findall(r"^COPY (.+)$", dockerfile, re.MULTILINE)
    copied = {source for line in lines for source in line.split()[:-1]}
    assert copied == allowed
    assert [source for source in sorted(copied) if not (ROOT / source).exists()] == []


@pytest.mark.parametrize("name", OURS)
def test_every_environment_name_is_a_known_setting(name: str) -> None:
    assert set(environment(OURS[name])) - known_names() == set()


@pytest.mark.parametrize("name", OURS)
def test_every_environment_makes_valid_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in known_names():
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment(OURS[name]).items():
        monkeypatch.setenv(variable, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value))
    assert isinstance(load(), Settings)


@pytest.mark.parametrize("name", sorted(OURS.keys() - {"setup"}))
def test_every_process_shows_its_metrics_to_the_network(name: str) -> None:
    assert environment(OURS[name])["UNWIND_HTTP__HOST"] == "0.0.0.0"


def test_prometheus_scrapes_every_process() -> None:
    config = (ROOT / "scripts/monitoring/prometheus.yaml").read_text(encoding="utf-8")
    targets = set(re.findall(r"^ +- ([a-z-]+:\d+)$", config, re.MULTILINE))
    assert targets == {f"{name}:{8080 if name == 'web' else 8081}" for name in OURS if name != "setup"}


def test_links_in_mails_lead_to_where_people_reach_the_installation() -> None:
    given = environment(OURS["module-notifications"])["UNWIND_HTTP__PUBLIC_URL"]
    assert given == "${UNWIND_PUBLIC_URL:-http://127.0.0.1:8080}"
    assert SERVICES["web"]["ports"] == ["127.0.0.1:${UNWIND_PORT:-8080}:8080"]


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists_with_its_options(name: str) -> None:
    from scripts.cli import app

    command = OURS[name]["command"]
    found: Any = typer.main.get_command(app)
    words = list(command)
    context = found.make_context("unwind", words, resilient_parsing=True)
    while hasattr(found, "resolve_command"):
        verb, found, words = found.resolve_command(context, words)
        assert found is not None, verb
    found.parse_args(found.context_class(found, info_name="unwind"), words)


def test_each_role_and_each_shipped_module_is_started_once() -> None:
    commands = [service["command"] for service in OURS.values()]
    roles = [role for verb, *rest in commands if verb == "serve" for role in rest[1].split(",")]
    modules = [rest[0] for verb, *rest in commands if verb == "serve-module"]
    assert sorted(roles) == sorted(ROLES)
    assert sorted(modules) == sorted(NAMES)


@pytest.mark.parametrize("name", SERVICES)
def test_every_health_check_exists(name: str) -> None:
    service = SERVICES[name]
    if service.get("restart") == "no":
        assert "healthcheck" not in service, "a service that ends is waited for by its exit code"
        return
    kind, *command = service["healthcheck"]["test"]
    assert kind == "CMD"
    if name not in OURS:
        assert command[0] in FOREIGN_TOOLS[name]
        return
    assert command[:3] == ["python", "-m", "scripts.probe"]
    assert importlib.util.find_spec("scripts.probe") is not None
    assert command[3:] == (["web"] if service["command"] == ["serve", "--roles", "web"] else ["process"])


@pytest.mark.parametrize("name", SERVICES)
def test_each_depends_on_waits_for_health_or_for_the_end(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        if SERVICES[other].get("restart") == "no":
            assert how["condition"] == "service_completed_successfully"
        else:
            assert how["condition"] == "service_healthy"
            assert "healthcheck" in SERVICES[other]


@pytest.mark.parametrize("name", OURS)
def test_the_grace_period_is_longer_than_the_drain(name: str) -> None:
    default = {setting.name: setting.default for setting in describe()}["UNWIND_TIMEOUTS__DRAIN_SECONDS"]
    drain = float(environment(OURS[name]).get("UNWIND_TIMEOUTS__DRAIN_SECONDS", default))
    assert seconds(OURS[name]["stop_grace_period"]) > drain + 5


@pytest.mark.parametrize("name", SERVICES)
def test_every_volume_and_config_is_declared(name: str) -> None:
    service = SERVICES[name]
    assert {mount.split(":")[0] for mount in service.get("volumes", [])} <= set(COMPOSE["volumes"])
    assert {config["source"] for config in service.get("configs", [])} <= set(COMPOSE.get("configs", {}))
    files = [config["file"] for config in COMPOSE["configs"].values() if "file" in config]
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_monitoring_is_left_out_unless_it_is_asked_for() -> None:
    profiled = {name for name, service in SERVICES.items() if service.get("profiles")}
    assert profiled == {"prometheus", "grafana"}
    assert all(SERVICES[name]["profiles"] == ["monitoring"] for name in profiled)


def test_published_ports_stay_on_this_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_tests_provide_the_same_images() -> None:
    assert image_of("postgres") == SERVICES["postgres"]["image"]
    assert image_of("rabbitmq") == SERVICES["rabbitmq"]["image"]
