"""What a world plays: sagas, the modules that carry out their commands, the events that set them going, and what must
be true when all has come to rest. The engine's own is in `workload`; a user's comes through the pytest plug-in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol
from uuid import UUID

from contracts import run_events as ev
from contracts.calls import ActionSpec
from contracts.manifest import EventModel, Module
from contracts.notices import UNWIND
from contracts.registry import Registry
from contracts.run_events import RunEvent
from contracts.sdk import Service
from contracts.sdk.database import Database
from contracts.sdk.transport import Topology, Transport
from engine.bus.topology import engine_topology
from engine.plan.code import Saga
from scripts.simulation.bus import SimBus, SimTransport, Straight
from scripts.simulation.chance import Chance
from scripts.simulation.database import Nowhere

MakeService = Callable[[Transport, Database], Service]
"""A module as its developer runs it, on the bus and the database that it is given."""

Runs = Mapping[tuple[str, UUID], Sequence[RunEvent]]
"""(tenant, run) -> its history."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An event that its module sends at some moment: at least once, sometimes twice, late, or overtaken.

    `correlation` is the envelope's correlation id; empty: one of its own.
    """

    fact: EventModel
    tenant: str = "acme"
    correlation: str = ""


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that has come to its end. `data` is what its event brought, `output` what the saga returned."""

    tenant: str
    run_id: UUID
    workflow: str
    status: str
    data: Any
    output: Any
    history: Sequence[RunEvent]


class Ended(Protocol):
    """A world at rest, as a check sees it."""

    @property
    def seed(self) -> int: ...

    @property
    def runs(self) -> Sequence[EndedRun]: ...

    def rows(self, module: str, sql: str, *values: Any) -> list[dict[str, Any]]:
        """What the module's database holds; `$1`, `$2`, ... stand for the values."""


@dataclass(frozen=True)
class Play:
    """`events` is asked once per world and draws its variety from the world's chance, from nothing else. `begin` is
    called before each world, for what is kept outside of the databases. `check` raises AssertionError for what must not
    be at the end; `laws` answers with sentences, and sees the histories.
    """

    sagas: Sequence[Saga]
    services: Sequence[MakeService]
    events: Callable[[Chance], Iterable[Sent]]
    begin: Callable[[], object] = lambda: None
    check: Callable[[Ended], object] | None = None
    laws: Callable[[Runs, Ended], Sequence[str]] | None = None

    @cached_property
    def modules(self) -> tuple[Module, ...]:
        """Of the services, in their order."""
        return tuple(make(SimTransport(SimBus(), Straight()), Nowhere()).module for make in self.services)

    @cached_property
    def registry(self) -> Registry:
        return Registry((*self.modules, UNWIND))

    @cached_property
    def actions(self) -> Mapping[str, ActionSpec]:
        return self.registry.action_specs()

    @cached_property
    def topology(self) -> Topology:
        """What the engine declares."""
        return engine_topology(self.registry)

    @cached_property
    def makers(self) -> Mapping[str, MakeService]:
        return {module.name: make for module, make in zip(self.modules, self.services, strict=True)}

    @cached_property
    def started_by(self) -> Mapping[str, Sequence[str]]:
        """Event type -> the workflows whose newest version it starts."""
        newest: dict[str, Saga] = {}
        for saga in self.sagas:
            if saga.name not in newest or newest[saga.name].version < saga.version:
                newest[saga.name] = saga
        found: dict[str, list[str]] = {}
        for saga in newest.values():
            for kind in saga.on:
                found.setdefault(kind, []).append(saga.name)
        return found

    def module_of(self, fact: EventModel) -> Module:
        """Who says it. Raises LookupError for an event of no module that plays."""
        for module in self.modules:
            if any(event.model is type(fact) for event in module.all_events):
                return module
        known = ", ".join(module.name for module in self.modules) or "none"
        raise LookupError(
            f"{type(fact).__name__} is an event of none of the modules that play ({known}); add the service whose "
            "manifest declares it"
        )


def ended_runs(runs: Runs) -> list[EndedRun]:
    found = []
    for (tenant, run), log in runs.items():
        first, last = log[0], log[-1]
        if isinstance(first, ev.RunStarted) and isinstance(last, ev.RunEnded):
            found.append(EndedRun(tenant, run, first.workflow, last.status, first.data, last.output, log))
    return found
