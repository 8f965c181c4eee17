"""The runs this process has in memory: which of them are in decision, which have input waiting, and which leave when
there are too many.

Nothing here decides or reads: `engine.loading` brings cold runs in, `engine.coordinator` decides on what lies in their
mailboxes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from engine.answers import Done
from engine.plan import Plan
from engine.run.inputs import Input
from engine.run.state import RunState
from engine.store import Arrival, Await, Commit, Start
from engine.store.keys import Erased, SubjectKeys, TenantKeys

HOT_RUNS: Final = 10_000
WAITING_RUNS: Final = 500
"""Of runs that only wait, for a fact, a person, a time or a slot, far fewer: there are very many of them, and loading
one again takes milliseconds.
"""
STANDING: Final = frozenset({"waiting", "parked", "queued"})


@dataclass(slots=True)
class Hot:
    """One run in memory. `busy`: being loaded, or a commit of it is under way. `performing` counts local attempts
    under way. `bare`: begun here, and none of its commits so far has brought what would have to be cleared away at its
    end.
    """

    tenant: str
    run_id: UUID
    state: RunState | None = None
    plan: Plan | None = None
    keys: TenantKeys | None = None
    subject: SubjectKeys | Erased | None = None
    mailbox: deque[tuple[Input, Done | None]] = field(default_factory=deque)
    busy: bool = False
    ready: bool = False
    one_by_one: bool = False
    hold: bool = False
    performing: int = 0
    bare: bool = False
    claimed: bool = False
    taken_meanwhile: bool = False
    """This process took the run over while it was busy with it, under an epoch that had been declared dead."""
    start: Start | None = None
    arrival: Arrival | None = None
    brought: dict[str | None, Arrival] = field(default_factory=dict)
    """Of inputs in the mailbox that came straight from the bus, by their `dedup`: the message that the commit which
    answers one is to keep.
    """
    asked: dict[str, Await] = field(default_factory=dict)
    """By the command's id: whose answer it waits for, of what it has asked since it came into memory."""


class HotRuns:
    """`by_id` has every run in memory, least recently used first; `active` those in decision (being loaded, decided,
    appended or performed), `active_of` how many they are of each tenant; `ready` those whose mailbox is to be decided;
    `asking` those that wait for the answer to a command, by tenant and command.
    """

    def __init__(
        self,
        limit: int,
        *,
        waiting: int = WAITING_RUNS,
        on_ready: Callable[[], None],
        on_idle: Callable[[], None],
    ) -> None:
        """Keeps at most `limit` runs, of them `waiting` that only wait. `on_ready` hears that a run has become ready,
        `on_idle` that none is in decision any more.
        """
        self.limit = limit
        self._waiting_limit = waiting
        self._waiting: OrderedDict[UUID, Hot] = OrderedDict()
        self.by_id: OrderedDict[UUID, Hot] = OrderedDict()
        self.active: set[UUID] = set()
        self.active_of: dict[str, int] = {}
        self._weight: Callable[[str], int] | None = None
        """How much a tenant weighs where room is short; None: as much as any other."""
        self._weights: int | None = None
        self.ready: deque[Hot] = deque()
        self.asking: dict[tuple[str, str], Hot] = {}
        self.on_room: Callable[[], None] = lambda: None
        self._on_ready = on_ready
        self._on_idle = on_idle

    def make_ready(self, hot: Hot) -> None:
        if hot.run_id not in self.active:
            self.active.add(hot.run_id)
            had = self.active_of.get(hot.tenant, 0)
            self.active_of[hot.tenant] = had + 1
            if not had:
                self._weights = None
        self._waiting.pop(hot.run_id, None)
        if hot.busy or hot.ready:
            return
        hot.ready = True
        self.ready.append(hot)
        self._on_ready()

    def lost(self, hot: Hot) -> None:
        """What is known of the run is void. Had it been taken over meanwhile, it is loaded again: whoever took it over
        found it in memory and left it alone.
        """
        self.forget(hot)
        if hot.taken_meanwhile:
            again = self.by_id[hot.run_id] = Hot(hot.tenant, hot.run_id)
            self.make_ready(again)

    def appended(self, hot: Hot, commit: Commit) -> None:
        """What the run has asked, and what was answered, by this commit."""
        for command in commit.awaits_dropped:
            if hot.asked.pop(command, None) is not None:
                del self.asking[hot.tenant, command]
        for new in commit.awaits:
            hot.asked[new.command_id] = new
            self.asking[hot.tenant, new.command_id] = hot

    def rest(self, hot: Hot) -> None:
        """The run has nothing to do here for now; the least recently used ones leave memory."""
        if hot.busy or hot.ready or hot.mailbox or hot.performing:
            return
        self._leaves_decision(hot)
        if hot.run_id in self.by_id:
            self.by_id.move_to_end(hot.run_id)
            if hot.state is not None and hot.state.status in STANDING:
                self._waiting[hot.run_id] = hot
                if len(self._waiting) > self._waiting_limit:
                    self.forget(next(iter(self._waiting.values())))
            while len(self.by_id) > self.limit:
                run_id, oldest = next(iter(self.by_id.items()))
                if run_id in self.active:
                    break
                self.forget(oldest)
        self.on_room()
        if not self.active:
            self._on_idle()

    def has_room(self, tenant: str, limit: int) -> bool:
        """Whether a run of this tenant may begin where `limit` shall be in decision: as long as fewer are, and beyond
        that for a tenant that has less than its share of them, by its weight.
        """
        if len(self.active) < limit:
            return True
        held = self.active_of.get(tenant, 0)
        if self._weight is None:
            return held < max(1, limit // (len(self.active_of) + 1))
        if self._weights is None:
            self._weights = sum(map(self._weight, self.active_of))
        own = self._weight(tenant)
        return held < max(1, limit * own // (self._weights + own))

    def weigh(self, weight: Callable[[str], int] | None) -> None:
        """From now on tenants weigh so much."""
        self._weight, self._weights = weight, None

    def _leaves_decision(self, hot: Hot) -> None:
        if hot.run_id in self.active:
            self.active.remove(hot.run_id)
            left = self.active_of[hot.tenant] - 1
            if left:
                self.active_of[hot.tenant] = left
            else:
                del self.active_of[hot.tenant]
                self._weights = None

    def forget(self, hot: Hot) -> None:
        self.by_id.pop(hot.run_id, None)
        self._waiting.pop(hot.run_id, None)
        self._leaves_decision(hot)
        for command in hot.asked:
            self.asking.pop((hot.tenant, command), None)
        hot.asked.clear()
        if hot.plan is not None and hot.state is not None:
            hot.plan.forget(hot.state)
        self.on_room()
        if not self.active:
            self._on_idle()
