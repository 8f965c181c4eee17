"""The mutants: each a law, the smallest change that breaks it, and the test that must notice. A test keeps them
current with the code."""

from __future__ import annotations

from typing import Final

from scripts.mutants.inbound import INBOUND
from scripts.mutants.keeping import KEEPING
from scripts.mutants.outbound import OUTBOUND
from scripts.mutants.people import PEOPLE
from scripts.mutants.run import Mutant
from scripts.mutants.runs import DOOR, RUNS
from scripts.mutants.sign_in import SIGN_IN
from scripts.mutants.tenants import TENANTS

_LAWS: Final = "tests/pure/test_run_laws.py"
_PURE: Final = "tests/pure/test_pure_below_the_door.py"

HEART: Final = (
    Mutant(
        name="undo-oldest-first",
        law="Undo goes from the newest completion to the oldest",
        path="engine/run/unwind.py",
        old='key=lambda step: (step.status != "succeeded", step.completed)',
        new='key=lambda step: (step.status != "succeeded", -step.completed)',
        test=f"{_LAWS}::test_undo_goes_from_the_newest_completion_to_the_oldest",
    ),
    Mutant(
        name="undo-all-at-once",
        law="One undo at a time",
        path="engine/run/unwind.py",
        old="            run.attempt_undo(following, 1)\n        elif run.may_ask(following):\n"
        "            run.doubt(following, following.error or {}, retryable=False)\n        else:\n"
        "            _ask_whether_it_happened(run, following)\n        return\n",
        new="            while following is not None:\n                run.attempt_undo(following, 1)\n"
        "                following = next_undo(run.state)\n"
        '    if any(step.undo_status == "open" for step in _steps(run.state)):\n        return\n',
        test=f"{_LAWS}::test_one_undo_at_a_time",
    ),
    Mutant(
        name="undo-without-receipt",
        law="Undo gets the receipt of do",
        path="engine/run/draft.py",
        old='receipt = step.output if step.status == "succeeded" else None',
        new="receipt = None",
        test=f"{_LAWS}::test_undo_gets_the_receipt_of_do",
    ),
    Mutant(
        name="undo-shares-the-key",
        law="An undo has a key of its own",
        path="engine/run/draft.py",
        old='key=step.key + "/undo"',
        new="key=step.key",
        test=f"{_LAWS}::test_undo_gets_the_receipt_of_do",
    ),
    Mutant(
        name="ambiguous-undone-last",
        law="Ambiguous steps are undone first",
        path="engine/run/unwind.py",
        old='(step.status != "succeeded", step.completed)',
        new='(step.status == "succeeded", step.completed)',
        test=f"{_LAWS}::test_an_ambiguous_step_is_undone_first_and_without_a_receipt",
    ),
    Mutant(
        name="terminal-stays-open",
        law="A finished stream takes no event",
        path="engine/run/decide.py",
        old="    if state.ended is not None:\n"
        '        return Decision((), state, f"the run has ended ({state.ended})")\n',
        new="",
        test=f"{_LAWS}::test_a_finished_run_takes_nothing_and_says_why",
    ),
    Mutant(
        name="second-answer-counts",
        law="A step is answered once",
        path="engine/run/outcomes.py",
        old='    if step.status not in ("open", "backoff", "parked"):\n'
        '        return f"step {given.step!r} is {step.status} already"\n',
        new="",
        test=f"{_LAWS}::test_a_second_answer_to_the_same_step_changes_nothing",
    ),
    Mutant(
        name="retries-without-end",
        law="Retries are bounded",
        path="engine/run/outcomes.py",
        old="    final = retry_at is None\n    run.emit(\n        ev.StepFailed(",
        new="    retry_at = retry_at or run.at\n    final = retry_at is None\n    run.emit(\n        ev.StepFailed(",
        test=f"{_LAWS}::test_retries_are_bounded_and_then_the_run_is_unwound",
    ),
    Mutant(
        name="park-unwinds",
        law="A parked run undoes nothing",
        path="engine/run/outcomes.py",
        old='    elif step.on_failure == "park" and not lost.irrecoverable:\n',
        new="    elif False:\n",
        test=f"{_LAWS}::test_a_parked_run_undoes_nothing_until_it_is_abandoned",
    ),
    Mutant(
        name="heart-looks-at-the-clock",
        law="No clock below the door",
        path="engine/run/draft.py",
        old="        self.at: datetime = given.at\n",
        new="        self.at: datetime = datetime.now(given.at.tzinfo)\n",
        test=_PURE,
    ),
    Mutant(
        name="heart-imports-the-store",
        law="The heart imports contracts and pure libraries only",
        path="engine/run/draft.py",
        old="from engine.run.state import Incident, RunState, Step\n",
        new="from engine.run.state import Incident, RunState, Step\nfrom engine.store import Commit as Commit\n",
        test=_PURE,
    ),
)

