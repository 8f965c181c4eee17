"""Every setting of the product, once, as data: environment name, type, default, meaning. Read at the start of a
process and never changed; what changes at run time (caps, switches) lives in the catalog.

Names are `UNWIND_<NAME>`, nested ones `UNWIND_<GROUP>__<NAME>`; `DATABASE_URL` and `AMQP_URL` are understood too. A
secret may come from a file: `<NAME>_FILE`. All mistakes are reported at once. Called by the assembly and the scripts.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from contracts.problems import Problem

PREFIX: Final = "UNWIND_"
PLAIN_NAMES: Final = {"database_url": "DATABASE_URL", "bus_url": "AMQP_URL"}

Role = Literal["intake", "worker", "relay", "timer", "projector", "janitor", "web"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

Seconds = Annotated[float, Field(gt=0, le=86_400)]


class SettingsInvalid(Problem):
    """Every wrong setting at once, one per line, each with its name and remedy."""

    code = "settings_invalid"
    title = "The settings are wrong"
    exit_code = 2

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(mistakes), mistakes=list(mistakes))
        self.mistakes = mistakes


class _FilesAndPlainNames(PydanticBaseSettingsSource):
    """`UNWIND_<NAME>_FILE` for secrets, then the names that hosting platforms use; both yield to `UNWIND_<NAME>`."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, plain in PLAIN_NAMES.items():
            if os.environ.get(plain):
                values[name] = os.environ[plain]
        for setting in describe():
            file = os.environ.get(setting.name + "_FILE") if setting.secret else None
            if file:
                try:
                    content = Path(file).read_text(encoding="utf-8").strip()
                except (OSError, UnicodeDecodeError) as error:
                    raise _FileUnreadable(f"{setting.name}_FILE: {file} cannot be read: {error}") from None
                holder = values
                for part in setting.path[:-1]:
                    holder = holder.setdefault(part, {})
                holder[setting.path[-1]] = content
        return values


class _WithoutFiles(PydanticBaseSettingsSource):
    """The environment without `<NAME>_FILE`, which would otherwise read as unknown settings of a group."""

    def __init__(self, settings_cls: type[BaseSettings], environment: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        self._environment = environment

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._environment.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        values = self._environment()
        for setting in describe():
            group = values.get(setting.path[0])
            if setting.secret and isinstance(group, dict):
                group.pop(setting.path[-1] + "_file", None)
        return values


class _FileUnreadable(Exception):
    pass


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HttpSettings(_Group):
    host: str = Field("127.0.0.1", description="Address the HTTP API and the console listen on")
    port: int = Field(8080, ge=0, le=65_535, description="Port of the HTTP API; 0 takes a free one")
    public_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$",
        description="Where people reach the installation, for links in mails, such as https://unwind.example.org; "
        "unset: http:// and host and port",
    )
    probe_port: int = Field(
        8081, ge=0, le=65_535, description="Port of /healthz, /readyz and /metrics in processes without the web role"
    )
    max_body_bytes: int = Field(262_144, ge=1_024, le=16_777_216, description="Largest request body, unpacked")


class SessionSettings(_Group):
    idle_seconds: Seconds = Field(3_600.0, description="Without use for so long, whoever signed in must do so again")
    longest_seconds: Annotated[float, Field(gt=0, le=31 * 86_400)] = Field(
        43_200.0, description="After so long whoever signed in must do so again, used or not"
    )


class LeaseSettings(_Group):
    heartbeat_seconds: Seconds = Field(1.0, description="How often a process says that it lives")
    dead_seconds: Seconds = Field(4.0, description="Silence after which others take over its runs")


class LimitSettings(_Group):
    prefetch: int = Field(500, ge=1, le=65_535, description="Deliveries in flight per queue: the back-pressure")
    runs_in_decision: int = Field(200, ge=1, le=10_000, description="Runs decided at once in one process")
    hot_runs: int = Field(10_000, ge=0, le=10_000_000, description="Runs kept in memory between their events")
    waiting_runs: int = Field(
        500, ge=0, le=10_000_000, description="Of them, runs that only wait: for a fact, a person, a time or a slot"
    )
    actions_in_flight: int = Field(100, ge=1, le=100_000, description="Local actions performed at once per kind")
    batch_commits: int = Field(250, ge=1, le=10_000, description="Most commits in one append")
    outbox_batch: int = Field(500, ge=1, le=10_000, description="Most messages claimed by the relay at once")
    snapshot_events: int = Field(
        200,
        ge=0,
        le=1_000_000,
        description="Events of a run between two snapshots of it, for cold loads; 0 writes none",
    )
    pool_size: int = Field(
        4, ge=2, le=200, description="Most database connections per database role, beside those that append"
    )


