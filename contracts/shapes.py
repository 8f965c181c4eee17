"""How a declared model reads a payload: strictly, once, naming what is wrong by its place. Made by the registry and
the SDK, one shape per model.

A payload is read as JSON means it (`"12"` is no number, a text is an instant only where the model says so) and handed
on JSON-native, with defaults filled in and undeclared fields left out. Most payloads are already that; such a one is
handed on as it came, without being built anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from contracts.pointers import EVERY, Segments, expand_compiled, pointer_of, segments
from contracts.problems import ManifestInvalid, PayloadInvalid

PERSONAL_KEY: Final = "pii"
"""The JSON Schema keyword of the personal-data mark."""

Schema = Mapping[str, Any]
ModelT = TypeVar("ModelT", bound=BaseModel)


class Shape(Generic[ModelT]):
    """One model made ready to read payloads; `patterns` say where its personal values are (`contracts.pointers`)."""

    __slots__ = ("_compiled", "_names", "_read", "model", "patterns", "type")

    def __init__(self, type_name: str, model: type[ModelT]) -> None:
        self.type = type_name
        self.model = model
        self.patterns = marks_of(model)
        self._compiled = tuple(segments(pattern) for pattern in self.patterns)
        self._names = _plain_names(model)
        self._read = model.__pydantic_validator__

    def read(self, data: Any) -> ModelT:
        """The model's instance. Raises `PayloadInvalid` with the pointer of the first wrong value and how many more
        there are.
        """
        try:
            if self._names is not None:
                instance: ModelT = self._read.validate_python(data)
            else:
                # Strict reading of instants, ids and decimals from text exists only for JSON input.
                instance = self._read.validate_json(orjson.dumps(data))
            return instance
        except ValidationError as error:
            raise self._invalid(error) from None
        except TypeError as error:
            raise PayloadInvalid(f"{self.type}: {error}; send JSON values only", field="") from None

    def check(self, data: Any) -> dict[str, Any]:
        """The JSON-native payload: `data` itself when it is exactly what the model declares, otherwise what the model
        makes of it.
        """
        instance = self.read(data)
        if self._names is not None and data.keys() == self._names:
            payload: dict[str, Any] = data
            return payload
        return self.dump(instance)

    def dump(self, instance: ModelT) -> dict[str, Any]:
        """A JSON-native payload from an instance."""
        return instance.model_dump(mode="json")

    def marks(self, payload: Any) -> tuple[str, ...]:
        """Pointers, from the payload's root, of the personal values that are present."""
        return expand_compiled(self._compiled, payload) if self._compiled else ()

    def _invalid(self, error: ValidationError) -> PayloadInvalid:
        # The input is left out of the message: it may be personal.
        errors = error.errors(include_url=False, include_input=False, include_context=False)
        first = errors[0]
        pointer = pointer_of(first["loc"])
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        remedy = _REMEDIES.get(first["type"], "send a value the declared model accepts")
        return PayloadInvalid(
            f"{self.type}: {pointer or 'data'}: {first['msg']}; {remedy}{more}", field=pointer, message_type=self.type
        )


_REMEDIES: Final = {
    "missing": "add the field",
    "extra_forbidden": "leave the field out, or send the version that declares it",
    "model_type": "send a JSON object",
    "string_type": "send a string",
    "int_type": "send a whole number, not a text",
    "float_type": "send a number, not a text",
    "bool_type": "send true or false",
    "literal_error": "send one of the listed values",
    "enum": "send one of the listed values",
}


@lru_cache(maxsize=1024)
def marks_of(model: type[BaseModel]) -> tuple[str, ...]:
    """Patterns of every place in the model that is marked personal; a marked object or list is personal as a whole."""
    schema = _schema_of(model)
    found: dict[str, None] = {}
    for path in _marked(schema, schema, (), ()):
        found[pointer_of(path)] = None
    return tuple(found)


