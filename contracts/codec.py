"""Events to bytes and back: a closed table of topics, shapes with version numbers, older shapes lifted, newer ones
refused. Called by the store's mapper; it knows nothing of sealing.

A body is the event's own JSON with the version of its shape under `v` in front. Within one version a shape is frozen:
every change of fields raises `VERSION` and brings an `upcast_v<n>_v<n+1>` static method, from document to document. So
a process never guesses: what it cannot read, it refuses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import orjson

from contracts.problems import EventBroken, EventNewer, TopicUnknown
from contracts.run_events import RunEvent, all_run_events

VERSION_KEY: Final = "v"

Document = dict[str, Any]
Upcast = Callable[[Document], Document]
Restore = Callable[[Any], Any]
Put = Callable[[Any, Any], None]
Take = Callable[[Any], tuple[Any, ...]]

_OPTIONS: Final = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z

_new = object.__new__


class Codec:
    """A closed set of event classes. Raises ValueError when topics repeat, an upcast is missing or a field has a type
    that JSON cannot give back.
    """

    def __init__(self, classes: Iterable[type[RunEvent]]) -> None:
        self._shapes: dict[str, _Shape] = {}
        self._heads: dict[type[RunEvent], tuple[bytes, tuple[str, ...], Take]] = {}
        for cls in classes:
            if not cls.TOPIC or cls.TOPIC in self._shapes:
                raise ValueError(f"{cls.__name__} needs a topic of its own, not {cls.TOPIC!r}")
            self._shapes[cls.TOPIC] = _Shape(cls)
            names = tuple(field.name for field in dataclasses.fields(cls))
            self._heads[cls] = f'{{"{VERSION_KEY}":{cls.VERSION},'.encode(), names, attrgetter(*names)

    @property
    def topics(self) -> tuple[str, ...]:
        return tuple(self._shapes)

    def encode(self, event: RunEvent) -> bytes:
        """The body as stored before sealing. Raises TypeError when a value is not JSON-native, `TopicUnknown` for a
        class outside the table.
        """
        known = self._heads.get(type(event))
        if known is None:
            raise TopicUnknown(f"{type(event).__name__} is not in this codec's table; add it where it is made")
        head, names, take = known
        # Splicing the version in front is ten times cheaper than a wrapper document, and orjson writes a dict faster
        # than a slotted dataclass.
        return head + orjson.dumps(dict(zip(names, take(event), strict=True)), option=_OPTIONS)[1:]

    def decode(self, topic: str, version: int, document: Document) -> RunEvent:
        """The event from its document, which is consumed. Raises `TopicUnknown`, `EventNewer`, `EventBroken`."""
        shape = self._shapes.get(topic)
        if shape is None:
            raise TopicUnknown(f"topic {topic} is unknown here; run the version that wrote it", topic=topic)
        if version != shape.version:
            document = shape.lift(version, document)
        return shape.build(document)

    def decode_document(self, topic: str, document: Document) -> RunEvent:
        """The same with the version taken from the document."""
        version = document.pop(VERSION_KEY, None)
        if type(version) is not int:
            raise EventBroken(f"topic {topic}: no shape version; restore it from a backup", topic=topic)
        return self.decode(topic, version, document)

    def lift(self, topic: str, document: Document) -> Document:
        """The document in its current shape, without the version key and without building the event: for readers of
        many events that need no class. Raises `TopicUnknown`, `EventNewer`, `EventBroken`.
        """
        shape = self._shapes.get(topic)
        if shape is None:
            raise TopicUnknown(f"topic {topic} is unknown here; run the version that wrote it", topic=topic)
        version = document.pop(VERSION_KEY, None)
        if version == shape.version:
            return document
        if type(version) is not int:
            raise EventBroken(f"topic {topic}: no shape version; restore it from a backup", topic=topic)
        return shape.lift(version, document)

    def version(self, topic: str) -> int | None:
        """The version of the topic's current shape; None for a topic that is unknown here."""
        shape = self._shapes.get(topic)
        return None if shape is None else shape.version

    def decode_body(self, topic: str, body: bytes) -> RunEvent:
        """The same from the bytes that `encode` made."""
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise EventBroken(f"topic {topic}: not JSON: {error.msg}; restore it from a backup", topic=topic) from None
        if not isinstance(document, dict):
            raise EventBroken(f"topic {topic}: not an object; restore it from a backup", topic=topic)
        return self.decode_document(topic, document)


