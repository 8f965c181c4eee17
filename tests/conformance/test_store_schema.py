"""The store's SQL as data: twins have the same names, statements are parsed as meant, migrations are known by name and
content, hot queries ride indexes."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from engine.store import Await, Changed, Commit, NewInput, OutboxMessage, Store, Subscription, Timer, open_store
from engine.store.batch import GROUPS, flatten
from engine.store.errors import SchemaNewer
from engine.store.migrate import FOLDER, migrations
from engine.store.postgres_wire import columns, encode, install, packed_instant, packed_uuid
from engine.store.statements import bind, load, parse
from tests.conformance.store import write_views
from tests.conformance.store_making import NOW, append, arrived, events, open_a_run, started
from tests.conformance.store_postgres_database import SharedDatabase

ONE_SIDED = {"append.sql", "roles.sql"}
"""PostgreSQL's append is one function, SQLite's is these steps; SQLite has no roles."""


class TestTwins:
    def test_both_drivers_have_the_same_files_with_the_same_statement_names(self) -> None:
        names = {
            driver: {
                file.name: list(parse(file.read_text(), driver))
                for file in (FOLDER / driver).glob("*.sql")
                if file.name not in ONE_SIDED
            }
            for driver in ("postgres", "sqlite")
        }
        assert names["postgres"] == names["sqlite"]
        assert set(names["postgres"]) >= {"log.sql", "work.sql", "journal.sql", "catalog.sql", "views.sql"}

    def test_both_drivers_bind_the_same_parameters(self) -> None:
        given = {"now", "lease", "limit"}
        postgres, sqlite = (load([FOLDER / driver], driver) for driver in ("postgres", "sqlite"))
        for name in set(postgres) & set(sqlite):
            wanted = {parameter for step in postgres[name].steps for parameter in step.parameters}
            bound = {parameter for step in sqlite[name].steps for parameter in step.parameters}
            assert wanted - given == bound - given, name

    def test_the_batch_type_has_the_columns_that_are_sent(self) -> None:
        script = next(m.script for m in migrations("postgres") if m.name == "0002_types")
        own, rest = (
            re.findall(r"(\w+) \w+\[\]", script.split(f"CREATE TYPE {name} AS (")[1].split(");")[0])
            for name in ("batch", "batch_rest")
        )
        assert own + rest == [f"{p}_{name}" for p, names in GROUPS.items() for name in names]


class TestStatements:
    def test_named_parameters_become_numbers_and_casts_texts_and_comments_stay(self) -> None:
        text = (
            "-- name: x\n-- a comment: not :this\nSELECT :a::text, ':b', $$c$$ FROM t WHERE a = :a AND b = :c -- :d\n"
        )
        [step] = parse(text, "postgres")["x"].steps
        assert step.sql == "SELECT $1::text, ':b', $$c$$ FROM t WHERE a = $1 AND b = $2 -- :d"
        assert step.parameters == ("a", "c")
        assert bind(step, {"a": 1, "c": 2, "unused": 3}) == [1, 2]

    def test_numbered_parameters_keep_their_places(self) -> None:
        [step] = parse("-- name: x\nUPDATE t SET a = $2 WHERE b = $1;\n", "sqlite")["x"].steps
        assert (step.sql, step.parameters) == ("UPDATE t SET a = ?2 WHERE b = ?1", ("1", "2"))

    def test_a_block_of_several_statements_is_several_steps_on_sqlite_and_one_script_on_postgres(self) -> None:
        text = "-- name: x\nDELETE FROM a;\nDELETE FROM b;\n\n-- name: y\nSELECT 1\n"
        assert [step.sql for step in parse(text, "sqlite")["x"].steps] == ["DELETE FROM a", "DELETE FROM b"]
        assert len(parse(text, "postgres")["x"].steps) == 1
        assert parse(text, "sqlite")["y"].reads
        assert not parse(text, "sqlite")["x"].reads

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [("-- name: x\nSELECT 1\n-- name: x\nSELECT 2\n", "twice"), ("-- name: x\n-- nothing\n", "empty")],
    )
    def test_a_broken_file_is_refused_by_name(self, text: str, complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint):
            parse(text, "sqlite")

    def test_an_unknown_scheme_is_refused_with_the_known_ones(self) -> None:
        with pytest.raises(ValueError, match="postgresql://"):
            open_store("mysql://localhost/x")


class TestMigrations:
    def test_they_are_numbered_without_gaps(self) -> None:
        for driver in ("postgres", "sqlite"):
            names = [migration.name for migration in migrations(driver)]
            assert [name[:4] for name in names] == [f"{n:04}" for n in range(1, len(names) + 1)]

    async def test_a_newer_sqlite_file_is_refused_at_start_and_at_migrate(self, tmp_path: Path) -> None:
        store = open_store(f"sqlite://{tmp_path / 'store.db'}", views=tmp_path)
        await store.migrate()
        with sqlite3.connect(tmp_path / "store.db") as connection:
            connection.execute(
                "INSERT INTO migrations (name, checksum, applied_at) VALUES ('9999_contract_future', 'x', 0)"
            )
        connection.close()
        with pytest.raises(SchemaNewer):
            await store.start()
        with pytest.raises(SchemaNewer):
            await store.migrate()
        await store.stop()


def full_commit(run: uuid.UUID, expected: int) -> Commit:
    """A commit that touches every table a hot commit can touch."""
    wait = Subscription(name="w", visit=1, type="billing.PaidV1", key_name="order", key_hash=run.bytes, look_back=NOW)
    return Commit(
        tenant="acme",
        stream=run,
        expected=expected,
        events=events("a", "b"),
        input_keys=(f"reply/{expected}",),
        arrival=arrived(f"hot-{run}-{expected}", keys=(("order", run.bytes),), causation_id=f"c-{run}").arrival,
        inputs=(NewInput(kind="note", run_id=run, name="n", body=b"x"),),
        settled=(1,),
        outbox=(OutboxMessage(message_id="m", exchange="e", routing_key="k", body=b"b", not_before=NOW),),
        timers=(Timer(key="t", due=NOW),),
        timers_cleared=("t0",),
        subscriptions=(wait,),
        subscriptions_dropped=(("w0", 1),),
        awaits=(Await(command_id=f"c-{run}", step="s", visit=1, types=("billing.PaidV1", "x.YV1")),),
        awaits_dropped=("c0",),
        open_run=Changed(status="running", slot=True, takes_slot=True, workflow_cap=10**6, tenant_cap=10**6),
        snapshot=b"snap",
    )


class TestWire:
    def test_the_binary_form_says_what_the_columns_say(self) -> None:
        """Decoded by hand from PostgreSQL's documented array format; the server itself is asked below."""
        batch = flatten([full_commit(uuid.uuid4(), 3), arrived("only")], uuids=packed_uuid, instants=packed_instant)
        *own, rest = columns(batch)
        data = encode(batch, 4711)
        assert int.from_bytes(data[:4]) == len(own) + 1
        place = says(data, 4, own)
        assert int.from_bytes(data[place : place + 4]) == 4711
        assert int.from_bytes(data[place + 4 : place + 8]) == len(data) - place - 8
        assert int.from_bytes(data[place + 8 : place + 12]) == len(rest)
        assert says(data, place + 12, rest) == len(data)

    def test_a_batch_of_events_alone_has_no_rest(self) -> None:
        batch = flatten([Commit(tenant="acme", stream=uuid.uuid4(), events=events("a"))], uuids=packed_uuid)
        *own, rest = columns(batch)
        data = encode(batch, 4711)
        assert rest is None
        assert data[says(data, 4, own) :] == (4711).to_bytes(4) + b"\xff\xff\xff\xff"


