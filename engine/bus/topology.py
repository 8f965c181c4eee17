"""The engine's queues and what is bound to them, as data, derived from the manifests of the installed modules.

    unwind.events ──┬─ every declared fact and notice ───▶ unwind.intake.v1    may start runs
                    ├─ every outcome of a command ───────▶ unwind.replies.v1   moves runs that wait for it
                    └─ nothing bound ──▶ unwind.unrouted ▶ unwind.unrouted.v1  buried with its reason
    unwind.commands ──── nothing bound ──▶ unwind.unrouted
    unwind.dead ─────────────────────────────────────────▶ unwind.dead.v1      what a consumer refused

Facts and replies wait in queues of their own because a fact that cannot start yet must never stand before the reply
that would free its place. A queue's arguments are part of its name: other arguments are the next version, never a
change. Declared by every engine process; declaring twice is fine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from contracts.manifest import Module
from contracts.registry import Registry
from contracts.sdk import topology as shared
from contracts.sdk.transport import DEAD_EXCHANGE, EVENTS_EXCHANGE, UNROUTED_EXCHANGE, Binding, Queue, Topology

DELIVERY_LIMIT: Final = 20
"""Deliveries of one message before the broker gives it up: far above what a crashing process causes among the
neighbours of a poison message."""


@dataclass(frozen=True, slots=True)
class Queues:
    """The engine's queues by purpose."""

    intake: str = "unwind.intake.v1"
    replies: str = "unwind.replies.v1"
    unrouted: str = "unwind.unrouted.v1"
    dead: str = "unwind.dead.v1"

    @property
    def taken(self) -> tuple[tuple[str, bool], ...]:
        """Each queue that intake takes from, and whether its messages may have to wait until runs have ended."""
        return (self.intake, True), (self.replies, False), (self.unrouted, False)


queues: Final = Queues()


def engine_topology(registry: Registry) -> Topology:
    """Everything the engine declares. Type by type rather than by `#`: a type nobody declared is to be seen as
    unrouted."""
    outcomes = {
        module.type_of(outcome)
        for module in registry.modules.values()
        for command in module.commands
        for outcome in command.outcomes
    }
    return Topology(
        exchanges=shared.EXCHANGES,
        queues=(
            # The dead letters of the engine's own collecting queues would only go round in a circle.
            Queue(name=queues.dead, delivery_limit=1_000_000),
            Queue(name=queues.unrouted, dead_letter_exchange=DEAD_EXCHANGE, delivery_limit=DELIVERY_LIMIT),
            Queue(name=queues.intake, dead_letter_exchange=DEAD_EXCHANGE, delivery_limit=DELIVERY_LIMIT),
            Queue(name=queues.replies, dead_letter_exchange=DEAD_EXCHANGE, delivery_limit=DELIVERY_LIMIT),
        ),
        bindings=(
            Binding(queue=queues.dead, exchange=DEAD_EXCHANGE, key="#"),
            Binding(queue=queues.unrouted, exchange=UNROUTED_EXCHANGE, key="#"),
            *(
                Binding(queue=queues.replies if kind in outcomes else queues.intake, exchange=EVENTS_EXCHANGE, key=kind)
                for kind in sorted(registry.events)
            ),
        ),
    )


def module_topology(module: Module) -> Topology:
    """What a module that obeys every command and answers every query of its manifest declares, for tools that prepare
    a broker ahead of it."""
    return shared.module_topology(
        module.name,
        commands=sorted(module.type_of(command.model) for command in module.commands),
        queries=sorted(module.type_of(query.model) for query in module.queries),
        listens_to=(),
    )