_SQLITE: Final = "tests/conformance/test_store_sqlite.py"
_APPEND: Final = "engine/store/sqlite_append.py"

STORE: Final = (
    Mutant(
        name="no-inbox-dedup",
        law="An arrival is accepted once",
        path=_APPEND,
        old="        if known is not None:\n            if known[0] == row[5]:",
        new="        if False:\n            if known[0] == row[5]:",
        test=_SQLITE,
        select="test_an_arrival_is_kept_once",
    ),
    Mutant(
        name="another-body-is-a-duplicate",
        law="The same id with another body is a mismatch",
        path=_APPEND,
        old="            if known[0] == row[5]:",
        new="            if True:",
        test=_SQLITE,
        select="test_an_arrival_is_kept_once",
    ),
    Mutant(
        name="start-keys-forgotten",
        law="A start key is taken for ever",
        path=_APPEND,
        old="            found.setdefault(row[0], (DUPLICATE, 0, UUID(known[0])))",
        new="            pass",
        test=_SQLITE,
        select="test_a_start_key_is_taken_for_ever",
    ),
    Mutant(
        name="lease-without-epoch",
        law="A process declared dead can append nothing",
        path=_APPEND,
        old='        if cursor.execute(self._sql["living"], (epoch,)).fetchone() is None:\n            codes',
        new="        if False:\n            codes",
        test=_SQLITE,
        select="test_a_silent_process_is_declared_dead",
    ),
    Mutant(
        name="anybody-decides",
        law="Only a run's owner decides it",
        path=_APPEND,
        old="        if owner is not None and owner != context.epoch:",
        new="        if False:",
        test=_SQLITE,
        select="test_only_a_runs_owner_decides_it",
    ),
    Mutant(
        name="version-not-checked",
        law="A lost race is answered, not written",
        path=_APPEND,
        old="            stale[ordinal] = version or 0",
        new="            pass",
        test=_SQLITE,
        select="test_another_version_is_stale",
    ),
    Mutant(
        name="early-facts-missed",
        law="A fact may come before the wait it belongs to",
        path=_APPEND,
        old="        if known is not None:\n            wait = (row[2], row[3], row[4])",
        new="        if False:\n            wait = (row[2], row[3], row[4])",
        test=_SQLITE,
        select="test_a_wait_finds_the_fact_that_came_early",
    ),
    Mutant(
        name="caps-not-counted",
        law="Slots are rows: a cap bounds their holders",
        path=_APPEND,
        old="            over.append((ordinal, LIMITED_WORKFLOW, workflow_cap))",
        new="            pass",
        test=_SQLITE,
        select="test_a_workflow_cap_bounds_the_holders_of_slots",
    ),
    Mutant(
        name="open-runs-not-refused",
        law="A race passes no quota of starts",
        path=_APPEND,
        old="                over.append((ordinal, OVER_OPEN, most_open))",
        new="                pass",
        test=_SQLITE,
        select="test_no_race_of_two_hundred_passes_a_quota",
    ),
    Mutant(
        name="runs-of-the-day-not-refused",
        law="A day has as many runs as its quota says",
        path=_APPEND,
        old="                over.append((ordinal, OVER_DAILY, most_daily))",
        new="                pass",
        test=_SQLITE,
        select="test_a_day_has_its_runs_and_the_next_has_as_many",
    ),
    Mutant(
        name="starts-not-counted",
        law="A start is counted by the append that opens its run",
        path=_APPEND,
        old='    ("oo", "count_start", ("epoch", "now")),\n',
        new="",
        test=_SQLITE,
        select="test_a_day_has_its_runs_and_the_next_has_as_many",
    ),
    Mutant(
        name="ended-runs-stay-open",
        law="An end makes room under the quota of open runs",
        path=_APPEND,
        old='            opened = cursor.execute(sql["count_open_runs"], (tenant,)).fetchone()[0]\n',
        new="            opened = opened or 0\n",
        test=_SQLITE,
        select="test_open_runs_are_bounded_whatever_they_do_and_an_end_makes_room",
    ),
    Mutant(
        name="breach-said-again",
        law="A full quota is said once per window, after a restart too",
        path="engine/tenant_log.py",
        old="commit = replace(commit, input_keys=(once,))",
        new="pass",
        test="tests/stories/test_quotas.py",
        select="test_a_full_quota_is_said_once and embedded",
    ),
    Mutant(
        name="breach-said-when-loaded",
        law="A quota that a saga has got round is said when it is met, and not again when the run is loaded",
        path="engine/plan/driver.py",
        old="        self.breaches.clear()\n",
        new="",
        test="tests/pure/run/test_limits.py",
        select="test_a_quota_that_a_saga_has_got_round",
    ),
    Mutant(
        name="steps-not-bounded",
        law="A run asks for no more operations than its quota says",
        path="engine/plan/replay.py",
        old="if fresh and most is not None and len(driver.asked) > most:",
        new="if False:",
        test="tests/pure/run/test_limits.py",
        select="test_one_operation_more_than_the_quota",
    ),
    Mutant(
        name="payload-not-bounded",
        law="No run starts with more than the quota says",
        path="engine/guards/quotas.py",
        old="    if size > most:",
        new="    if False:",
        test="tests/pure/run/test_limits.py",
        select="test_a_payload_may_be_as_large_as_the_quota",
    ),
    Mutant(
        name="checkpoint-moves-anyhow",
        law="Rows and checkpoint move together, from the position that was read",
        path="engine/store/sql/sqlite/views.sql",
        old=" WHERE checkpoints.position = :expected",
        new="",
        test=_SQLITE,
        select="test_rows_and_checkpoint_move_together",
    ),
    Mutant(
        name="redriven-twice",
        law="A second redrive does nothing",
        path="engine/store/sql/sqlite/journal.sql",
        old=" WHERE id = :id AND state = 'dead' RETURNING id",
        new=" WHERE id = :id RETURNING id",
        test=_SQLITE,
        select="test_a_second_redrive_is_refused",
    ),
    Mutant(
        name="no-lane-lock",
        law="Positions become visible in their order",
        path="engine/store/sql/postgres/functions/append.sql",
        old="    v_done := pg_advisory_xact_lock(1970169719, p_lane)::text;\n",
        new="",
        test="tests/conformance/test_store_order.py",
        needs=("postgres",),
    ),
    Mutant(
        name="declared-dead-in-mid-append",
        law="A process declared dead can append nothing",
        path="engine/store/sql/postgres/functions/append.sql",
        old="    v_done := pg_advisory_xact_lock_shared(1970169720, p_epoch::integer)::text;\n",
        new="",
        test="tests/conformance/test_store_order.py",
        select="test_whoever_declares_a_process_dead",
        needs=("postgres",),
    ),
    Mutant(
        name="older-text-put-back",
        law="An older program leaves a newer one's functions alone",
        path="engine/store/migrate.py",
        old="if (each.name, each.checksum) not in had]",
        new="if (each.name, each.checksum) not in list(had)[-1:]]",
        test="tests/pure/test_migrations.py",
        select="test_a_changed_text_is_applied_anew",
    ),
)

