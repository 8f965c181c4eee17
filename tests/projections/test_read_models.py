"""The read models over real stores: what they say, that they say it once, and that a rebuild says the same."""

from __future__ import annotations

import sqlite3
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from consumers.projector import VIEWS
from consumers.rebuild import digest
from engine.run.evolve import fold
from engine.run.state import RunState
from engine.store.statements import bind, load, narrowed
from projections.facts import RunFacts
from projections.stats import bucket, percentile, upper_seconds
from tests.projections import histories
from tests.projections.conftest import House
from tests.projections.histories import SHAPES, record

RUN = UUID("0190b2f4-7c1e-7e58-b1b2-3c4d5e6f7a8b")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_the_shown_status_is_the_engines_status_after_every_event(shape: Any) -> None:
    from engine.store.mapper import redacted

    events, facts = shape(), RunFacts(RUN, "acme")
    for version, event in enumerate(events, 1):
        facts.take(version, version, event.TOPIC, redacted(event))
        state = fold(RunState(RUN, "acme"), events[:version])
        assert (version, facts.status) == (version, state.status)
        assert facts.business_state == state.business_state


async def _fill(house: House, tenants: tuple[str, ...] = ("acme", "globex")) -> dict[str, list[UUID]]:
    return {
        tenant: [await record(house.store, house.vault, tenant, shape(), epoch=house.epoch) for shape in SHAPES]
        for tenant in tenants
    }


async def test_rows_do_not_depend_on_how_the_log_was_cut_into_batches(house: House) -> None:
    await _fill(house)
    await house.projector(batch=2_000).catch_up()
    large = {view.name: await digest(house.store, view.name) for view in VIEWS}
    for view in VIEWS:
        await house.store.reset(view.name)
    await house.projector(batch=1).catch_up()
    small = {view.name: await digest(house.store, view.name) for view in VIEWS}
    assert small == large


@pytest.mark.acceptance("L9")
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
async def test_a_rebuilt_view_equals_the_view_before(house: House, view: Any) -> None:
    await _fill(house)
    await house.projector(batch=7).catch_up()
    seen: list[tuple[int, int]] = []
    rebuilt = await house.rebuild().run(view, progress=lambda done, total: seen.append((done, total)))
    assert rebuilt.equal
    assert rebuilt.events == await house.store.head(0)
    assert seen[-1][0] == seen[-1][1]


async def test_a_view_with_a_changed_row_does_not_equal_its_rebuild(house: House) -> None:
    await _fill(house, ("acme",))
    await house.projector().catch_up()
    position = await house.store.checkpoint("usage", 0)
    from engine.store import Change

    stray = Change("usage_now_add", [("acme", 1, 1)])
    assert await house.store.apply("usage", 0, expected=position, position=position, changes=[stray])
    usage = next(view for view in VIEWS if view.name == "usage")
    assert not (await house.rebuild().run(usage)).equal


@pytest.mark.acceptance("L9")
async def test_events_applied_twice_change_nothing(house: House) -> None:
    await _fill(house, ("acme",))
    projector = house.projector()
    await projector.catch_up()
    before = {view.name: await digest(house.store, view.name) for view in VIEWS}
    # A second projector that believes the log is new is refused by the checkpoint, batch by batch.
    late = house.projector()
    follower = late._follower(0)
    follower.positions.update({view.name: 0 for view in VIEWS})
    await follower.step(2_000)
    assert follower.overtaken
    assert {view.name: await digest(house.store, view.name) for view in VIEWS} == before


@pytest.mark.acceptance("G6")
async def test_a_run_is_shown_with_trigger_output_steps_and_cost(house: House) -> None:
    run_id = await record(house.store, house.vault, "acme", histories.straight(), epoch=house.epoch)
    await house.projector().catch_up()
    run = await house.reader.run("acme", run_id)
    assert run is not None
    assert (run["status"], run["output"], run["steps"], run["cost"]) == ("succeeded", {"ok": True}, 2, 0.250001)
    assert run["data"] == {"plan": "pro", "email": "[redacted]"}
    assert run["attributes"] == {"plan": "pro", "email": "[redacted]"}
    page = await house.reader.steps("acme", run_id)
    assert page is not None
    charge, mail = page.items
    assert (charge["input"], charge["output"], charge["duration_seconds"]) == ({"amount": 3}, {"receipt": "r1"}, 0.5)
    assert (charge["undo"]["status"], mail["undo"], mail["status"]) == ("none", None, "succeeded")


