"""What each database role can and cannot do: the engine executes functions and touches no table, the projector writes
read models only, the web sees one tenant, the owner itself cannot change the log."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from consumers.mailing import MailRules
from engine.guards.outbound import Rules
from engine.settings import load
from engine.store import Change, Store, open_store
from engine.store.batch import flatten
from engine.store.postgres_wire import columns, packed_instant, packed_uuid
from tests.conformance.store import write_views
from tests.conformance.store_making import NOW, append, arrived, open_a_run, started

pytestmark = pytest.mark.postgres
Connection = asyncpg.Connection
Denied = asyncpg.InsufficientPrivilegeError
TABLES = (
    *("log", "starts", "inbox", "arrivals", "arrival_keys", "arrival_outcomes", "input_keys", "inputs", "outbox"),
    *("timers", "subscriptions", "awaits", "open_runs", "snapshots", "processes", "keys", "tokens", "settings"),
    *("tenants", "dead_letters", "hooks", "users", "memberships", "identities", "invitations", "sessions", "standings"),
)


@pytest.fixture
async def store(postgres_url: str, tmp_path: Path) -> AsyncIterator[Store]:
    store = open_store(postgres_url, views=write_views(tmp_path / "views", "postgres"))
    await store.migrate()
    await store.start()
    yield store
    await store.stop()


@pytest.fixture
async def connection(store: Store, postgres_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(postgres_url, server_settings={"search_path": "unwind, views"})
    yield connection
    await connection.close()


async def become(connection: Connection, name: str) -> None:
    role = await connection.fetchval("SELECT role FROM unwind.roles WHERE name = $1", name)
    await connection.execute(f'SET ROLE "{role}"')


def sent(*commits: object) -> tuple[list[object], ...]:
    return columns(flatten(commits, uuids=packed_uuid, instants=packed_instant))  # type: ignore[arg-type]


@pytest.mark.parametrize("role", ["engine", "projector", "web", "operator", "mail"])
async def test_no_role_touches_a_table_of_the_store(connection: Connection, role: str) -> None:
    await become(connection, role)
    for table in TABLES:
        for statement in (
            f"SELECT * FROM {table}",
            f"INSERT INTO {table} DEFAULT VALUES",
            f"UPDATE {table} SET tenant = 'x'",
            f"DELETE FROM {table}",
            f"TRUNCATE {table}",
        ):
            with pytest.raises((Denied, asyncpg.UndefinedColumnError)):
                await connection.execute(statement)


async def test_the_engine_executes_functions_and_makes_nothing(store: Store, connection: Connection) -> None:
    await become(connection, "engine")
    epoch = await connection.fetchval("SELECT register('p', '{all}', NULL)")
    call = "SELECT codes FROM append(0::smallint, $1, NULL, false, NULL, NULL, true, $2)"
    assert await connection.fetchval(call, epoch, sent(started(), started(tenant="other"))) is None
    for statement in ("CREATE TABLE unwind.x (n int)", "CREATE TABLE views.x (n int)", "DROP FUNCTION append"):
        with pytest.raises(Denied):
            await connection.execute(statement)
    for statement in ("SELECT * FROM seen", "INSERT INTO seen VALUES ('acme', 'a', 1)", "SELECT * FROM checkpoints"):
        with pytest.raises(Denied):
            await connection.execute(statement)


async def test_mail_reads_the_rules_of_outbound_requests_leases_their_rate_and_does_nothing_else(
    store: Store, connection: Connection, postgres_url: str, tmp_path: Path
) -> None:
    """Through a login of that role alone, as the notifications module has it, and in the database itself."""
    await store.put_setting("acme", "egress", {"allow": [], "rate": None})
    login = f"u_{uuid.uuid4().hex}"
    role = await connection.fetchval("SELECT role FROM roles WHERE name = 'mail'")
    await connection.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'x' IN ROLE \"{role}\"")
    views = write_views(tmp_path / "mail", "postgres")
    mail = open_store(as_login(postgres_url, login), views=views, pool_size=1, role="mail")
    await mail.start()
    try:
        assert await mail.egress_rules("acme") == {"allow": [], "rate": None}
        assert await mail.egress_rules("globex") is None
        assert await mail.lease_egress("acme", slot=1, width_ms=1000, slots=11, most=5, wanted=9) == 5
        assert await mail.lease_egress("acme", slot=1, width_ms=1000, slots=11, most=5, wanted=9) == 0
        assert abs((await mail.time() - await store.time()).total_seconds()) < 60
        for refused in (mail.setting("acme", "egress"), mail.put_setting("acme", "egress", {}), mail.tokens(None)):
            with pytest.raises(Denied):
                await refused
        module = MailRules(load(database_url=as_login(postgres_url, login), data_dir=tmp_path))
        await module.start()
        rules = await module.outbound.rules("acme")
        await module.outbound.permit("acme", rules, 1.0)
        await module.stop()
        assert rules == Rules()
    finally:
        await mail.stop()
        await connection.execute(f"DROP ROLE {login}")
    await become(connection, "mail")
    may = await connection.fetch(
        "SELECT p.proname AS name FROM pg_proc p WHERE p.pronamespace = 'unwind'::regnamespace"
        " AND has_function_privilege(p.oid, 'EXECUTE') AND p.proname <> 'refuse_change'"
    )
    assert {row["name"] for row in may} == {"egress_rules", "lease_egress"}
    for table in ("views.seen", "checkpoints", "egress_slots", "secrets", "settings"):
        with pytest.raises(Denied):
            await connection.execute(f"SELECT * FROM {table}")


async def test_a_database_of_before_gets_the_mail_role_and_an_older_login_the_engine_s(
    store: Store, connection: Connection, postgres_url: str, tmp_path: Path
) -> None:
    role = await connection.fetchval("DELETE FROM roles WHERE name = 'mail' RETURNING role")
    await connection.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')
    views = write_views(tmp_path / "mail", "postgres")

    async def rules(url: str) -> object:
        mail = open_store(url, views=views, pool_size=1, role="mail")
        await mail.start()
        try:
            return await mail.egress_rules("acme"), await mail.lease_egress(
                "acme", slot=1, width_ms=1000, slots=11, most=5, wanted=1
            )
        finally:
            await mail.stop()

    engine = await connection.fetchval("SELECT role FROM roles WHERE name = 'engine'")
    login = f"u_{uuid.uuid4().hex}"
    await connection.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'x' IN ROLE \"{engine}\"")
    try:
        older = as_login(postgres_url, login)
        assert await rules(older) == (None, 1)
        assert await store.migrate() == []
        assert await connection.fetchval("SELECT role FROM roles WHERE name = 'mail'") == role
        assert await rules(older) == (None, 1)
        assert await rules(postgres_url) == (None, 1)
        await become(connection, "mail")
        assert await connection.fetchval("SELECT egress_rules('acme')") is None
    finally:
        await connection.execute("RESET ROLE")
        await connection.execute(f"DROP ROLE {login}")


async def test_the_projector_writes_read_models_and_appends_nothing(store: Store, connection: Connection) -> None:
    await become(connection, "projector")
    await connection.execute("INSERT INTO seen VALUES ('acme', 'a', 1), ('other', 'b', 2)")
    await connection.execute("INSERT INTO checkpoints VALUES ('seen', 0, 1)")
    assert await connection.fetchval("SELECT count(*) FROM seen") == 2
    assert await connection.fetchval("SELECT count(*) FROM read_log(0::smallint, 0, 10, 1000)") == 0
    for statement in ("SELECT register('p', '{all}', NULL)", "SELECT * FROM claim_outbox(1, 1, NULL)"):
        with pytest.raises(Denied):
            await connection.execute(statement)


async def test_the_web_sees_the_rows_of_its_tenant_and_writes_none(store: Store, connection: Connection) -> None:
    rows = [("acme", "a", 1), ("other", "b", 2)]
    await store.apply("seen", 0, expected=0, position=1, changes=[Change("seen_put", rows)])
    await become(connection, "web")
    assert await connection.fetch("SELECT * FROM seen") == []
    for tenant, names in (("acme", ["a"]), ("other", ["b"]), ("*", []), ("' OR true --", [])):
        await connection.execute("SELECT set_config('app.tenant', $1, false)", tenant)
        assert [row["name"] for row in await connection.fetch("SELECT name FROM seen")] == names
    for statement in (
        "INSERT INTO seen VALUES ('acme', 'x', 1)",
        "DELETE FROM seen",
        "UPDATE checkpoints SET position = 9",
    ):
        with pytest.raises(Denied):
            await connection.execute(statement)


async def test_the_web_appends_for_its_tenant_only(store: Store, connection: Connection) -> None:
    epoch = await store.register("web", ["web"])
    await become(connection, "web")
    call = "SELECT codes FROM append_for($1, 0::smallint, $2, NULL, $3)"
    assert await connection.fetchval(call, "acme", epoch, sent(arrived("e1"))) is None
    with pytest.raises(Denied, match="other"):
        await connection.fetchval(call, "acme", epoch, sent(arrived("e2"), arrived("e3", tenant="other")))
    with pytest.raises(Denied, match="only arrivals"):
        await connection.fetchval(call, "acme", epoch, sent(started()))
    with pytest.raises(Denied):
        await connection.fetch(
            "SELECT * FROM append(0::smallint, 1, NULL, false, NULL, NULL, true, $1)", sent(arrived("e4"))
        )
    assert await store.arrival("acme", "/modules/billing", "e2") is None


async def test_the_operator_sees_all_tenants_and_writes_none(store: Store, connection: Connection) -> None:
    rows = [("acme", "a", 1), ("other", "b", 2)]
    await store.apply("seen", 0, expected=0, position=1, changes=[Change("seen_put", rows)])
    await become(connection, "operator")
    assert await connection.fetchval("SELECT count(*) FROM seen") == 2
    with pytest.raises(Denied):
        await connection.execute("DELETE FROM seen")


async def test_the_log_is_append_only_even_to_its_owner(store: Store, connection: Connection) -> None:
    await open_a_run(store, await store.register("p", ["all"]))
    await become(connection, "owner")
    for table in ("log", "starts"):
        for statement in (f"UPDATE {table} SET tenant = 'x'", f"DELETE FROM {table}", f"TRUNCATE {table}"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
                await connection.execute(statement)
    assert await connection.fetchval("SELECT count(*) FROM log") == 1


async def test_every_function_is_the_owners_with_a_fixed_search_path(connection: Connection) -> None:
    loose = await connection.fetch(
        """
        SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = 'unwind' AND p.proname <> 'refuse_change'
          AND NOT (p.prosecdef AND 'search_path=unwind, pg_temp' = ANY (coalesce(p.proconfig, '{}'))
                   AND pg_get_userbyid(p.proowner) = (SELECT role FROM unwind.roles WHERE name = 'owner')
                   AND NOT has_function_privilege('public', p.oid, 'EXECUTE'))
        """
    )
    assert loose == []
    owner = await connection.fetchrow(
        "SELECT rolcanlogin, rolsuper, rolbypassrls FROM pg_roles JOIN unwind.roles ON role = rolname "
        "WHERE name = 'owner'"
    )
    assert owner is not None
    assert tuple(owner) == (False, False, False)


async def test_a_login_with_the_engines_role_alone_can_run_the_engine(
    store: Store, connection: Connection, postgres_url: str, tmp_path: Path
) -> None:
    role = await connection.fetchval("SELECT role FROM unwind.roles WHERE name = 'engine'")
    login = f"u_{uuid.uuid4().hex}"
    await connection.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'x' IN ROLE \"{role}\"")
    url = as_login(postgres_url, login)
    engine = open_store(url, views=tmp_path / "views")
    try:
        await engine.start()
        epoch = await engine.register("p", ["worker"])
        run = await open_a_run(engine, epoch)
        assert len(await engine.load("acme", run)) == 1
        assert len(await engine.claim_runs(epoch, plans=[])) == 0
        with pytest.raises(Denied):
            await engine.apply("seen", 0, expected=0, position=1, changes=[])
        with pytest.raises(Denied):
            await engine.migrate()
    finally:
        await engine.stop()
        await connection.execute(f"DROP ROLE {login}")


async def test_a_user_who_may_make_no_roles_runs_all_as_himself(
    postgres_url: str, postgres_server_url: str, tmp_path: Path
) -> None:
    login = f"u_{uuid.uuid4().hex}"
    database = urlsplit(postgres_url).path[1:]
    admin = await asyncpg.connect(postgres_server_url)
    await admin.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'x'")
    await admin.execute(f'GRANT CREATE ON DATABASE "{database}" TO {login}')
    plain = open_store(as_login(postgres_url, login), views=write_views(tmp_path / "views", "postgres"))
    try:
        await plain.migrate()
        await plain.start()
        epoch = await plain.register("p", ["all"])
        assert len(await append(plain, epoch, started(), arrived("e1"))) == 2
        rows = [("acme", "a", 1), ("other", "b", 2)]
        assert await plain.apply("seen", 0, expected=0, position=1, changes=[Change("seen_put", rows)])
        assert [row["name"] for row in await plain.fetch("seen_list", tenant="acme", least=0)] == ["a"]
        assert len(await plain.fetch("seen_list", tenant=None, least=0)) == 2
        await plain.append_for("acme", [arrived("e2")], epoch=epoch, now=NOW)
    finally:
        await plain.stop()
        own = await asyncpg.connect(postgres_url)
        await own.execute(f"DROP OWNED BY {login} CASCADE")
        await own.close()
        await admin.execute(f"DROP ROLE {login}")
        await admin.close()


@pytest.mark.parametrize("made_by", ["the migrating login", "an administrator"])
async def test_a_login_that_is_no_superuser_gets_the_roles_apart(
    postgres_url: str, postgres_server_url: str, tmp_path: Path, made_by: str
) -> None:
    login = f"u_{uuid.uuid4().hex}"
    database = urlsplit(postgres_url).path[1:]
    names = [f"unwind_{database}_{name}" for name in ("owner", "engine", "projector", "web", "operator", "mail")]
    admin = await asyncpg.connect(postgres_server_url)
    may = "CREATEROLE" if made_by == "the migrating login" else "NOCREATEROLE"
    await admin.execute(f"CREATE ROLE {login} LOGIN {may} PASSWORD 'x'")
    if made_by == "an administrator":
        for name in names:
            await admin.execute(f'CREATE ROLE "{name}" NOLOGIN')
            await admin.execute(f'GRANT "{name}" TO {login}')
    await admin.execute(f'GRANT CREATE ON DATABASE "{database}" TO {login}')
    plain = open_store(as_login(postgres_url, login), views=write_views(tmp_path / "views", "postgres"))
    try:
        await plain.migrate()
        await plain.start()
        epoch = await plain.register("p", ["all"])
        assert len(await append(plain, epoch, started(), arrived("e1"))) == 2
        assert await plain.apply("seen", 0, expected=0, position=1, changes=[Change("seen_put", [("acme", "a", 1)])])
        assert len(await plain.fetch("seen_list", tenant=None, least=0)) == 1
        assert await plain.fetch("seen_list", tenant="other", least=0) == []
        owner = await admin.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = ANY ($1)", names)
        assert owner == 6
    finally:
        await plain.stop()
        own = await asyncpg.connect(postgres_url)
        await own.execute(f"DROP OWNED BY {login} CASCADE")
        for name in names:
            await own.execute(f'DROP OWNED BY "{name}" CASCADE')
        await own.close()
        for name in names:
            await admin.execute(f'DROP ROLE "{name}"')
        await admin.execute(f"DROP ROLE {login}")
        await admin.close()


async def test_the_roles_carry_the_databases_name(connection: Connection, postgres_url: str) -> None:
    """So that two databases in one cluster cannot be mixed up."""
    database = urlsplit(postgres_url).path[1:]
    roles = await connection.fetch("SELECT name, role FROM unwind.roles")
    assert {row["role"] for row in roles} == {f"unwind_{database}_{row['name']}" for row in roles}
    assert {row["name"] for row in roles} == {"owner", "engine", "projector", "web", "operator", "mail"}


def as_login(url: str, login: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{login}:x@{parts.hostname}:{parts.port}"))