_FAULTS: Final = "tests/faults/test_first_faults.py"
_TAKEOVER: Final = "tests/faults/test_takeover.py"

HOUSE: Final = (
    Mutant(
        name="acknowledged-before-commit",
        law="Acknowledge after commit",
        path="consumers/intake.py",
        old="        now = self._clock.now()\n        body = delivery.body if not _is_binary(delivery)",
        new="        self._ack(delivery)\n        now = self._clock.now()\n"
        "        body = delivery.body if not _is_binary(delivery)",
        test=_FAULTS,
        select="test_killed_before_the_append and embedded-1",
    ),
    Mutant(
        name="outbox-outside-the-commit",
        law="What must be sent is recorded with what happened",
        path="engine/recording.py",
        old='{"outbox": tuple(self.outbox), "inputs"',
        new='{"outbox": (), "inputs"',
        test=_FAULTS,
        select="test_killed_before_the_publish and embedded",
    ),
    Mutant(
        name="another-command-at-each-send",
        law="A retry is the same command",
        path="engine/recording.py",
        old="    return str(uuid5(COMMAND_IDS, key))",
        new="    return str(uuid5(COMMAND_IDS, key + str(id(object()))))",
        test=f"{_LAWS}::test_a_command_is_known_by_its_key",
    ),
    Mutant(
        name="parked-and-forgotten",
        law="A parked step can be tried again",
        path="engine/run/react.py",
        old='        if step.status != "backoff" and not _will_park(event, step, state):',
        new='        if step.status != "backoff":',
        test=f"{_LAWS}::test_a_parked_command_is_still_awaited_so_that_its_retry_can_be_answered",
    ),
)