def says(data: bytes, place: int, columns: Iterable[list[object]]) -> int:
    """Checks the arrays that begin at `place` against the columns; answers where they end."""
    for column in columns:
        size = int.from_bytes(data[place + 4 : place + 8])
        array = data[place + 8 : place + 8 + size]
        count = int.from_bytes(array[12:16]) if int.from_bytes(array[:4]) else 0
        assert count == len(column)
        at, lengths = 20, []
        for _ in column:
            length = int.from_bytes(array[at : at + 4], signed=True)
            lengths.append(length)
            at += 4 + max(length, 0)
        assert [length < 0 for length in lengths] == [value is None for value in column]
        place += 8 + size
    return place


@pytest.fixture(scope="module")
def shared(postgres_server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedDatabase]:
    made = SharedDatabase(postgres_server_url, write_views(tmp_path_factory.mktemp("views"), "postgres"))
    asyncio.run(made.create())
    yield made
    asyncio.run(made.drop())


@pytest.fixture
async def filled(shared: SharedDatabase) -> AsyncIterator[tuple[Store, int]]:
    """A store with a few thousand rows in every table, analyzed, so that a plan without an index would be chosen if
    there were none."""
    await shared.wipe()
    store = open_store(shared.url, views=shared.views)
    await store.start()
    epoch = await store.register("test", ["all"])
    for page in range(10):
        runs = [started(tenant="acme", workflow=f"w{page}") for _ in range(300)]
        await append(store, epoch, *runs)
        await append(store, epoch, *(full_commit(run.stream, 1) for run in runs if run.stream is not None))
    connection = await asyncpg.connect(shared.url, server_settings={"search_path": "unwind"})
    await connection.execute(_PEOPLE)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()
    yield store, epoch
    await store.stop()


