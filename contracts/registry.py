"""The closed set of everything the installed modules declare: looks types up, checks payloads, and lists commands as
actions. Made once per process.

It is not a place to register at run time: a process knows the modules it was given, its own notices among them, and
refuses the rest by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any, Final, NamedTuple

from contracts.calls import ActionSpec
from contracts.envelope import Envelope
from contracts.manifest import (
    AnswerModel,
    Command,
    CommandModel,
    Event,
    EventModel,
    Module,
    Query,
    QueryModel,
    action_name,
    version_of,
)
from contracts.pointers import Segments, resolve, segments
from contracts.problems import ContractUnknown, EnvelopeInvalid, ManifestInvalid
from contracts.shapes import Shape, kind_at
from contracts.values import value

ENTRY_POINTS: Final = "unwind.modules"


class Checked(NamedTuple):
    """A payload that fits its model. `marks` are pointers from the payload's root; `keys` its correlation keys by
    name, absent ones left out.
    """

    payload: dict[str, Any]
    marks: tuple[str, ...]
    keys: dict[str, str]
    subject: str | None


@value()
class EventEntry:
    """A declared event, ready to be checked."""

    type: str
    module: Module
    event: Event
    shape: Shape[EventModel]
    key_places: tuple[tuple[str, Segments], ...]
    subject_place: Segments | None


@value()
class CommandEntry:
    """A declared command, ready to be checked. `action` is its name in sagas, without a version."""

    type: str
    module: Module
    command: Command
    shape: Shape[CommandModel]
    action: str
    version: int


@value()
class QueryEntry:
    """A declared query and its answer, ready to be checked."""

    type: str
    module: Module
    query: Query
    shape: Shape[QueryModel]
    answer: Shape[AnswerModel]


class Registry:
    """Raises `ManifestInvalid` when two modules share a name or a declaration points at a field that its model does
    not have.
    """

    def __init__(self, modules: Iterable[Module]) -> None:
        self.modules: Mapping[str, Module] = _by_name(modules)
        self.events: dict[str, EventEntry] = {}
        self.commands: dict[str, CommandEntry] = {}
        self.queries: dict[str, QueryEntry] = {}
        for module in self.modules.values():
            for event in module.all_events:
                self.events[module.type_of(event.model)] = _event_entry(module, event)
            for command in module.commands:
                kind = module.type_of(command.model)
                self.commands[kind] = CommandEntry(
                    kind,
                    module,
                    command,
                    Shape(kind, command.model),
                    action_name(module.name, command.model),
                    version_of(command.model),
                )
            for query in module.queries:
                kind = module.type_of(query.model)
                answer = Shape(module.type_of(query.answer), query.answer)
                self.queries[kind] = QueryEntry(kind, module, query, Shape(kind, query.model), answer)

    def event(self, kind: str) -> EventEntry:
        """Raises `ContractUnknown`."""
        try:
            return self.events[kind]
        except KeyError:
            raise self._unknown("event", kind, self.events) from None

    def command(self, kind: str) -> CommandEntry:
        """Raises `ContractUnknown`."""
        try:
            return self.commands[kind]
        except KeyError:
            raise self._unknown("command", kind, self.commands) from None

    def query(self, kind: str) -> QueryEntry:
        """Raises `ContractUnknown`."""
        try:
            return self.queries[kind]
        except KeyError:
            raise self._unknown("query", kind, self.queries) from None

    def check_event(self, envelope: Envelope) -> Checked:
        """The envelope's payload, marks, correlation keys and data subject.

        Raises `ContractUnknown`, `PayloadInvalid` naming the field, and `EnvelopeInvalid` when another module than the
        declaring one is the source.
        """
        entry = self.event(envelope.type)
        if envelope.source != entry.module.source:
            raise EnvelopeInvalid("source", f"must be {entry.module.source}, the one publisher of {envelope.type}")
        return self.check_event_data(entry, envelope.data)

    def check_event_data(self, entry: EventEntry, data: Mapping[str, Any]) -> Checked:
        """The same for a payload whose envelope does not exist yet (an HTTP body, an operator's skip). Raises
        `PayloadInvalid`.
        """
        payload = entry.shape.check(data)
        keys: dict[str, str] = {}
        for name, place in entry.key_places:
            value = _identity(payload, place)
            if value is not None:
                keys[name] = value
        subject = None if entry.subject_place is None else _identity(payload, entry.subject_place)
        return Checked(payload, entry.shape.marks(payload), keys, subject)

    def check_command(self, kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """The command's JSON-native payload. Raises `ContractUnknown` and `PayloadInvalid`."""
        return self.command(kind).shape.check(data)

    def action_specs(self) -> dict[str, ActionSpec]:
        """Every command as an action, under `identity.create_user@1` and, for the highest version, under
        `identity.create_user` too.
        """
        specs: dict[str, ActionSpec] = {}
        highest: dict[str, CommandEntry] = {}
        for entry in self.commands.values():
            versioned = f"{entry.action}@{entry.version}"
            specs[versioned] = self._spec(versioned, entry)
            if entry.action not in highest or highest[entry.action].version < entry.version:
                highest[entry.action] = entry
        for action, entry in highest.items():
            specs[action] = self._spec(action, entry)
        return specs

    def _spec(self, name: str, entry: CommandEntry) -> ActionSpec:
        command, module = entry.command, entry.module
        undo = None if command.undo is None else self.commands[f"{module.name}.{command.undo}"]
        return ActionSpec(
            name=name,
            kind="command",
            command=entry.type,
            undo=None if undo is None else f"{undo.action}@{undo.version}",
            timeout_seconds=command.timeout_seconds,
            retry=command.retry,
            ambiguous=command.ambiguous,
            coverage=command.coverage,
            check=entry.shape.read,
            input_marks=entry.shape.patterns,
            output_marks=self.events[module.type_of(command.success)].shape.patterns,
            outcomes=tuple(module.type_of(outcome) for outcome in command.outcomes),
            success=module.type_of(command.success),
            cost=command.cost,
            irrecoverable=tuple(module.type_of(outcome) for outcome in command.irrecoverable),
            permission=command.permission,
            query=None if command.query is None else f"{module.name}.{command.query}",
        )

    def _unknown(self, word: str, kind: str, known: Mapping[str, object]) -> ContractUnknown:
        module, _, name = kind.partition(".")
        if module not in self.modules:
            remedy = f"module {module} is not installed; known are {', '.join(self.modules) or 'none'}"
        else:
            base = name.rpartition("V")[0]
            others = [other for other in known if other.startswith(f"{module}.{base}V")]
            remedy = f"known versions are {', '.join(others)}" if others else f"module {module} declares no such {word}"
        return ContractUnknown(f"{kind}: {remedy}", field="type", message_type=kind)


def discover() -> tuple[Module, ...]:
    """Modules of other distributions, from the entry points group `unwind.modules`, by name. Raises `ManifestInvalid`
    naming the entry point.
    """
    found: list[Module] = []
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        where = f"entry point {point.name} = {point.value}"
        try:
            module = point.load()
        except (ImportError, AttributeError) as error:
            raise ManifestInvalid(f"{where} cannot be loaded: {error}; reinstall or remove its distribution") from error
        if not isinstance(module, Module):
            raise ManifestInvalid(f"{where} is no contracts.manifest.Module; point it at the module's manifest")
        found.append(module)
    return tuple(found)


def _identity(payload: dict[str, Any], place: Segments) -> str | None:
    """A text or whole number as text. Not an empty text: as a key it would match every other empty one."""
    value = payload.get(place[0]) if len(place) == 1 else resolve(payload, place)
    if type(value) is str:
        return value or None
    return str(value) if type(value) is int else None


def _by_name(modules: Iterable[Module]) -> dict[str, Module]:
    found: dict[str, Module] = {}
    for module in modules:
        if found.setdefault(module.name, module) is not module:
            raise ManifestInvalid(f"two modules are called {module.name}; rename one", module=module.name)
    return found


def _event_entry(module: Module, event: Event) -> EventEntry:
    kind = module.type_of(event.model)

    def place(what: str, pointer: str) -> Segments:
        try:
            parts = segments(pointer)
        except ValueError as error:
            raise ManifestInvalid(f"{kind}: {what}: {error}", module=module.name) from None
        if not parts or kind_at(event.model, parts) not in ("string", "integer"):
            raise ManifestInvalid(
                f"{kind}: {what} points at {pointer}, where the model has no text or whole number; point it at one",
                module=module.name,
            )
        return parts

    return EventEntry(
        kind,
        module,
        event,
        Shape(kind, event.model),
        tuple((name, place(f"key {name}", pointer)) for name, pointer in event.keys.items()),
        None if event.subject is None else place("subject", event.subject),
    )
