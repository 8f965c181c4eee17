"""What is done about a commit that was not appended: somebody was faster, no slot is free, it was made before, it can
never be stored, or this process is no longer the run's owner. `engine.coordinator` calls it when it settles a commit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from engine.answers import Done, Ignored, Refused
from engine.committer import Prepared
from engine.guards.quotas import exceeded
from engine.hot_runs import Hot, HotRuns
from engine.metrics import Metrics
from engine.run.inputs import Admitted, Begin, Input, PlanStuck
from engine.store import Commit, Duplicate, Fenced, Limited


class Setbacks:
    """One method per outcome. `record` puts a commit without a run into the next batch."""

    def __init__(self, runs: HotRuns, record: Callable[[Commit, Done | None], None], metrics: Metrics) -> None:
        self._runs = runs
        self._record = record
        self._metrics = metrics

    def stale(self, hot: Hot, prepared: Prepared) -> None:
        """The log holds more than we knew: it is loaded again."""
        self._again(hot, prepared, reload=True)

    def limited(self, hot: Hot, prepared: Prepared, limited: Limited, *, refuse: bool) -> None:
        """No slot is free, or a budget is spent. A start is recorded as queued, or refused where the tenant's quotas
        say so; a woken run, and one that goes over its budget, records what has happened and queues; an admission waits
        for the next time. A start over another quota is refused.
        """
        assert hot.plan is not None
        assert hot.state is not None
        given = prepared.answered[0][0]
        if isinstance(given, Begin):
            if limited.quota in ("open_runs", "daily_runs") or refuse:
                problem = exceeded(limited, hot.plan.name)
                self.refused(hot, prepared, Refused(problem.detail, problem))
                return
            prepared.answered[0] = (replace(given, queued=True), prepared.answered[0][1])
        elif hot.state.queued:
            for given, done in prepared.answered:
                if isinstance(given, Admitted) and done is not None:
                    done(Ignored("no slot is free yet"))
            # What came together with the admission has happened all the same.
            prepared.answered = [one for one in prepared.answered if not isinstance(one[0], Admitted)]
        else:
            hot.hold = True
        self._again(hot, prepared, reload=False)

    def duplicate(self, hot: Hot, prepared: Prepared, outcome: Duplicate) -> None:
        """A start that was made before answers with the original run. Of several inputs only one may be the duplicate:
        decide them one by one.
        """
        assert hot.plan is not None
        assert hot.state is not None
        if len(prepared.answered) > 1:
            hot.one_by_one = True
            self._again(hot, prepared, reload=False)
            return
        self._metrics.duplicates.of("input" if hot.start is None else "start").inc()
        hot.plan.forget(hot.state)
        given, done = prepared.answered[0]
        hot.brought.pop(given.dedup, None)
        if hot.start is not None:
            self._runs.forget(hot)
        if given.settles:
            self._record(
                Commit(tenant=hot.tenant, stream=None, settled=given.settles),
                None if done is None else lambda _: done(outcome),
            )
        elif done is not None:
            done(outcome)
        if hot.start is None:
            if hot.mailbox:
                self._runs.make_ready(hot)
            else:
                self._runs.rest(hot)

    def refused(self, hot: Hot, prepared: Prepared, refused: Refused) -> None:
        """What follows from these inputs can never be recorded. They are settled, and an operator sees why."""
        assert hot.plan is not None
        assert hot.state is not None
        hot.plan.forget(hot.state)
        if hot.brought and self._brought(hot, prepared, refused):
            return
        given = [one for one, _ in prepared.answered]
        begun = hot.start is None
        if not begun or any(isinstance(one, PlanStuck) for one in given):
            # It never began; or not even its incident can be stored, and the janitor shows it stuck.
            self._runs.forget(hot)
        else:
            settles = tuple(row for one in given for row in one.settles)
            detail = f"what follows cannot be recorded: {refused.reason}"
            hot.mailbox.appendleft((PlanStuck(at=given[-1].at, settles=settles, reason="refused", detail=detail), None))
            self._runs.make_ready(hot)
        for _, done in prepared.answered:
            if done is not None:
                done(refused)

    def _brought(self, hot: Hot, prepared: Prepared, refused: Refused) -> bool:
        """Which cannot be stored, the message that an input came in or what follows from it, shows when the message is
        kept by itself. Whoever handed it in does so; the rest is decided again. False when there was no such message.
        """
        kept = [one for one in prepared.answered if one[0].dedup not in hot.brought]
        if len(kept) == len(prepared.answered):
            return False
        hot.mailbox.extendleft(reversed(kept))
        for given, done in prepared.answered:
            if hot.brought.pop(given.dedup, None) is not None and done is not None:
                done(refused)
        if hot.mailbox:
            self._runs.make_ready(hot)
        else:
            self._runs.rest(hot)
        return True

    def lost(self, hot: Hot, answered: Sequence[tuple[Input, Done | None]]) -> None:
        """The run belongs to another process now."""
        hot.ready = False
        self._runs.lost(hot)
        waiting, hot.mailbox = list(hot.mailbox), deque()
        for _, done in (*answered, *waiting):
            if done is not None:
                done(Fenced())

    def _again(self, hot: Hot, prepared: Prepared, *, reload: bool) -> None:
        """Back to the mailbox, in order, to be decided on what is true now."""
        assert hot.plan is not None
        assert hot.state is not None
        hot.plan.forget(hot.state)
        hot.mailbox.extendleft(reversed(prepared.answered))
        if reload:
            hot.state = None
        self._runs.make_ready(hot)
