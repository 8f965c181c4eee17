"""A saga under virtual time: the test kit for whoever writes one. It drives decide, evolve and react in memory with
scripted outcomes, a clock turned by hand, facts, approvals and an operator's verbs; no bus, no database, no loop.

    sim = Simulation(onboard, {"email": "ann@example.org"}, actions={
        "identity.create_user": {"user_id": "u-1"},
        "billing.create_customer": fails("card_declined"),
    })
    assert sim.status == "compensated"
    assert sim.ledger_neutral

A script says what an action answers: a value; a function of the `ActionCall`; `fails(...)` or any `ActionFailed`;
`NEVER`; `later(seconds, script)`; `in_turn(first, second, ...)`. A module-level function used as a step needs none: it
is called. Undos that no script names succeed. Who is asked what became of an attempt of unknown fate says that it did
not happen, unless `fates` names the action: with its receipt, or with `NEVER`. `engine.rehearsal` fails every step in
turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final, Protocol
from uuid import UUID

from contracts.calls import ActionCall, ActionSpec
from contracts.run_events import RunEvent
from engine.explain import Explanation, explain_run
from engine.plan.code import Saga
from engine.plan.replay import CodePlan
from engine.run import inputs as given_
from engine.run import react as fx
from engine.run.decide import decide
from engine.run.evolve import fold
from engine.run.inputs import Input
from engine.run.state import RunState
from engine.scripted import NEVER, Effect, ScriptedActions, SimulationMistake, fails, in_turn, later

__all__ = [
    "NEVER",
    "Effect",
    "Fact",
    "Refused",
    "Simulation",
    "SimulationMistake",
    "fails",
    "in_turn",
    "later",
]

RUN_ID: Final = UUID("01920000-0000-7000-8000-000000000001")
START: Final = datetime(2030, 1, 1, tzinfo=UTC)
MAX_INPUTS: Final = 100_000
"""A simulation that takes more inputs than this in one go never comes to rest."""


class Refused(Exception):
    """The run ignored what an operator or approver asked; the text is the reason the engine records."""


class HasActions(Protocol):
    """A `contracts.registry.Registry`, whose installed modules bring commands."""

    def action_specs(self) -> Mapping[str, ActionSpec]: ...


@dataclass(frozen=True, slots=True)
class Fact:
    """An event of a module, as a wait sees it."""

    at: datetime
    event: str
    key: tuple[str, str]
    data: Any
    id: str


@dataclass(slots=True)
class _Due:
    at: datetime
    order: int
    given: Callable[[datetime], Input]


class _AnyAction(Mapping[str, ActionSpec]):
    """Without a registry every dotted name is a command that declares nothing."""

    def __init__(self) -> None:
        self._made: dict[str, ActionSpec] = {}

    def __getitem__(self, name: str) -> ActionSpec:
        if ":" in name:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = ActionSpec(name=name, kind="command", command=name)
        return self._made[name]

    def __iter__(self) -> Any:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


class Simulation:
    """One run. It begins at once and stands wherever it waits for time, a fact, or a person; every verb takes it as
    far as it goes without time passing.
    """

    def __init__(
        self,
        saga: Saga,
        data: Any = None,
        *,
        actions: Mapping[Any, Any] | None = None,
        steps: Mapping[str, Any] | None = None,
        registry: Mapping[str, ActionSpec] | HasActions | None = None,
        tenant: str = "acme",
        start: datetime = START,
        marks: Sequence[str] = (),
        cancel_during: str | None = None,
        fates: Mapping[str, Any] | None = None,
    ) -> None:
        """`actions` scripts by action (name or function), `steps` by step name, which goes first. `registry` is what
        is installed; by default every name is a command without declared undo. `marks` are pointers to personal data.
        `fates` are receipts by action, for whoever is asked what became of it (None: it did not happen).
        `cancel_during` names a step: an operator cancels the run as soon as its first attempt is under way.
        """
        specs: Mapping[str, ActionSpec]
        if registry is None:
            specs = _AnyAction()
        else:
            specs = registry if isinstance(registry, Mapping) else registry.action_specs()
        self.plan = CodePlan(saga, specs)
        self.now = start
        self.events: list[RunEvent] = []
        self._state = RunState(RUN_ID, tenant)
        self._actions = ScriptedActions(self.plan, actions or {}, steps or {}, fates or {})
        self.notices: list[fx.Notify] = []
        """What the engine would publish about the run."""
        self.ignored: list[str] = []
        """Why inputs changed nothing: late answers, timers of what is over."""
        self._facts: list[Fact] = []
        self._due: dict[str, _Due] = {}
        self._subscribed: dict[tuple[str, int], fx.Subscribe] = {}
        self._queue: list[Input] = []
        self._order = count()
        self._cancel_during = cancel_during
        begin = given_.Begin(
            at=start,
            run_id=RUN_ID,
            tenant=tenant,
            trigger={"kind": "manual", "id": "simulation", "type": None, "source": "/simulation"},
            data=data,
            initiator="simulation",
            correlation_id="simulation",
            marks=(*saga.personal, *marks) if isinstance(data, Mapping) else tuple(marks),
        )
        self._hear(begin)

    # ------------------------------------------------------------------------------------------------- what there is

    @property
    def state(self) -> RunState:
        return self._state

    @property
    def status(self) -> str:
        return self._state.status

    @property
    def output(self) -> Any:
        """What the saga returned."""
        return self._state.end_output

    @property
    def business_state(self) -> str | None:
        return self._state.business_state

    @property
    def left(self) -> tuple[str, ...]:
        """Steps (`name/visit`) that the ending named as not undone."""
        return tuple(getattr(self.events[-1], "left", ()))

    @property
    def ledger(self) -> dict[str, Effect]:
        """Effects by idempotency key."""
        return self._actions.ledger

    @property
    def ledger_neutral(self) -> bool:
        """No effect that has an undo stands."""
        return not [effect for effect in self.ledger.values() if effect.undo is not None and effect.stands]

    @property
    def calls(self) -> list[ActionCall]:
        """Every attempt made, of steps and of undos."""
        return self._actions.calls

    def count(self, kind: type[RunEvent]) -> int:
        """How many events of this class the run has."""
        return sum(isinstance(event, kind) for event in self.events)

    def explain(self) -> Explanation:
        """Why the run stands where it stands, and what will move it."""
        wakes: dict[str, list[dict[str, Any]]] = {
            "timers": [{"key": key, "due": due.at} for key, due in self._due.items()],
            "subscriptions": [{"name": one.name, "type": one.event} for one in self._subscribed.values()],
        }
        return explain_run(self._state, wakes, self.now)

    # ------------------------------------------------------------------------------------------------------- time

    def forward(self, **delta: float) -> datetime:
        """Lets time pass (`days=2`, `minutes=5`); whatever comes due on the way happens at its own time, in order."""
        until = self.now + timedelta(**delta)
        if until < self.now:
            raise SimulationMistake("time goes forward only")
        self._pass_time(until)
        self.now = until
        return until

    def run_until_idle(self) -> datetime:
        """Lets time pass until nothing is due any more: timeouts fire too, if nobody prevents them."""
        self._pass_time(None)
        return self.now

    def _pass_time(self, until: datetime | None) -> None:
        for _ in range(MAX_INPUTS):
            key, due = self._next_due()
            if due is None or (until is not None and due.at > until):
                return
            self.now = max(self.now, due.at)
            self._due.pop(key, None)
            self._hear(due.given(self.now))
        raise SimulationMistake(f"the run did not come to rest within {MAX_INPUTS} timers")

    def _next_due(self) -> tuple[str, _Due | None]:
        state = self._state
        if not state.is_open:
            return "", None
        found: dict[str, _Due] = dict(self._due)
        if state.due is not None:
            found["run/deadline"] = _Due(state.due, -1, _timer("run/deadline"))
        return min(found.items(), key=lambda item: (item[1].at, item[1].order), default=("", None))

    # -------------------------------------------------------------------------------------- what comes from outside

    def fact(self, event: str, *, key: tuple[str, str], data: Any = None, id: str | None = None) -> None:
        """A module says something; an open wait takes it, a later one may find it."""
        number = len(self._facts) + 1
        fact = Fact(self.now, event, (key[0], str(key[1])), {} if data is None else data, id or f"fact-{number}")
        self._facts.append(fact)
        for subscription in list(self._subscribed.values()):
            self._match(subscription, fact)
        self._work()

    def approve(self, name: str, *, by: str = "approver", comment: str = "") -> None:
        self._ask(given_.Decided(at=self.now, name=name, approved=True, by=by, comment=comment))

    def refuse(self, name: str, *, by: str = "approver", comment: str = "") -> None:
        self._ask(given_.Decided(at=self.now, name=name, approved=False, by=by, comment=comment))

    def retry(self, step: str | None = None, *, by: str = "operator") -> None:
        self._ask(given_.RetryAsked(at=self.now, by=by, step=step))

    def skip(self, step: str, output: Any, *, by: str = "operator", reason: str = "") -> None:
        self._ask(given_.SkipAsked(at=self.now, by=by, step=step, output=output, reason=reason))

    def abandon(self, *, by: str = "operator", reason: str = "") -> None:
        self._ask(given_.AbandonAsked(at=self.now, by=by, reason=reason))

    def cancel(self, *, by: str = "operator", reason: str = "") -> None:
        self._ask(given_.CancelAsked(at=self.now, by=by, reason=reason))

    def terminate(self, *, by: str = "operator", reason: str = "") -> None:
        self._ask(given_.TerminateAsked(at=self.now, by=by, reason=reason))

    def script(self, action: Any, script: Any) -> None:
        """Changes what an action answers from now on: the module has been repaired, or broken."""
        self._actions.script(action, script)

    def restart(self) -> None:
        """As if the process had died here: the state is folded from the log, the coroutine replayed, and open local
        attempts are made again under their keys.
        """
        self.plan.forget(self._state)
        self._state = fold(RunState(RUN_ID, self._state.tenant), self.events)
        for step in list((self._state.steps or {}).values()):
            if step.status == "open" and (step.kind == "local" or step.doubt):
                self._do(fx.Perform(step.name, step.visit, step.attempt, ask=bool(step.doubt)))
            undo = self.plan.action(step.undo or "")
            if step.undo_status == "open" and (undo.kind if undo is not None else step.kind) == "local":
                self._attempt(fx.Perform(step.name, step.visit, step.undo_attempt, undo=True))
        self._work()

    # ------------------------------------------------------------------------------------------------------ the door

    def _ask(self, given: Input) -> None:
        before = len(self.events)
        self._hear(given)
        if len(self.events) == before:
            raise Refused(self.ignored[-1])

    def _hear(self, given: Input) -> None:
        self._queue.append(given)
        self._work()

    def _work(self) -> None:
        for _ in range(MAX_INPUTS):
            if not self._queue:
                return
            decision = decide(self._state, self._queue.pop(0), self.plan)
            if decision.ignored is not None:
                self.ignored.append(decision.ignored)
                continue
            self._state = decision.state
            self.events.extend(decision.events)
            for event in decision.events:
                for effect in fx.react(event, self._state):
                    self._do(effect)
        raise SimulationMistake(f"the run did not come to rest within {MAX_INPUTS} inputs")

    def _do(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Perform(ask=True):
                if self._state.ended is None:
                    self._queue.append(self._actions.find(self._state, effect, self.now))
            case fx.Perform() | fx.Send():
                if self._state.ended is None:
                    self._attempt(effect)
            case fx.SetTimer(key, due):
                self._due[key] = _Due(due, next(self._order), _timer(key))
            case fx.ClearTimer(key):
                self._due.pop(key, None)
            case fx.Subscribe():
                self._subscribed[effect.name, effect.visit] = effect
                for fact in self._facts:
                    self._match(effect, fact)
            case fx.Unsubscribe(name, visit):
                self._subscribed.pop((name, visit), None)
            case fx.Notify():
                self.notices.append(effect)
            case fx.Settled():
                pass

    def _match(self, wait: fx.Subscribe, fact: Fact) -> None:
        if (wait.event, (wait.key_name, wait.key_value)) == (fact.event, fact.key) and fact.at >= wait.look_back:
            self._queue.append(
                given_.FactMatched(at=self.now, name=wait.name, visit=wait.visit, event_id=fact.id, data=fact.data)
            )

    def _attempt(self, attempt: fx.Perform | fx.Send) -> None:
        if attempt.step == self._cancel_during and not attempt.undo:
            self._cancel_during = None
            self._queue.append(given_.CancelAsked(at=self.now, by="operator", reason=f"during {attempt.step}"))
        outcome = self._actions.attempt(self._state, attempt)
        if outcome.given is not None:
            self._answer(outcome.seconds, outcome.given)

    def _answer(self, seconds: float, given: Callable[[datetime], Input]) -> None:
        if seconds <= 0:
            self._queue.append(given(self.now))
            return
        order = next(self._order)
        self._due[f"answer/{order}"] = _Due(self.now + timedelta(seconds=seconds), order, given)


def _timer(key: str) -> Callable[[datetime], Input]:
    return lambda at: given_.TimerDue(at=at, key=key)