FAULTS: Final = (
    Mutant(
        name="message-deleted-before-it-is-sent",
        law="What must be sent is kept until the bus has taken it",
        path="consumers/relay.py",
        old="        answers = await self._transport.publish(messages, deadline_seconds=self._deadline)\n",
        new="        await self._store.settle_outbox([row.id for row in kept])\n"
        "        answers = await self._transport.publish(messages, deadline_seconds=self._deadline)\n",
        test=_FAULTS,
        select="test_killed_before_the_publish and embedded",
    ),
    Mutant(
        name="new-key-at-each-attempt",
        law="Perform with a key that every attempt shares",
        path="engine/attempts.py",
        old='key=step.key + "/undo" if attempt.undo else step.key,',
        new='key=step.key + "/undo" if attempt.undo else f"{step.key}/{id(attempt)}",',
        test=_FAULTS,
        select="test_killed_during_an_effect and embedded",
    ),
    Mutant(
        name="takeover-performs-nothing",
        law="What a dead owner had begun is attempted again",
        path="engine/loading.py",
        old="        self._perform_again(hot)\n",
        new="",
        test=_FAULTS,
        select="test_killed_during_an_effect and embedded",
    ),
    Mutant(
        name="undo-forgotten-at-takeover",
        law="An undo that was begun is finished by whoever takes over",
        path="engine/loading.py",
        old='            if step.undo_status == "open" and step.undo is not None:\n',
        new="            if False:\n",
        test=_FAULTS,
        select="test_killed_during_a_compensation and embedded-1",
    ),
    Mutant(
        name="functions-known-only-when-asked",
        law="Any process that loads the saga finds the functions in its log",
        path="engine/plan/code.py",
        old="    found = getattr(sys.modules.get(module), function, None)\n",
        new="    found = None\n",
        test="tests/pure/plan/test_code_sagas.py::"
        "test_a_function_in_the_log_is_found_before_this_process_was_asked_for_it",
    ),
    Mutant(
        name="nobody-is-called-dead",
        law="A silent process's runs are taken over within the lease",
        path="consumers/janitor.py",
        old="        return now >= self._judges_from\n",
        new="        return False\n",
        test=_FAULTS,
        select="test_killed_during_an_effect and embedded",
    ),
    Mutant(
        name="stop-without-drain",
        law="SIGTERM lets what is under way end",
        path="consumers/assembly.py",
        old="            await self._drain()\n",
        new="            pass\n",
        test=_TAKEOVER,
        select="test_sigterm_lets and embedded",
    ),
    Mutant(
        name="runs-not-handed-over",
        law="A process that goes gives its runs back",
        path="consumers/assembly.py",
        old="                await self.store.retire(self.epoch)\n",
        new="                pass\n",
        test=_TAKEOVER,
        select="test_what_does_not_end and embedded",
    ),
    Mutant(
        name="dead-append-on-postgres",
        law="A process declared dead can append nothing",
        path="engine/store/sql/postgres/functions/append.sql",
        old="WHERE p.epoch = p_epoch AND NOT p.dead",
        new="WHERE p.epoch = p_epoch",
        test="tests/conformance/test_store_postgres.py",
        select="test_a_silent_process_is_declared_dead",
        needs=("postgres",),
    ),
)

GUARDS: Final = (
    Mutant(
        name="marks-not-masked",
        law="What is marked personal is never shown",
        path="engine/guards/redaction.py",
        old="        return _walk_marks(document, (self._marks,)) if self._marks else document",
        new="        return document",
        test="tests/pure/test_redaction.py",
    ),
    Mutant(
        name="personal-attributes-shown",
        law="A run attribute that repeats a personal value is hashed, not shown",
        path="engine/run/forward.py",
        old="if value in personal)",
        new="if False)",
        test=f"{_LAWS}::test_an_attribute_that_repeats_a_personal_value_is_marked_too",
    ),
    Mutant(
        name="body-fits-anywhere",
        law="A sealed body opens only where it was written",
        path="engine/store/mapper.py",
        old="        aad = keys.aad_prefix + stream.bytes"
        ' + stored.version.to_bytes(8, "big") + stored.topic.encode()\n',
        new="        aad = keys.aad_prefix\n",
        test="tests/pure/test_mapper.py",
    ),
    Mutant(
        name="any-secret-will-do",
        law="A token is proven by its digest",
        path="engine/guards/permissions.py",
        old="        or not same\n",
        new="",
        test="tests/pure/test_tokens_and_signatures.py",
    ),
    Mutant(
        name="tenant-filter-dropped",
        law="Tenant first: nobody sees another's runs",
        path="projections/sql/sqlite/history.sql",
        old="SELECT * FROM history_runs\nWHERE (:tenant IS NULL OR tenant = :tenant)\n    AND (:before",
        new="SELECT * FROM history_runs\nWHERE (:tenant IS NULL OR tenant <> '')\n    AND (:before",
        test="tests/web/test_access.py",
        needs=("postgres",),
    ),
)

MUTANTS: Final[tuple[Mutant, ...]] = (
    *HEART,
    *RUNS,
    *DOOR,
    *STORE,
    *HOUSE,
    *FAULTS,
    *GUARDS,
    *KEEPING,
    *TENANTS,
    *OUTBOUND,
    *INBOUND,
    *PEOPLE,
    *SIGN_IN,
)