class TimeoutSettings(_Group):
    database_seconds: Seconds = Field(
        5.0, description="How long a database call is tried again before the database counts as unavailable"
    )
    publish_seconds: Seconds = Field(5.0, description="Longest wait for a publisher confirm")
    start_seconds: Seconds = Field(60.0, description="How long start waits for the database and the broker")
    drain_seconds: Seconds = Field(20.0, description="How long SIGTERM waits for work in hand")
    # Well below the watchdog's patience, or it would end the process before the saga could be parked.
    decide_seconds: float = Field(1.0, gt=0, le=2, description="A saga that computes longer without yielding is parked")


class EgressSettings(_Group):
    sandbox: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Operator's exception: loopback or private host:port targets, exactly these, comma-separated; "
        "a tenant can never open one",
    )
    timeout_seconds: Seconds = Field(15.0, description="Longest outbound request, connect to last byte")
    dns_seconds: Seconds = Field(5.0, description="Longest name resolution")
    requests_per_minute: int = Field(
        6_000,
        ge=1,
        le=10_000_000,
        description="Outbound requests and mails that a tenant may begin a minute, unless it has a rate of its own",
    )
    max_response_bytes: int = Field(1_048_576, ge=1_024, le=67_108_864, description="Largest unpacked response body")

    @field_validator("sandbox", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return _parts(value)

    @field_validator("sandbox")
    @classmethod
    def _has_port(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _targets(value)


class OidcSettings(_Group):
    issuer: str | None = Field(
        None,
        description="OpenID Connect provider that people sign in by, exactly as it calls itself, such as "
        "https://id.example.org/realms/main; unset: local accounts alone",
    )
    client_id: str | None = Field(
        None,
        pattern=r"^[\x20-\x7e]{1,500}$",
        description="What the provider knows this installation as; the redirect address to register there is the "
        "public URL with /v1/session/oidc/callback",
    )
    client_secret: SecretStr | None = Field(
        None, description="Secret of this client; unset: a public client, proven by PKCE alone"
    )
    scopes: str = Field(
        "openid email profile",
        pattern=r"^openid( [\x21\x23-\x5b\x5d-\x7e]+)*$",
        description="What the provider is asked to tell, separated by spaces, openid first",
    )
    name: str = Field(
        "Single sign-on",
        min_length=1,
        max_length=100,
        description="What people call the provider, for the sign-in page",
    )
    private_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Operator's exception: loopback or private host:port targets of the provider, exactly these, "
        "comma-separated; open to sign-in alone, and with http:// too",
    )

    @field_validator("issuer", "client_id", mode="before")
    @classmethod
    def _unset(cls, value: Any) -> Any:
        return value or None

    @field_validator("client_secret")
    @classmethod
    def _some_secret(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value is not None and value.get_secret_value() else None

    @field_validator("issuer")
    @classmethod
    def _is_issuer(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
            raise ValueError("must be a URL without query, such as https://id.example.org/realms/main")
        return value

    @field_validator("private_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return _parts(value)

    @field_validator("private_hosts")
    @classmethod
    def _has_port(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _targets(value)


class SmtpSettings(_Group):
    host: str = Field("127.0.0.1", description="Mail server of the notifications module")
    port: int = Field(0, ge=0, le=65_535, description="Its port; 0 starts the built-in sink on a free port")
    username: str | None = Field(None, description="Mail login, when the server asks for one")
    password: SecretStr | None = Field(None, description="Mail password")
    tls: Literal["none", "starttls", "tls"] = Field("none", description="Encryption of the mail connection")
    sender: str = Field("unwind@localhost", description="Sender address of notifications")


class RetentionSettings(_Group):
    run_days: int = Field(
        395,
        ge=0,
        le=36_500,
        description="Days after its end that a run leaves the log and the lists for the archive; 0: never",
    )
    journal_days: int = Field(35, ge=1, le=3_650, description="Days that arrivals and the inbox are kept")


class AuditSettings(_Group):
    head_seconds: Seconds = Field(
        3_600.0, description="How often the heads of audit chains that moved are written to the log lines"
    )


class LogSettings(_Group):
    format: Literal["json", "console"] = Field("json", description="JSON lines, or readable lines for a terminal")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is written")


class TracingSettings(_Group):
    endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$",
        description="OTLP/HTTP address that spans are sent to, such as http://127.0.0.1:4318/v1/traces; unset: no "
        "tracing. Needs the extra unwind-saga[tracing]",
    )
    headers: SecretStr | None = Field(
        None, description="Headers that the collector asks for, as name=value, comma-separated"
    )
    sample: float = Field(1.0, ge=0, le=1, description="Share of new traces that are sent")

    @field_validator("endpoint", "headers", mode="before")
    @classmethod
    def _unset(cls, value: Any) -> Any:
        return value or None

    @field_validator("headers")
    @classmethod
    def _are_pairs(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not all("=" in part for part in value.get_secret_value().split(",")):
            raise ValueError("must be name=value, several with commas")
        return value


class Settings(BaseSettings):
    """All settings. Build it with `load()`, which reports every mistake with its environment name."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        case_sensitive=False,
    )

    data_dir: Path = Field(Path(".unwind"), description="Folder of the embedded stores and of generated key files")
    database_url: SecretStr | None = Field(
        None,
        description="postgresql:// URL of the engine's role; unset: SQLite in the data folder",
    )
    database_owner_url: SecretStr | None = Field(
        None, description="postgresql:// URL of the role that migrates; unset: database_url"
    )
    bus_url: SecretStr | None = Field(
        None,
        description="amqp:// URL of the broker; unset: the embedded bus in the data folder",
    )
    key_file: Path | None = Field(
        None, description="Key ring with the root keys, mode 0600; unset: keys.json in data_dir"
    )
    admin_token_file: Path | None = Field(
        None, description="Where the first admin token is written, mode 0600; unset: admin.token in data_dir"
    )
    signup_secret: SecretStr | None = Field(None, description="HMAC secret of the /signup webhook; unset: token only")
    process_name: str = Field("unwind", min_length=1, max_length=100, description="Name of this process in logs")
    roles: Annotated[tuple[Role, ...], NoDecode] = Field(ROLES, description="Roles of this process, comma-separated")
    sagas: Annotated[tuple[str, ...], NoDecode] = Field(
        ("engine.sagas",), description="Python modules whose sagas this process runs, comma-separated"
    )
    blueprints: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Blueprint files whose generated sagas this process runs too, comma-separated"
    )
    migrate: bool = Field(True, description="Apply missing migrations at start; set to 0 where a deploy step does it")
    modules: Literal["together", "separate", "none"] = Field(
        "together", description="Shipped modules as tasks of this process, as processes of their own, or not at all"
    )
    modules_database_url: SecretStr | None = Field(
        None,
        description="postgresql:// URL under which each shipped module keeps a schema of its own; unset: a SQLite file "
        "per module in the data folder",
    )
    rehearsals: bool = Field(False, description="Lets the shipped modules' failures be scripted; demos and tests only")
    http: HttpSettings = HttpSettings()
    session: SessionSettings = SessionSettings()
    lease: LeaseSettings = LeaseSettings()
    limits: LimitSettings = LimitSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    egress: EgressSettings = EgressSettings()
    oidc: OidcSettings = OidcSettings()
    smtp: SmtpSettings = SmtpSettings()
    retention: RetentionSettings = RetentionSettings()
    audit: AuditSettings = AuditSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()

    @property
    def key_path(self) -> Path:
        return self.key_file or self.data_dir / "keys.json"

    @property
    def admin_token_path(self) -> Path:
        return self.admin_token_file or self.data_dir / "admin.token"

    @property
    def embedded(self) -> bool:
        """True when neither a database nor a broker is configured: everything lives in files of the data folder."""
        return self.database_url is None and self.bus_url is None

    @field_validator("sagas", "blueprints", "roles", mode="before")
    @classmethod
    def _split_roles(cls, value: Any) -> Any:
        return _parts(value)

    @field_validator("roles")
    @classmethod
    def _some_role(cls, value: tuple[Role, ...]) -> tuple[Role, ...]:
        if not value:
            raise ValueError(f"name at least one of {', '.join(ROLES)}")
        return tuple(dict.fromkeys(value))

    @field_validator("database_url", "database_owner_url", "modules_database_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        return _check_scheme(value, ("postgresql", "postgres"))

    @field_validator("bus_url")
    @classmethod
    def _is_amqp(cls, value: SecretStr | None) -> SecretStr | None:
        return _check_scheme(value, ("amqp", "amqps"))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, _WithoutFiles(settings_cls, env_settings), _FilesAndPlainNames(settings_cls))


def load(**overrides: Any) -> Settings:
    """The settings from the environment, `overrides` (from command-line options) first. Raises `SettingsInvalid` with
    all mistakes; a misspelt `UNWIND_` name is one.
    """
    mistakes = list(_misspelt(os.environ))
    try:
        settings = Settings(**overrides)
    except _FileUnreadable as unreadable:
        raise SettingsInvalid((*mistakes, str(unreadable))) from None
    except ValidationError as invalid:
        for error in invalid.errors(include_input=False, include_url=False):
            path = "__".join(str(part) for part in error["loc"] if isinstance(part, str))
            mistakes.append(f"{PREFIX}{path.upper()}: {error['msg'].removeprefix('Value error, ')}")
        raise SettingsInvalid(tuple(mistakes)) from None
    lease = settings.lease
    if lease.dead_seconds < 3 * lease.heartbeat_seconds:
        mistakes.append(
            f"{PREFIX}LEASE__DEAD_SECONDS: must be at least three heartbeats ({3 * lease.heartbeat_seconds:g})"
        )
    mistakes.extend(_half_a_provider(settings))
    if mistakes:
        raise SettingsInvalid(tuple(mistakes))
    return settings


def _half_a_provider(settings: Settings) -> Iterator[str]:
    oidc = settings.oidc
    if oidc.issuer is None:
        if oidc.client_id is not None or oidc.client_secret is not None:
            yield f"{PREFIX}OIDC__ISSUER: must be set where a client of it is"
        return
    if oidc.client_id is None:
        yield f"{PREFIX}OIDC__CLIENT_ID: must be set where an issuer is"
    if settings.http.public_url is None:
        yield f"{PREFIX}HTTP__PUBLIC_URL: must be set where people sign in by a provider, which sends them back there"


def database_url(settings: Settings) -> str:
    """Where the store is: as set, else a SQLite file in the data folder."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return f"sqlite:///{(settings.data_dir / 'unwind.db').absolute()}"


def bus_url(settings: Settings) -> str:
    """Where the bus is: as set, else the embedded one in the data folder."""
    if settings.bus_url is not None:
        return settings.bus_url.get_secret_value()
    return f"embedded://{(settings.data_dir / 'bus.db').absolute()}"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the settings table: what README and the compose test are checked against."""

    name: str
    path: tuple[str, ...]
    default: str
    meaning: str
    secret: bool


BESIDE: Final = ("UNWIND_API_URL", "UNWIND_TOKEN", "UNWIND_TENANT", "UNWIND_DEBUG", "UNWIND_CACHE", "UNWIND_TEST_")
"""Variables of the command line and of the tests, which are no settings; the last one is a prefix."""


def unknown(environment: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are none, such as one of an earlier release."""
    known = {setting.name for setting in describe()}
    known |= {f"{setting.name}_FILE" for setting in describe() if setting.secret}
    return sorted(
        name for name in environment if name.startswith("UNWIND_") and name not in known and not name.startswith(BESIDE)
    )


@lru_cache(maxsize=1)
def describe() -> tuple[Setting, ...]:
    """Every setting in the order of this file. A secret one is also read from `<name>_FILE`."""
    return tuple(_describe(Settings, ()))


def known_names() -> frozenset[str]:
    """Every environment name that means something, files and plain names included."""
    names = {setting.name for setting in describe()}
    names |= {setting.name + "_FILE" for setting in describe() if setting.secret}
    return frozenset(names | set(PLAIN_NAMES.values()))


def _describe(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, _Group):
            yield from _describe(field.annotation, (*path, name))
            continue
        default = field.default
        if isinstance(default, tuple):
            default = ",".join(str(part) for part in default)
        yield Setting(
            name=PREFIX + "__".join((*path, name)).upper(),
            path=(*path, name),
            default="" if default is None else str(default),
            meaning=field.description or "",
            secret=SecretStr in get_args(field.annotation),
        )


def _misspelt(environ: Mapping[str, str]) -> Iterator[str]:
    # Other tools may use the prefix for names of their own, so only what looks like one of ours is refused.
    known = known_names()
    for name in sorted(environ):
        if name.startswith(PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.88)
            if near:
                yield f"{name}: is not a setting; did you mean {near[0]}?"


def _parts(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _targets(value: tuple[str, ...]) -> tuple[str, ...]:
    for target in value:
        host, _, port = target.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
            raise ValueError(f"{target!r} must be host:port, such as 127.0.0.1:2525")
    return value


def _check_scheme(value: SecretStr | None, schemes: tuple[str, ...]) -> SecretStr | None:
    if value is None or not value.get_secret_value():
        return None
    try:
        parts = urlsplit(value.get_secret_value())
        usable = parts.scheme in schemes and (bool(parts.hostname) or "host=" in parts.query)
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"must be a URL that begins with {schemes[0]}:// and names a host")
    return value