@lru_cache(maxsize=1024)
def kind_at(model: type[BaseModel], parts: Segments) -> str | None:
    """The JSON type declared at that place (`string`, `integer`, ...); None when there is no such place or it has
    several.
    """
    schema = _schema_of(model)
    place: Schema | None = schema
    for part in parts:
        place = None if place is None else _solid(schema, place).get("properties", {}).get(part)
    if place is None:
        return None
    solid = _solid(schema, place)
    kind = solid.get("type")
    if kind is None:
        values = [solid["const"]] if "const" in solid else solid.get("enum", ())
        return "string" if values and all(isinstance(value, str) for value in values) else None
    return str(kind)


@lru_cache(maxsize=1024)
def _schema_of(model: type[BaseModel]) -> Schema:
    """Asked several times per event while a registry is made; each is a millisecond."""
    return model.model_json_schema(mode="serialization")


def _solid(root: Schema, schema: Schema) -> Schema:
    """The schema itself, with references followed and `or null` taken away."""
    while True:
        if "$ref" in schema:
            schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
            continue
        options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
        if len(options) != 1:
            return schema
        schema = options[0]


def _marked(root: Schema, schema: Schema, path: Segments, within: tuple[str, ...]) -> Iterator[Segments]:
    if schema.get(PERSONAL_KEY) is True:
        yield path
        return
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        target = root["$defs"][name]
        if name in within:
            if f'"{PERSONAL_KEY}":true'.encode() in orjson.dumps(target):
                raise ManifestInvalid(f"{name} holds itself and personal values; mark the field that holds it")
            return
        yield from _marked(root, target, path, (*within, name))
    for group in ("anyOf", "oneOf", "allOf"):
        for option in schema.get(group, ()):
            yield from _marked(root, option, path, within)
    for name, inner in schema.get("properties", {}).items():
        if name == EVERY:
            raise ManifestInvalid("a field may not be called *: the word stands for every element in marks; rename it")
        yield from _marked(root, inner, (*path, name), within)
    for index, inner in enumerate(schema.get("prefixItems", ())):
        yield from _marked(root, inner, (*path, str(index)), within)
    for group in ("items", "additionalProperties"):
        if isinstance(schema.get(group), Mapping):
            yield from _marked(root, schema[group], (*path, EVERY), within)
    for inner in schema.get("patternProperties", {}).values():
        yield from _marked(root, inner, (*path, EVERY), within)


@lru_cache(maxsize=1024)
def _plain_names(model: type[BaseModel]) -> frozenset[str] | None:
    """The field names of a model whose valid payloads are their own JSON-native form; None when reading may change a
    value.
    """
    schema: Any = model.__pydantic_core_schema__
    if schema["type"] != "model" or "serialization" in schema or schema["schema"]["type"] != "model-fields":
        return None
    fields = schema["schema"]["fields"]
    if schema["schema"].get("computed_fields") or model.__pydantic_decorators__.model_serializers:
        return None
    for name, member in fields.items():
        if "validation_alias" in member or "serialization_alias" in member or member.get("serialization_exclude"):
            return None
        if not _plain(member["schema"]) or name in model.__pydantic_decorators__.field_serializers:
            return None
    return frozenset(fields)


def _plain(schema: Any) -> bool:
    if "serialization" in schema:
        return False
    match schema["type"]:
        case "bool" | "int" | "float" | "none" | "any":
            return True
        case "str":
            return not (schema.get("strip_whitespace") or schema.get("to_lower") or schema.get("to_upper"))
        case "literal":
            return all(value is None or type(value) in (str, int, bool) for value in schema["expected"])
        case "nullable" | "default":
            return _plain(schema["schema"])
        case "list":
            return _plain(schema.get("items_schema", {"type": "any"}))
        case "dict":
            return all(_plain(schema.get(part, {"type": "any"})) for part in ("keys_schema", "values_schema"))
        case _:
            return False