@pytest.mark.acceptance("G6")
async def test_failures_retries_and_compensation_are_shown_step_by_step(house: House) -> None:
    retried = await record(house.store, house.vault, "acme", histories.retried(), epoch=house.epoch)
    unwound = await record(house.store, house.vault, "acme", histories.unwound(), epoch=house.epoch)
    skipped = await record(house.store, house.vault, "acme", histories.skipped_step(), epoch=house.epoch)
    await house.projector().catch_up()
    [charge] = (await house.reader.steps("acme", retried)).items  # type: ignore[union-attr]
    assert [attempt["error"] and attempt["error"]["code"] for attempt in charge["attempts"]] == ["declined", None]
    assert charge["attempts"][0]["error"]["stack"] == ["charge.py:3 charge"]
    paid, ship = (await house.reader.steps("acme", unwound)).items  # type: ignore[union-attr]
    assert (paid["undo"]["status"], paid["undo"]["output"]) == ("done", {"refunded": True})
    assert (ship["status"], ship["error"]["message"]) == ("failed", "card declined")
    run = await house.reader.run("acme", skipped)
    assert run is not None
    assert run["left"] == ["charge"]
    by_hand = (await house.reader.steps("acme", skipped)).items[0]  # type: ignore[union-attr]
    assert (by_hand["status"], by_hand["output"]) == ("skipped", {"receipt": "by hand"})


async def test_a_long_timeline_is_paged_without_a_gap(house: House) -> None:
    run_id = await record(house.store, house.vault, "acme", histories.long(), epoch=house.epoch, at_once=5)
    await house.projector(batch=9).catch_up()
    versions: list[int] = []
    after: int | None = 0
    while after is not None:
        page = await house.reader.timeline("acme", run_id, after=after, limit=10)
        assert page is not None
        versions += [entry["version"] for entry in page.items]
        after = None if page.next is None else int(page.next)
    assert versions == list(range(1, 83))
    assert len((await house.reader.steps("acme", run_id)).items) == 40  # type: ignore[union-attr]


async def test_runs_are_found_by_status_story_workflow_and_hashed_attribute(house: House) -> None:
    runs = await _fill(house)
    await house.projector().catch_up()
    reader = house.reader
    assert {run["tenant"] for run in (await reader.runs("acme", limit=50)).items} == {"acme"}
    unwound = (await reader.runs("acme", statuses=("compensated", "failed"))).items
    assert {run["status"] for run in unwound} == {"compensated", "failed"}
    by_mail = await reader.runs("acme", attribute=("email", "ada@example.org"), limit=50)
    assert len(by_mail.items) == len(runs["acme"])
    assert (await reader.runs("acme", attribute=("email", "bob@example.org"))).items == []
    assert len((await reader.runs(None, correlation_id="story-1", limit=50)).items) == 2 * len(SHAPES)
    assert (await reader.runs("acme", workflow="nothing")).items == []
    assert (await reader.runs("acme", business_state="Active")).items[0]["business_state"] == "Active"


async def test_runs_that_share_an_attribute_are_paged_newest_first(house: House) -> None:
    runs = (await _fill(house))["acme"]
    await house.projector().catch_up()
    seen: list[str] = []
    before: str | None = None
    while True:
        page = await house.reader.runs("acme", attribute=("email", "ada@example.org"), before=before, limit=4)
        seen += [run["run_id"] for run in page.items]
        if page.next is None:
            break
        before = page.next
    assert seen == sorted(map(str, runs), reverse=True)
    filtered = await house.reader.runs("acme", attribute=("email", "ada@example.org"), statuses=("failed",), limit=50)
    assert {run["status"] for run in filtered.items} == {"failed"}