class _Shape:
    """One class made ready to be built from documents."""

    __slots__ = ("_cls", "_plan", "_upcasts", "version")

    def __init__(self, cls: type[RunEvent]) -> None:
        self._cls = cls
        self.version = cls.VERSION
        hints = get_type_hints(cls)
        if VERSION_KEY in hints:
            raise ValueError(f"{cls.__name__}.{VERSION_KEY} hides the shape version; rename the field")
        # Writing through the slots is twice as fast as the frozen dataclass's own __init__, which cold loads feel.
        self._plan: tuple[tuple[str, Put, Restore | None], ...] = tuple(
            (field.name, getattr(cls, field.name).__set__, _restore_for(cls, field.name, hints[field.name]))
            for field in dataclasses.fields(cls)
        )
        self._upcasts: dict[int, Upcast] = {}
        for version in range(1, cls.VERSION):
            name = f"upcast_v{version}_v{version + 1}"
            upcast = getattr(cls, name, None)
            if upcast is None:
                raise ValueError(f"{cls.__name__} is at version {cls.VERSION} without {name}; stored events need it")
            self._upcasts[version] = upcast

    def lift(self, version: int, document: Document) -> Document:
        if version > self.version:
            raise EventNewer(
                f"topic {self._cls.TOPIC} has shape {version}, known up to {self.version}; upgrade this process",
                topic=self._cls.TOPIC,
                version=version,
            )
        if version < 1:
            raise self._broken(ValueError(f"there is no shape {version}"))
        for step in range(version, self.version):
            document = self._upcasts[step](document)
        return document

    def build(self, document: Document) -> RunEvent:
        if len(document) == len(self._plan):
            event: RunEvent = _new(self._cls)
            try:
                for name, put, restore in self._plan:
                    value = document[name]
                    put(event, value if restore is None or value is None else restore(value))
            except KeyError:
                pass
            except (TypeError, ValueError) as error:
                raise self._broken(error) from None
            else:
                return event
        return self._build_slowly(document)

    def _build_slowly(self, document: Document) -> RunEvent:
        """Fields that an upcast left to their defaults, or that do not belong here."""
        try:
            for name, _, restore in self._plan:
                if restore is not None and document.get(name) is not None:
                    document[name] = restore(document[name])
            return self._cls(**document)
        except (TypeError, ValueError) as error:
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> EventBroken:
        return EventBroken(
            f"topic {self._cls.TOPIC} shape {self.version} does not fit: {error}; run the version that wrote it",
            topic=self._cls.TOPIC,
            version=self.version,
        )


def instant(text: str) -> datetime:
    """An instant from how `encode` writes it; for text from outside there is `envelope.parse_time`."""
    at = datetime.fromisoformat(text)
    return at if at.tzinfo is UTC else at.astimezone(UTC)


def _restore_for(cls: type[RunEvent], name: str, hint: Any) -> Restore | None:
    """What turns the JSON form back, or None when it is the same. Refuses hints whose JSON form would not come back as
    it went.
    """
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        found = {_restore_for(cls, name, option) for option in get_args(hint) if option is not NoneType}
        if len(found) == 1:
            return found.pop()
    elif hint is datetime:
        return instant
    elif origin is tuple and get_args(hint)[1:] == (Ellipsis,) and _restore_for(cls, name, get_args(hint)[0]) is None:
        return tuple
    elif hint in (Any, str, int, float, bool) or origin is Literal or origin is Mapping:
        return None
    raise ValueError(f"{cls.__name__}.{name} is {hint}, which JSON cannot give back; use JSON types, datetime or tuple")


RUN_EVENTS: Final = Codec(all_run_events())
"""The codec of the run streams."""

encode = RUN_EVENTS.encode
decode = RUN_EVENTS.decode
decode_document = RUN_EVENTS.decode_document
decode_body = RUN_EVENTS.decode_body
