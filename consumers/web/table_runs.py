"""Routes of what happens: events, workflows, runs and what is done to them, approvals, dead letters."""

from __future__ import annotations

from typing import Final

from consumers.web import acting, asked, backfilling, bulks, runs, showing, told, told_platform
from consumers.web.routes import Route

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="POST", path="/v1/events", handler=acting.publish_event, tag="events", permission="events.publish",
        summary="Publish an event: a whole envelope, or a type and its data",
        body=asked.PublishEvent, answer=told.Published, status=202, key=True,
    ),
    Route(
        method="GET", path="/v1/workflows", handler=showing.list_workflows, tag="workflows",
        permission="workflows.read", summary="Workflows that this engine can run",
        query=asked.Query, answer=told_platform.Workflows,
    ),
    Route(
        method="POST", path="/v1/workflows/{workflow}/runs", handler=acting.start_run, tag="runs",
        permission="runs.start", summary="Start a run; the same Idempotency-Key answers with the original run",
        body=asked.StartRun, query=asked.Query, answer=told.RunBegun, status=202, key=True,
    ),
    Route(
        method="POST", path="/v1/workflows/{workflow}/backfill", handler=backfilling.backfill, tag="runs",
        permission="runs.start", summary="Start a workflow on past events of the journal, a page at a time",
        body=asked.Backfill, query=asked.Query, answer=told.Backfilled,
    ),
    Route(
        method="POST", path="/v1/bulks", handler=bulks.begin_bulk, tag="runs", permission="runs.read",
        summary="Record that one word is about to be told to many; needs the word's own permission, too",
        body=asked.BeginBulk, query=asked.Query, answer=told.BulkRecorded, status=201,
    ),
    Route(
        method="POST", path="/v1/bulks/{bulk_id}/addressed", handler=bulks.address_bulk, tag="runs",
        permission="runs.read", summary="Record which runs, or dead letters, of the tenant a bulk tells next",
        body=asked.AddressBulk, query=asked.Query, answer=told.BulkRecorded,
    ),
    Route(
        method="POST", path="/v1/bulks/{bulk_id}/ended", handler=bulks.end_bulk, tag="runs", permission="runs.read",
        summary="Record what a bulk did, and whether it was stopped part-way",
        body=asked.EndBulk, query=asked.Query, answer=told.BulkRecorded,
    ),
    Route(
        method="POST", path="/v1/commands", handler=acting.order_command, tag="runs", permission="runs.start",
        summary="Order one command of a module, recorded and audited as a run of one step",
        body=asked.OrderCommand, query=asked.Query, answer=told.RunBegun, status=202, key=True,
    ),
    Route(
        method="GET", path="/v1/events/{event_id}/explain", handler=runs.explain_event, tag="events",
        permission="runs.read", summary="What an event started, woke or answered, and why it did not",
        query=asked.EventQuery, answer=told.EventExplanation,
    ),
    Route(
        method="GET", path="/v1/runs", handler=runs.list_runs, tag="runs", permission="runs.read",
        summary="Runs, newest first", query=asked.RunsQuery, answer=told.Runs, view="history",
    ),
    Route(
        method="GET", path="/v1/runs/{run_id}", handler=runs.get_run, tag="runs", permission="runs.read",
        summary="One run with its data, output and error",
        query=asked.Reading, answer=told.RunDetail, view="history",
    ),
    Route(
        method="GET", path="/v1/runs/{run_id}/timeline", handler=runs.get_timeline, tag="runs", permission="runs.read",
        summary="Everything that happened to a run, in order",
        query=asked.TimelineQuery, answer=told.Timeline, view="history",
    ),
    Route(
        method="GET", path="/v1/runs/{run_id}/steps", handler=runs.get_steps, tag="runs", permission="runs.read",
        summary="The steps of a run: input, output, error, attempts, duration, cost, undo",
        query=asked.Reading, answer=told.Steps, view="history",
    ),
    Route(
        method="GET", path="/v1/runs/{run_id}/explain", handler=runs.explain_run, tag="runs", permission="runs.read",
        summary="Why a run is not moving, and what will move it", query=asked.Query, answer=told.Explanation,
    ),
    Route(
        method="GET", path="/v1/runs/{run_id}/replay", handler=runs.replay_run, tag="runs", permission="runs.read",
        summary="Decide a run again from its events, without any effect, and name the first difference",
        query=asked.Query, answer=told.Replay,
    ),
    Route(
        method="POST", path="/v1/runs/{run_id}/cancel", handler=acting.cancel_run, tag="runs", permission="runs.cancel",
        summary="Stop a run and undo what it did", body=asked.Reason, query=asked.Query, answer=told.Accepted,
        status=202,
    ),
    Route(
        method="POST", path="/v1/runs/{run_id}/terminate", handler=acting.terminate_run, tag="runs",
        permission="runs.terminate",
        summary="Close a run and its open children at once, undo nothing, list what is left", body=asked.Reason,
        query=asked.Query, answer=told.Accepted, status=202,
    ),
    Route(
        method="POST", path="/v1/runs/{run_id}/retry", handler=acting.retry_run, tag="runs", permission="runs.retry",
        summary="Try what is parked again",
        body=asked.RetryRun, query=asked.Query, answer=told.Accepted, status=202,
    ),
    Route(
        method="POST", path="/v1/runs/{run_id}/rerun", handler=acting.rerun_run, tag="runs", permission="runs.rerun",
        summary="Run an ended run once more, as a run of its own that does not repeat effects that stand",
        body=asked.RerunRun, query=asked.Query, answer=told.Follower, status=202,
    ),
    Route(
        method="POST", path="/v1/runs/{run_id}/undo", handler=acting.undo_run, tag="runs", permission="runs.rerun",
        summary="Undo what an ended run did, as a run of its own with the receipts of that one",
        body=asked.Reason, query=asked.Query, answer=told.Follower, status=202,
    ),
    Route(
        method="POST", path="/v1/runs/{run_id}/skip", handler=acting.skip_step, tag="runs", permission="runs.skip",
        summary="Go on as if a parked step had answered this output",
        body=asked.SkipStep, query=asked.Query, answer=told.Accepted, status=202,
    ),
    Route(
        method="POST", path="/v1/runs/{run_id}/abandon", handler=acting.abandon_run, tag="runs",
        permission="runs.abandon", summary="Give a parked run up and undo what it did",
        body=asked.Reason, query=asked.Query, answer=told.Accepted, status=202,
    ),
    Route(
        method="GET", path="/v1/effects", handler=runs.list_effects, tag="runs", permission="runs.read",
        summary="The ledger of effects: key, what is known of it, cost; page by page of the list of runs",
        query=asked.EffectsQuery, answer=told.Effects, view="history",
    ),
    Route(
        method="GET", path="/v1/approvals", handler=showing.list_approvals, tag="approvals",
        permission="approvals.read", summary="Approvals, open ones unless asked otherwise",
        query=asked.ApprovalsQuery, answer=told.Approvals, view="approvals",
    ),
    Route(
        method="POST", path="/v1/runs/{run_id}/approvals/{name}", handler=acting.decide_approval, tag="approvals",
        permission="approvals.decide", summary="Approve or reject",
        body=asked.Decide, query=asked.Query, answer=told.Accepted, status=202,
    ),
    Route(
        method="GET", path="/v1/causation/{correlation_id}", handler=runs.get_story, tag="runs", permission="runs.read",
        summary="The causal tree of one correlation id", query=asked.Reading, answer=told.Story, view="history",
    ),
    Route(
        method="GET", path="/v1/dead-letters", handler=showing.list_dead_letters, tag="dead letters",
        permission="deadletters.read", summary="Messages that nobody could use",
        query=asked.DeadLettersQuery, answer=told.DeadLetters,
    ),
    Route(
        method="GET", path="/v1/dead-letters/{letter_id}", handler=showing.get_dead_letter, tag="dead letters",
        permission="deadletters.read", summary="One dead letter with its message, redacted",
        query=asked.Query, answer=told.DeadLetterDetail,
    ),
    Route(
        method="POST", path="/v1/dead-letters/{letter_id}/redrive", handler=showing.redrive_dead_letter,
        tag="dead letters", permission="deadletters.redrive", summary="Send it again, byte for byte; once only",
        body=asked.Reason, query=asked.Query, answer=told.Settled,
    ),
    Route(
        method="POST", path="/v1/dead-letters/{letter_id}/discard", handler=showing.discard_dead_letter,
        tag="dead letters", permission="deadletters.discard", summary="Give it up",
        body=asked.Reason, query=asked.Query, answer=told.Settled,
    ),
)  # fmt: skip
