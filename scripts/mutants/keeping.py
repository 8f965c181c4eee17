"""Mutants of pauses, maintenance, erasure and takeovers; part of the catalog."""

from __future__ import annotations

from typing import Final

from scripts.mutants.run import Mutant

_DEAD: Final = "tests/conformance/coordinator/test_declared_dead.py"
_OWNERS: Final = "tests/conformance/coordinator/test_owners.py"
_PLANS: Final = "tests/conformance/test_store_plans.py"
_PAUSES: Final = "tests/conformance/coordinator/test_pauses.py"
_STOPPING: Final = "tests/stories/test_pauses.py"

_SUBJECTS: Final = "tests/stories/test_subjects.py"

KEEPING: Final = (
    Mutant(
        name="waiting-runs-blamed",
        law="A run that only waits is not parked because its owners died",
        path="consumers/janitor.py",
        old='        return due or performed or bool(wakes["inputs"])\n',
        new="        return True\n",
        test=_OWNERS,
        select="only_waits and sqlite",
    ),
    Mutant(
        name="dead-and-alive-leaves-inputs",
        law="What a process had in hand when it was declared dead it takes again under its next epoch",
        path="consumers/inputs.py",
        old="isinstance(result, NotOurs | Fenced)",
        new="isinstance(result, NotOurs)",
        test=_DEAD,
        select="had_in_hand and sqlite",
    ),
    Mutant(
        name="dead-and-alive-leaves-runs",
        law="A run that its process took over from itself has a reason to wake",
        path="engine/coordinator.py",
        old="                known.taken_meanwhile = known.busy\n",
        new="                pass\n",
        test=_DEAD,
        select="being_appended and sqlite",
    ),
    Mutant(
        name="leases-kept-from-owners",
        law="What was claimed of a run is free for whoever has taken it over",
        path="engine/store/sql/sqlite/work.sql",
        old="UPDATE inputs SET available_at = :now, owner = NULL\nWHERE owner = :epoch AND run_id IN (\n",
        new="UPDATE inputs SET owner = NULL\nWHERE owner = :epoch AND run_id IN (\n",
        test=_DEAD,
        select="an_input and sqlite",
    ),
    Mutant(
        name="held-runs-in-the-way",
        law="Who cannot be let in keeps nobody waiting",
        path="consumers/admission.py",
        old="            self._passed |= held\n",
        new="            held.clear()\n",
        test="tests/conformance/coordinator/test_slots.py",
        select="however_many and sqlite",
    ),
    Mutant(
        name="plans-of-an-empty-table",
        law="What a call of the store reads does not depend on the statistics",
        path="engine/store/sql/postgres/functions/append.sql",
        old="WHERE t.run_id = ANY (ARRAY[u.run]) AND t.key = u.key",
        new="WHERE t.run_id = u.run AND t.key = u.key",
        test=_PLANS,
        select="empty",
    ),
    Mutant(
        name="slots-counted-for-each",
        law="A batch counts the slots of a tenant once",
        path="engine/store/sql/postgres/functions/append.sql",
        old="used_by_tenant AS MATERIALIZED (",
        new="used_by_tenant AS (",
        test=_PLANS,
        select="batch and empty",
    ),
    Mutant(
        name="plans-of-a-small-table",
        law="The engine looks rows up by key, however cheap reading them all looks",
        path="engine/store/postgres_sessions.py",
        old='READ_SETTINGS if role == "web" else LOOKUP_SETTINGS',
        new='READ_SETTINGS if role == "web" else SERVER_SETTINGS',
        test=_PLANS,
        select="nothing",
    ),
    Mutant(
        name="sends-to-the-vanished",
        law="Who has vanished can be declared dead",
        path="engine/store/postgres_sessions.py",
        old='    "tcp_user_timeout": "10s",\n',
        new="",
        test="tests/conformance/test_store_lost.py",
        select="vanishes",
        needs=("postgres",),
    ),
    Mutant(
        name="declares-itself-dead",
        law="Whoever looks for the silent lives",
        path="consumers/janitor.py",
        old="but=self._door.epoch",
        new="but=None",
        test=_DEAD,
        select="itself_dead and sqlite",
    ),
    Mutant(
        name="refused-for-a-while-taken-for-good",
        law="An order that was refused for a while is closed before its run ends",
        path="engine/run/outcomes.py",
        old="ambiguous=lost.ambiguous or (final and again and run.may_still_happen(step)),\n",
        new="ambiguous=lost.ambiguous,\n",
        test="tests/pure/run/test_going_back.py",
        select="refused_for_a_while",
    ),
    Mutant(
        name="erased-keys-kept",
        law="An erasure drops the data subject's keys",
        path="consumers/subjects.py",
        old="        keys = await self._door.vault.erase_scope(tenant, scope)\n",
        new="        keys = 1\n",
        test=_SUBJECTS,
        select="forgotten_for_good and embedded",
    ),
    Mutant(
        name="erased-found-by-attribute",
        law="Nothing finds a run by an erased person",
        path="projections/history.py",
        old="for event in erased]),\n",
        new="for event in erased[:0]]),\n",
        test=_SUBJECTS,
        select="found_by and embedded",
    ),
    Mutant(
        name="paused-runs-go-on",
        law="A paused tenant's run begins no new step",
        path="engine/coordinator.py",
        old="hold=hot.hold or paused)",
        new="hold=hot.hold)",
        test=_PAUSES,
        select="next_step and sqlite",
    ),
    Mutant(
        name="paused-runs-admitted",
        law="Who is paused is not offered a slot",
        path="engine/coordinator.py",
        old="                if isinstance(given, Admitted):\n",
        new="                if False:\n",
        test=_PAUSES,
        select="offered_by_another and sqlite",
    ),
    Mutant(
        name="deliveries-taken-under-maintenance",
        law="Under maintenance nothing is taken",
        path="consumers/resting.py",
        old="                await self._rest()\n                await self._drain()\n",
        new="                self._taking = False\n",
        test=_STOPPING,
        select="under_maintenance and embedded",
    ),
    Mutant(
        name="open-run-archived",
        law="Only ended runs leave the log",
        path="engine/store/sql/sqlite/archive.sql",
        old="    AND NOT EXISTS (SELECT 1 FROM open_runs o WHERE o.run_id = originator_id);\n",
        new=";\n",
        test="tests/conformance/test_store_sqlite.py",
        select="archived_run_is_read_as_before",
    ),
    Mutant(
        name="archive-not-read",
        law="A rebuild reads archived runs as it reads the log",
        path="engine/store/sql/sqlite/log.sql",
        old="originator_id, kind, originator_version, topic, state, recorded_at FROM archive\n",
        new="originator_id, kind, originator_version, topic, state, recorded_at FROM archive WHERE false\n",
        test="tests/projections/test_archiving.py",
        select="built_again_alike and sqlite",
    ),
)