@pytest.mark.parametrize("tenant", ["acme", None])
@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ({"status": "compensation_failed"}, "status"),
        ({"correlation_id": "story-1"}, "story"),
        ({"trace_id": "0af7651916cd43dd8448eb211c80319c"}, "trace"),
        ({}, ""),
        ({"workflow": "onboarding"}, "workflow"),
        ({"business_state": "Active"}, "state"),
    ],
    ids=str,
)
def test_lists_of_the_embedded_store_ride_an_index(tenant: str | None, asked: dict[str, str], index: str) -> None:
    folder = Path(__file__).parents[2] / "projections" / "sql" / "sqlite"
    statements = load([folder], "sqlite")
    connection = sqlite3.connect(":memory:")
    for step in statements["history_create"].steps:
        connection.execute(step.sql)
    step = statements["history_list"].steps[0]
    values = bind(step, dict.fromkeys(step.parameters) | {"tenant": tenant, "limit": 25} | asked)
    plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + narrowed(step.sql, values), values)]
    if tenant is None and index in ("", "workflow", "state"):
        # Of all tenants, the newest first: read in the order of the key.
        assert plan == ["SCAN history_runs"]
    else:
        assert plan[0].startswith("SEARCH"), plan
        assert index in plan[0], plan


@pytest.mark.parametrize("tenant", ["acme", None])
def test_a_list_of_several_statuses_rides_their_index_in_the_embedded_store(tenant: str | None) -> None:
    folder = Path(__file__).parents[2] / "projections" / "sql" / "sqlite"
    statements = load([folder], "sqlite")
    connection = sqlite3.connect(":memory:")
    for step in statements["history_create"].steps:
        connection.execute(step.sql)
    step = statements["history_list_by_statuses"].steps[0]
    given = {"tenant": tenant, "statuses": "parked,failed", "limit": 25}
    values = bind(step, dict.fromkeys(step.parameters) | given)
    plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + narrowed(step.sql, values), values)]
    assert plan[0] == "SEARCH history_runs USING INDEX history_runs_of_status (status=?)", plan


@pytest.mark.parametrize("tenant", ["acme", None])
def test_erasures_are_found_without_the_rest_of_the_audit_in_the_embedded_store(tenant: str | None) -> None:
    folder = Path(__file__).parents[2] / "projections" / "sql" / "sqlite"
    statements = load([folder], "sqlite")
    connection = sqlite3.connect(":memory:")
    for step in statements["audit_create"].steps:
        connection.execute(step.sql)
    step = statements["audit_erasures"].steps[0]
    values = bind(step, dict.fromkeys(step.parameters) | {"tenant": tenant, "limit": 25})
    plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + narrowed(step.sql, values), values)]
    assert ["USING INDEX audit_entries_of_erasures" in line for line in plan] == [True], plan


TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("traceparent", "trace"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", TRACE),
        (f"cc-{TRACE}-b7ad6b7169203331-01-what.the.future.brings", TRACE),
        (f"ff-{TRACE}-b7ad6b7169203331-01", None),
        (f"00-{TRACE.upper()}-b7ad6b7169203331-01", None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
        (f"00-{TRACE}-b7ad6b7169203331", None),
        ("\x00", None),
        (None, None),
    ],
)
async def test_a_run_is_found_by_the_trace_that_began_it_and_a_header_that_is_none_is_no_trace(
    house: House, traceparent: str | None, trace: str | None
) -> None:
    told = histories.Teller().started(traceparent=traceparent).ended().events
    run_id = await record(house.store, house.vault, "acme", told, epoch=house.epoch)
    await record(house.store, house.vault, "acme", histories.straight(), epoch=house.epoch)
    await house.projector().catch_up()
    run = await house.reader.run("acme", run_id)
    assert run is not None
    assert run["trace_id"] == trace
    found = [str(run_id)] if trace else []
    assert [one["run_id"] for one in (await house.reader.runs("acme", trace_id=TRACE)).items] == found
    assert [one["run_id"] for one in (await house.reader.runs(None, trace_id=TRACE)).items] == found
    assert (await house.reader.runs("globex", trace_id=TRACE)).items == []