_PEOPLE = """
INSERT INTO standings SELECT 't' || n, 'Active', 1 FROM generate_series(1, 3000) n;
INSERT INTO users (id, email, name, created_at)
SELECT md5(n::text)::uuid, n || '@example.org', 'x', now() FROM generate_series(1, 3000) n;
INSERT INTO memberships (user_id, tenant, roles, created_at) SELECT id, 'acme', '{viewer}', created_at FROM users;
"""

_SMALL = {
    "accounts",
    "processes",
    "settings",
    "cost_counters",
    "run_counters",
    "tenants",
    "checkpoints",
    "tokens",
    "keys",
    "dead_letters",
    "archive_heads",
}


class TestPostgresPlans:
    async def test_hot_functions_scan_no_table(self, filled: tuple[Store, int], shared: SharedDatabase) -> None:
        store, epoch = filled
        run = await open_a_run(store, epoch)
        connection = await asyncpg.connect(shared.url, server_settings={"search_path": "unwind", "jit": "off"})
        plans: list[str] = []
        connection.add_log_listener(lambda _connection, message: plans.append(str(message)))
        await connection.execute(
            "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on; "
            "SET client_min_messages = log"
        )
        now = datetime.now(UTC)
        batch = flatten([full_commit(run, 1)], uuids=packed_uuid, instants=packed_instant)
        costs = '[{"ord": 1, "tenant": "acme", "workflow": "w1", "micros": 1, "begins": true}]'
        calls = {
            "append": (0, epoch, now, False, None, None, False, columns(batch)),
            "append_with_costs": (0, epoch, now, False, None, None, False, costs, columns(batch)),
            "load": ("acme", run, 0),
            "load_many": (["acme"], [run]),
            "snapshot": ("acme", run),
            "snapshots_of": (["acme"], [run]),
            "read_log": (0, 3000, 100, 1_000_000),
            "head": (0,),
            "started": ("acme", "event/w/1"),
            "arrival": ("acme", "/modules/billing", "e1"),
            "claim_inputs": (epoch, 50, now),
            "claim_inputs_but": (epoch, 50, now, ["acme"]),
            "claim_outbox": (epoch, 50, now),
            "settle_outbox": ([1], [2], now),
            "due_timers": (epoch, 50, now),
            "claim_named": (epoch, ["acme"], [run]),
            "hand_over": (epoch, [run], now),
            "open_run": ("acme", run),
            "queued_runs_but": (epoch, 50, ["acme"], ["other"], ["w1"]),
            "slots_held": (["acme"],),
            "wakes": ("acme", run),
            "claim_runs": (epoch, ["w1"], [1], 50),
            "presented": ("12345678",),
            "counted_portion": (0, 3000, now.date(), 100),
            "rows_portion": (0, 3000, f"{now:%Y-%m-%d}", f"{now:%Y-%m-%d}", 100),
            "starts_portion": (["acme"], 0, 3000, now.date(), 100, 1_000_000),
        }
        for name, arguments in calls.items():
            places = ", ".join(f"${n}" for n in range(1, len(arguments) + 1))
            for _ in range(7):  # past the fifth call the server may turn to a plan that fits every value
                await connection.fetch(f"SELECT * FROM {name}({places})", *arguments)
        await connection.close()
        text = "\n".join(plans)
        assert text.count("Query Text") > len(calls)
        scanned = {table for table in re.findall(r"Seq Scan on (\w+)", text) if table[:3] != "pg_"} - _SMALL
        assert scanned == set()
        assert "Index Scan using log_stream_version" in text
        assert "Index Scan using outbox_available" in text

    async def test_the_server_reads_the_binary_batch_as_the_columns(
        self, filled: tuple[Store, int], shared: SharedDatabase
    ) -> None:
        batch = flatten([full_commit(uuid.uuid4(), 3), arrived("only")], uuids=packed_uuid, instants=packed_instant)
        connection = await asyncpg.connect(shared.url, server_settings={"search_path": "unwind"})
        plain = await connection.fetchval("SELECT ($1::batch)::text", columns(batch))
        find_type = load([FOLDER / "postgres"], "postgres")["batch_types"].steps[0].sql
        assert await install(connection, find_type)
        assert await connection.fetchval("SELECT ($1::batch)::text", batch) == plain
        await connection.close()


