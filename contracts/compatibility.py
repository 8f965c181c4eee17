"""What a change of contracts breaks, said by type and field before it is published. Compares two sets of generated
schemas; called by `unwind contracts check OLD NEW` and by tests.

Two questions are asked of each type, depending on who holds on to the old one:

    fits      does everything that an older sender says (or that is stored, or under way) still fit?     all types
    promise   is everything that a newer sender says still what an older reader expects?                 events, answers

So a command may learn to accept more, an event may never say something new in an old field, and both may gain optional
fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from contracts.pointers import EVERY, pointer_of
from contracts.problems import ContractUnknown
from contracts.shapes import PERSONAL_KEY

EXTENSION: Final = "x-unwind"

Document = Mapping[str, Any]
Place = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema and the document its references are resolved in."""

    body: Document
    root: Document

    def facts(self) -> Document:
        found: Document = self.body.get(EXTENSION, {})
        return found


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One breaking change. `pointer` is the field within the payload (`*` is every element); empty: the type as a
    whole.
    """

    type: str
    pointer: str
    code: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.type} {self.pointer or '(whole type)'}: {self.why}; {self.remedy}"


def load(path: Path) -> dict[str, Schema]:
    """The schemas in a folder of generated files, in one such file, or in an AsyncAPI document, by type. Raises
    `ContractUnknown`.
    """
    if not path.exists():
        raise ContractUnknown(f"{path} does not exist; name a folder of schemas, one of them, or asyncapi.json")
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    found: dict[str, Schema] = {}
    for file in files:
        try:
            document = orjson.loads(file.read_bytes())
        except orjson.JSONDecodeError as error:
            raise ContractUnknown(f"{file} is not JSON: {error.msg}; generate it again") from None
        if path.is_dir() and "asyncapi" in document:
            continue
        found.update(of_document(document))
    if not found:
        raise ContractUnknown(f"{path} holds no contract; generate one with python -m contracts.schema")
    return found


def of_document(document: Document) -> dict[str, Schema]:
    """The schemas of one generated document, by type."""
    if "asyncapi" in document:
        parts = document.get("components", {}).get("schemas", {})
        return {name: Schema(body, document) for name, body in parts.items() if EXTENSION in body}
    if EXTENSION in document:
        return {str(document["$id"]).removeprefix("urn:unwind:"): Schema(document, document)}
    return {}


def breaking_changes(old: Mapping[str, Schema], new: Mapping[str, Schema]) -> list[Change]:
    """Every change from `old` to `new` that breaks a sender, a reader, a published workflow or stored messages,
    sorted.
    """
    found: list[Change] = []
    for name, before in old.items():
        after = new.get(name)
        if after is None:
            why = "is gone, and with it whatever sends, reads or stores it"
            found.append(Change(name, "", "type_removed", why, "keep it until nobody uses it"))
            continue
        comparison = _Comparison(name, before, after)
        comparison.compare()
        found.extend(comparison.found)
    return sorted(set(found))


class _Comparison:
    """One type, before and after."""

    def __init__(self, name: str, before: Schema, after: Schema) -> None:
        self.name, self.before, self.after = name, before, after
        self.found: list[Change] = []
        self.role = str(before.facts().get("role"))
        self.promised = self.role in ("event", "answer")
        base, _, version = name.rpartition("V")
        self.remedy = f"keep it and publish {base}V{int(version) + 1 if version.isdecimal() else 2} beside it"
        self.seen: set[tuple[str, str]] = set()

    def add(self, place: Place, code: str, why: str) -> None:
        self.found.append(Change(self.name, pointer_of(place), code, why, self.remedy))

    def compare(self) -> None:
        if self.after.facts().get("role") != self.role:
            self.add((), "role_changed", f"was {self.role}, is {self.after.facts().get('role')}")
            return
        self._facts()
        self._schema((), self.before.body, self.after.body)
        marked = set(_marks(self.after))
        for place in sorted(set(_marks(self.before))):
            covered = any(place[:length] in marked for length in range(len(place) + 1))
            if not covered and _exists(self.after, place):
                why = "is no longer marked personal: it would be stored under the tenant's key and shown openly"
                self.add(place, "mark_removed", why)

    # ------------------------------------------------------------------------------------------ beside the fields

    def _facts(self) -> None:
        old, new = self.before.facts(), self.after.facts()
        for key, pointer in old.get("keys", {}).items():
            if key not in new.get("keys", {}):
                self.add((), "key_removed", f"correlation key {key} is gone: workflows that wait by it wait for ever")
            elif new["keys"][key] != pointer:
                self.add((), "key_moved", f"correlation key {key} is {new['keys'][key]}, was {pointer}: waits miss it")
        if old.get("subject") != new.get("subject"):
            said = f"is {new.get('subject')}, was {old.get('subject')}"
            self.add((), "subject_changed", f"the data subject {said}: erasing a person would miss what was stored")
        if self.role == "command":
            self._command(old, new)
        if self.role == "query" and old.get("answer") != new.get("answer"):
            self.add((), "answer_changed", f"is answered by {new.get('answer')}, was {old.get('answer')}")
        if new.get("permission") is not None and new.get("permission") != old.get("permission"):
            self.add((), "permission_changed", f"needs {new['permission']} now: published workflows may not hold it")

    def _command(self, old: Document, new: Document) -> None:
        now = {outcome: word for word in _OUTCOMES for outcome in _listed(new.get(word))}
        was = {outcome: word for word in _OUTCOMES for outcome in _listed(old.get(word))}
        for outcome, word in was.items():
            if outcome not in now:
                self.add((), "outcome_removed", f"{outcome} is no outcome now: runs that get it go on waiting")
            elif now[outcome] != word:
                self.add((), "outcome_moved", f"{outcome} was of {word}, is of {now[outcome]}: runs take another way")
        if old.get("undo") is not None and old.get("undo") != new.get("undo"):
            why = f"is undone by {new.get('undo')}, was {old['undo']}: runs under way unwind with the old one"
            self.add((), "undo_changed", why)
        if old.get("coverage") == "compensatable" and new.get("coverage") != "compensatable":
            why = f"is {new.get('coverage')}, was compensatable: published workflows rely on its undo"
            self.add((), "coverage_weakened", why)

    # ------------------------------------------------------------------------------------------------ the fields

    def _schema(self, place: Place, old: Document, new: Document) -> None:
        refs = (str(old.get("$ref", "")), str(new.get("$ref", "")))
        if all(refs):
            if refs in self.seen:
                return
            self.seen.add(refs)
        before, after = _options(self.before, old), _options(self.after, new)
        pairs, lost, gained = _pair(before, after)
        for option in lost:
            self.add(place, "type_narrowed", f"{_called(option)} no longer fits: older messages are refused")
        if self.promised:
            for option in gained:
                self.add(place, "type_widened", f"may be {_called(option)} now: older readers do not expect it")
        for one, other in pairs:
            self._option(place, one, other)

    def _option(self, place: Place, old: Document, new: Document) -> None:
        self._values(place, old, new)
        self._bounds(place, old, new)
        match old.get("type"):
            case "object":
                self._object(place, old, new)
            case "array":
                for index, (one, other) in enumerate(zip(_heads(old), _heads(new), strict=False)):
                    self._schema((*place, str(index)), one, other)
                if "items" in old and "items" in new:
                    self._schema((*place, EVERY), old["items"], new["items"])

    def _object(self, place: Place, old: Document, new: Document) -> None:
        fields, now = old.get("properties", {}), new.get("properties", {})
        required, required_now = set(old.get("required", ())), set(new.get("required", ()))
        closed = new.get("additionalProperties") is False
        for name, before in fields.items():
            here = (*place, name)
            if name not in now:
                if self.promised:
                    self.add(here, "field_removed", "is gone: readers that use it fail")
                elif closed:
                    self.add(here, "field_removed", "is gone: older senders that send it are refused")
                continue
            self._schema(here, before, now[name])
            if name in required_now - required:
                self.add(here, "made_required", "must be sent now: older messages that left it out are refused")
            elif self.promised and name in required - required_now:
                self.add(here, "made_optional", "may be absent now: readers that rely on it fail")
            if before.get("default") != now[name].get("default") and name not in required | required_now:
                said = f"{_shown(now[name].get('default'))}, was {_shown(before.get('default'))}"
                self.add(here, "default_changed", f"left out means {said}: old messages change their meaning")
        for name in now.keys() - fields.keys():
            if name in required_now:
                self.add((*place, name), "required_added", "is new and required: older messages do not have it")
        if closed and not fields and old.get("additionalProperties") is not False:
            self.add(place, "type_narrowed", "no longer takes other fields: older messages that have some are refused")
        inner, inner_now = old.get("additionalProperties"), new.get("additionalProperties")
        if isinstance(inner, Mapping) and isinstance(inner_now, Mapping):
            self._schema((*place, EVERY), inner, inner_now)

    def _values(self, place: Place, old: Document, new: Document) -> None:
        before, after = _enum(old), _enum(new)
        if after is not None and (before is None or before - after):
            gone = "other values" if before is None else ", ".join(sorted(before - after))
            self.add(place, "enum_narrowed", f"no longer takes {gone}: older messages with it are refused")
        if self.promised and before is not None and (after is None or after - before):
            more = "any value" if after is None else ", ".join(sorted(after - before))
            self.add(place, "enum_widened", f"may be {more} now: older readers do not know it")

    def _bounds(self, place: Place, old: Document, new: Document) -> None:
        for word, tighter in _BOUNDS.items():
            limit, was = new.get(word), old.get(word)
            if limit is not None and (was is None or tighter * limit > tighter * was):
                self.add(place, "bound_tightened", f"{word} is {limit}, was {was}: older messages may not fit")
        for word in ("pattern", "format"):
            if new.get(word) is not None and new.get(word) != old.get(word):
                self.add(place, "type_narrowed", f"{word} is {new[word]}, was {old.get(word)}: older texts may not fit")
            elif self.promised and old.get(word) is not None and new.get(word) is None:
                self.add(place, "type_widened", f"is no longer a {old[word]}: older readers rely on its form")


_OUTCOMES: Final = ("success", "failures", "irrecoverable")
_BOUNDS: Final = {
    "minLength": 1,
    "minItems": 1,
    "minProperties": 1,
    "minimum": 1,
    "exclusiveMinimum": 1,
    "maxLength": -1,
    "maxItems": -1,
    "maxProperties": -1,
    "maximum": -1,
    "exclusiveMaximum": -1,
}
_DEEPEST: Final = 32
_ELEMENTS: Final = ("items", "additionalProperties")
_DEFINITION = re.compile(r"#/(\$defs|components/schemas)/(.+)\Z")


def _follow(schema: Schema, body: Document) -> Document:
    for _ in range(100):
        found = _DEFINITION.match(str(body.get("$ref", "")))
        if found is None:
            return body
        group = schema.root["$defs"] if found[1] == "$defs" else schema.root["components"]["schemas"]
        body = group[found[2]]
    raise ContractUnknown(f"{body['$ref']} refers to itself; generate the schemas again")


def _options(schema: Schema, body: Document) -> list[Document]:
    """The ways in which a value may fit, flattened: each with one JSON type, or with none when anything fits."""
    body = _follow(schema, body)
    for word in ("anyOf", "oneOf"):
        if word in body:
            return [option for branch in body[word] for option in _options(schema, branch)]
    if len(body.get("allOf", ())) == 1:
        return _options(schema, body["allOf"][0])
    kind = body.get("type")
    if isinstance(kind, list):
        return [{**body, "type": each} for each in kind]
    values = _enum(body)
    if kind is None and values is not None:
        kinds = {_KINDS[value[0]] for value in values if value[0] in _KINDS}
        return [{**body, "type": kinds.pop() if len(kinds) == 1 else "number"}]
    return [body]


_KINDS: Final = {'"': "string", "t": "boolean", "f": "boolean", "n": "null", "[": "array", "{": "object"}


def _pair(
    before: list[Document], after: list[Document]
) -> tuple[list[tuple[Document, Document]], list[Document], list[Document]]:
    """Options that say the same before and after, those that are lost, and those that are new."""
    pairs: list[tuple[Document, Document]] = []
    left = list(after)
    lost: list[Document] = []
    taken: list[Document] = []
    for option in before:
        same = [other for other in after if other.get("type") == option.get("type")]
        named = [other for other in same if other.get("title") == option.get("title")]
        match named or same:
            case [other, *_]:
                pairs.append((option, other))
                taken.append(other)
            case _:
                # A whole number fits where any number does, and anything fits where nothing is said.
                wider = [other for other in after if other.get("type") is None or _is_wider(option, other)]
                if not wider:
                    lost.append(option)
    left = [option for option in after if not any(option is other for other in taken)]
    return pairs, lost, left


def _is_wider(option: Document, other: Document) -> bool:
    return option.get("type") == "integer" and other.get("type") == "number"


def _enum(body: Document) -> set[str] | None:
    """The listed values, in their JSON spelling."""
    if "const" in body:
        return {_shown(body["const"])}
    return {_shown(value) for value in body["enum"]} if "enum" in body else None


def _shown(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _heads(body: Document) -> list[Document]:
    return list(body.get("prefixItems", ()))


def _listed(value: Any) -> set[str]:
    return {value} if isinstance(value, str) else set(value or ())


def _called(option: Document) -> str:
    kind = option.get("type")
    title = option.get("title")
    return f"{kind or 'anything'} {title}" if kind == "object" and title else str(kind or "anything")


def _marks(schema: Schema) -> Iterator[Place]:
    yield from _marks_in(schema, schema.body, (), 0)


def _marks_in(schema: Schema, body: Document, place: Place, depth: int) -> Iterator[Place]:
    target = _follow(schema, body)
    if body.get(PERSONAL_KEY) is True or target.get(PERSONAL_KEY) is True:
        yield place
        return
    if depth > _DEEPEST:
        return
    body = target
    for word in ("anyOf", "oneOf", "allOf"):
        for branch in body.get(word, ()):
            yield from _marks_in(schema, branch, place, depth + 1)
    for name, inner in body.get("properties", {}).items():
        yield from _marks_in(schema, inner, (*place, name), depth + 1)
    for word in _ELEMENTS:
        if isinstance(body.get(word), Mapping):
            yield from _marks_in(schema, body[word], (*place, EVERY), depth + 1)


def _exists(schema: Schema, place: Place) -> bool:
    bodies: list[Document] = _options(schema, schema.body)
    for part in place:
        inner: list[Document] = []
        for body in bodies:
            if part == EVERY:
                inner += [body[word] for word in _ELEMENTS if isinstance(body.get(word), Mapping)]
            elif part in body.get("properties", {}):
                inner.append(body["properties"][part])
        bodies = [option for body in inner for option in _options(schema, body)]
    return bool(bodies)
