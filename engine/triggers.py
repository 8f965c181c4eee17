"""Which plans a process knows, and which of them an event or a webhook starts. Made once per process; claims are
filtered by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from contracts.calls import ActionSpec
from contracts.problems import NotFound
from engine.guards.permissions import PLATFORM
from engine.plan import Plan
from engine.plan.code import Saga
from engine.plan.replay import CodePlan


class Plans:
    """Every (name, version) this process can run. New runs start on the highest version; open runs stay on theirs."""

    def __init__(self, sagas: Iterable[Saga], actions: Mapping[str, ActionSpec]) -> None:
        self.actions = actions
        self._plans: dict[tuple[str, int], CodePlan] = {}
        self._sagas: dict[str, Saga] = {}
        for saga in sagas:
            if (saga.name, saga.version) in self._plans:
                raise ValueError(f"two sagas are called {saga.name!r} version {saga.version}; give one another version")
            self._plans[saga.name, saga.version] = CodePlan(saga, actions)
            current = self._sagas.get(saga.name)
            if current is None or current.version < saga.version:
                self._sagas[saga.name] = saga
        self._by_event: dict[str, tuple[Plan, ...]] = {}
        for saga in self._sagas.values():
            for event in saga.on:
                self._by_event[event] = (*self._by_event.get(event, ()), self._plans[saga.name, saga.version])
        self.platforms = frozenset(name for name, saga in self._sagas.items() if saga.permission in PLATFORM)
        """Workflows that only the platform starts by hand: what it does to a tenant, the tenant's own pause does not
        hold.
        """
        self._outcomes = {outcome: spec for spec in actions.values() for outcome in spec.outcomes}
        self._by_hook = {saga.hook: saga for saga in self._sagas.values() if saga.hook is not None}

    @property
    def known(self) -> list[tuple[str, int]]:
        return list(self._plans)

    @property
    def names(self) -> list[str]:
        return sorted(self._sagas)

    def get(self, name: str, version: int) -> Plan | None:
        return self._plans.get((name, version))

    def apart(self, name: str, version: int) -> Plan | None:
        """The same plan without a memory of live runs: for asking it about the past."""
        found = self._plans.get((name, version))
        return None if found is None else CodePlan(found.definition, self.actions)

    def latest(self, name: str) -> Plan:
        """The version new runs start on. Raises `NotFound`."""
        return self._plans[name, self.saga(name).version]

    def saga(self, name: str) -> Saga:
        """The latest declaration. Raises `NotFound` naming the workflows that exist."""
        found = self._sagas.get(name)
        if found is None:
            raise NotFound(
                f"there is no workflow {name!r}; known are {', '.join(self.names) or 'none'}", field="workflow"
            )
        return found

    def started_by(self, event_type: str) -> tuple[Plan, ...]:
        return self._by_event.get(event_type, ())

    def outcome(self, event_type: str) -> ActionSpec | None:
        """The command that declares this event type as one of its outcomes."""
        return self._outcomes.get(event_type)

    def hook(self, path: str) -> Saga | None:
        """The saga that a webhook path such as `/signup` starts."""
        return self._by_hook.get(path)