class TestSqlitePlans:
    async def test_hot_statements_scan_no_table(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        store = open_store(f"sqlite://{path}", views=tmp_path)
        await store.migrate()
        await store.start()
        epoch = await store.register("test", ["all"])
        runs = [started() for _ in range(50)]
        await append(store, epoch, *runs)
        await append(store, epoch, *(replace(full_commit(r.stream, 1)) for r in runs if r.stream is not None))
        await store.stop()
        statements = load([FOLDER / "sqlite"], "sqlite")
        cold = {"declare_dead", "retire", "processes", "open_runs", "claim_runs", "runs_without_wake", "prune_journal"}
        cold |= {
            "census",
            "position_before",
            "starts_counted",
            "starts_of",
            "load_many",
            "lanes",
            "applied",
            "guards",
            "migrations_exist",
            "tokens",
            "hooks",
            "outlets",
            "outlet_queues",
            "dead_letters",
            "forget_arrivals",
            "forget_subject",
            "restored",
            "rows_counted",
            "arrival_before",
            "past_arrivals",
            "count_past_arrivals",
            "forget_tenant",
            "people",
            "invitations",
            "forget_past_people",
        }
        connection = sqlite3.connect(path)
        scanned: set[tuple[str, str]] = set()
        for name, statement in statements.items():
            for step in statement.steps:
                if name in cold or step.sql.startswith("CREATE"):
                    continue
                values = dict.fromkeys(re.findall(r"@(\w+)", step.sql)) or [None] * _places(step.sql)
                for row in connection.execute(f"EXPLAIN QUERY PLAN {step.sql}", values):
                    scanned.update((name, table) for table in re.findall(r"^SCAN (\w+)$", row[3]))
        connection.close()
        # The last row of a table by its rowid, a table of one row per table, queued runs and their tenants, found by an
        # index and then no table: SQLite calls each a scan.
        scanned -= {("head", "log"), ("last_position", "sqlite_sequence")}
        scanned -= {("queued_runs", name) for name in ("queued", "d", "o", "t")}
        assert {pair for pair in scanned if pair[1] not in ("CONSTANT", "json_each")} == set()


def _places(sql: str) -> int:
    numbers = [int(n) for n in re.findall(r"\?(\d+)", sql)]
    return max(numbers, default=sql.count("?"))
