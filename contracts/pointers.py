"""Places inside a JSON value: RFC 6901 pointers, and the one pattern language of personal-data marks. Pure; used by
manifests, sealing and redaction.

A *pointer* names one place: `/items/0/email` (`~1` stands for `/`, `~0` for `~`, the empty string for the whole
value). A *pattern* is a pointer in which a segment `*` stands for every element of a list or every value of an object:
`/items/*/email`. Declarations carry patterns, recorded data carries pointers; `expand_marks` turns the first into the
second.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

EVERY: Final = "*"

ERASED_VALUE: Final = {"$erased": True}
"""How a marked value reads once its data subject's key was dropped."""

Segments = tuple[str, ...]


class _Missing:
    """The answer of `resolve` for a place that is not there, so that a JSON null stays distinguishable."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


def segments(pointer: str) -> Segments:
    """The unescaped segments of a pointer or pattern. Raises ValueError when it does not begin with `/` (or is not
    empty).
    """
    if pointer == "":
        return ()
    if pointer[0] != "/":
        raise ValueError(f"{pointer!r} is not a JSON pointer: begin it with /")
    if "~" not in pointer:
        return tuple(pointer[1:].split("/"))
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))


def pointer_of(parts: Iterable[str | int]) -> str:
    """The pointer that names these segments, escaped."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def resolve(value: Any, parts: Segments) -> Any:
    """What stands at that place, or `MISSING`."""
    for part in parts:
        if isinstance(value, dict):
            value = value.get(part, MISSING)
        elif isinstance(value, list):
            value = value[int(part)] if part.isdecimal() and int(part) < len(value) else MISSING
        else:
            return MISSING
    return value


def expand_marks(patterns: Iterable[str], data: Any) -> tuple[str, ...]:
    """The concrete pointers of every marked value that is present in `data` and is not null, in order and without
    repeats.
    """
    if not patterns:
        return ()
    return expand_compiled(tuple(segments(pattern) for pattern in patterns), data)


def expand_compiled(patterns: tuple[Segments, ...], data: Any) -> tuple[str, ...]:
    """`expand_marks` for patterns that were split once beforehand: the hot path."""
    found: dict[str, None] = {}
    for parts in patterns:
        if len(parts) == 1 and parts[0] != EVERY and isinstance(data, dict):
            name = parts[0]
            if data.get(name) is not None:
                found["/" + name if name.isidentifier() else pointer_of(parts)] = None
        else:
            _expand(parts, 0, data, [], found)
    return tuple(found)


def _expand(parts: Segments, at: int, value: Any, path: list[str | int], found: dict[str, None]) -> None:
    if value is None or value is MISSING:
        return
    if at == len(parts):
        found[pointer_of(path)] = None
        return
    part = parts[at]
    if part == EVERY:
        inner: Iterable[tuple[str | int, Any]]
        if isinstance(value, list):
            inner = enumerate(value)
        elif isinstance(value, dict):
            inner = value.items()
        else:
            return
        for name, item in inner:
            path.append(name)
            _expand(parts, at + 1, item, path, found)
            path.pop()
        return
    path.append(part)
    _expand(parts, at + 1, resolve(value, (part,)), path, found)
    path.pop()