async def test_pages_of_runs_are_stable_while_runs_start(house: House) -> None:
    await _fill(house, ("acme",))
    projector = house.projector()
    await projector.catch_up()
    whole = [run["run_id"] for run in (await house.reader.runs("acme", limit=50)).items]
    seen: list[str] = []
    before: str | None = None
    while True:
        page = await house.reader.runs("acme", limit=3, before=before)
        seen += [run["run_id"] for run in page.items]
        await record(house.store, house.vault, "acme", histories.straight(), epoch=house.epoch)
        await projector.catch_up()
        if page.next is None:
            break
        before = page.next
    assert seen == whole


async def test_usage_and_stats_equal_a_recount_of_the_events(house: House) -> None:
    await _fill(house, ("acme",))
    await house.projector(batch=11).catch_up()
    events = [event for shape in SHAPES for event in shape()]
    [usage] = (await house.reader.usage("acme", first=date(2030, 1, 1), last=date(2030, 12, 31))).items
    topics = [event.TOPIC for event in events]
    assert usage["open_runs"] == 0
    assert sum(day["steps"] for day in usage["days"]) == topics.count("step.scheduled")
    assert sum(day["runs_started"] for day in usage["days"]) == topics.count("run.started")
    assert sum(day["undos"] for day in usage["days"]) == topics.count("undo.scheduled")
    assert {day["day"] for day in usage["days"]} == {"2030-01-31", "2030-02-01"}
    [stats] = (await house.reader.stats("acme", first=date(2030, 1, 1), last=date(2030, 12, 31))).items
    seconds = sorted((events[-1].at - events[0].at).total_seconds() for events in (shape() for shape in SHAPES))
    assert stats["ended"] == len(SHAPES)
    assert stats["average_seconds"] == pytest.approx(sum(seconds) / len(seconds))
    assert stats["longest_seconds"] == seconds[-1]
    assert seconds[5] <= stats["p50_seconds"] <= seconds[5] * 1.2
    assert stats["success_rate"] == pytest.approx(6 / len(SHAPES))


def test_a_bucket_holds_its_bound_and_not_more() -> None:
    for micros in (1, 2, 3, 1_000, 999_999, 1_000_000, 86_400_000_000):
        number = bucket(micros)
        assert upper_seconds(number) * 1_000_000 >= micros * 0.999999
        assert number == 0 or upper_seconds(number - 1) * 1_000_000 < micros
    assert percentile([], 0.5) is None


async def test_approvals_are_open_until_somebody_something_or_the_runs_end_closes_them(house: House) -> None:
    halves = histories.approved()
    await record(house.store, house.vault, "acme", halves[:2], epoch=house.epoch)
    decided = await record(house.store, house.vault, "acme", halves, epoch=house.epoch)
    closed = await record(house.store, house.vault, "acme", histories.abandoned_approval(), epoch=house.epoch)
    await house.projector(batch=2).catch_up()
    [still] = (await house.reader.approvals("acme")).items
    assert (still["name"], still["context"], still["role"]) == ("review", {"company": "x"}, "approver")
    found = (await house.reader.approvals("acme", state=None, run_id=decided)).items
    assert {item["name"]: (item["state"], item["decided_by"]) for item in found} == {
        "review": ("approved", "eve"),
        "second": ("timed_out", None),
    }
    assert [item["state"] for item in (await house.reader.approvals("acme", state=None, run_id=closed)).items] == [
        "closed"
    ]


async def test_no_personal_value_is_in_any_row(house: House) -> None:
    await _fill(house, ("acme",))
    await house.projector().catch_up()
    for statement, params in (
        (
            "history_list",
            {
                "statuses": None,
                "status": None,
                "workflow": None,
                "correlation_id": None,
                "trace_id": None,
                "business_state": None,
                "before": None,
            },
        ),
        ("audit_chain", {"after": 0}),
        (
            "approvals_list",
            {"state": None, "run_id": None, "before_run": None, "before_name": None, "before_visit": None},
        ),
    ):
        rows = await house.store.fetch(statement, tenant="acme", limit=1_000, **params)
        assert rows
        assert b"ada@example.org" not in repr(rows).encode()
    for run in (await house.reader.runs("acme", limit=50)).items:
        blocks = await house.store.fetch(
            "history_timeline", tenant="acme", run_id=run["run_id"], from_block=0, limit=10
        )
        assert all(b"ada@example.org" not in bytes(block["entries"]) for block in blocks)
