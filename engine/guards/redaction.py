"""Redaction: what a person, a log line or a read model may see of a document. It never seals (that is
`engine.store.mapper`) and never changes the document it is given.

Three rules, in this order: marked places (JSON pointers or patterns from the contract's schema) become `[redacted]`;
values under names that say secret (`password`, `api_key`, `Authorization`, by whole words, so `max_tokens` and
`secretary` stay), and numbers under names that say whose they are (`phone`, `passport`), become `[redacted]`; and what
is personal or secret by its form (`engine.guards.personal`) is cut out of every text, of names as of values, of JSON in
a text and of percent-encoded text. A mask is never a hash. What cannot be understood is masked whole. The same document
is always shown the same way. Called by the mapper for projections and answers, by `engine.logs` for every line.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final
from urllib.parse import unquote

import orjson

from contracts.pointers import ERASED_VALUE, EVERY, segments
from engine.guards import personal
from engine.guards.personal import REDACTED, suspicious

__all__ = ["ERASED", "REDACTED", "Redactor", "names_secret", "redact", "redact_text", "tells"]

ERASED: Final = "[erased]"

MAX_DEPTH: Final = 100
MAX_WRAPPED: Final = 4
"""How often a text may be wrapped in another, as JSON or percent-encoded, before it is masked whole."""

_Trie = dict[str, Any]
_END: Final = ""
"""Key of a trie node that ends a mark. A segment may be empty too, so segments are stored with a leading `/`."""


class Redactor:
    """Masks documents by marks and by names. Made once per set of marks, used many times; one walk per document."""

    __slots__ = ("_marks", "_whole")

    def __init__(self, marks: Iterable[str] = ()) -> None:
        self._marks: _Trie = {}
        self._whole = False
        for mark in marks:
            try:
                parts = segments(mark)
            except (ValueError, TypeError, AttributeError):
                # Nobody can say what a malformed mark meant to hide, so nothing is shown.
                self._whole = True
                continue
            if not parts:
                self._whole = True
            node = self._marks
            for part in parts:
                node = node.setdefault("/" + part, {})
            node[_END] = True

    def document(self, document: Any) -> Any:
        """A copy of the JSON-native document with what is marked, secret or personal masked."""
        if self._whole:
            return _mask(document)
        return _walk(document, (self._marks,) if self._marks else (), 0)

    def record(self, document: dict[str, Any], spared: Set[str]) -> Any:
        """The same of a record whose fields of these names are masked by marks only: names and ids of our own."""
        if self._whole:
            return _mask(document)
        nodes = (self._marks,) if self._marks else ()
        return {
            name: item if name in spared and not _step(nodes, name) else _walk({name: item}, nodes, 0)[name]
            for name, item in document.items()
        }

    def marked(self, document: Any) -> Any:
        """The same by marks only; shares unmarked parts with the original, so treat the answer as read-only."""
        if self._whole:
            return _mask(document)
        return _walk_marks(document, (self._marks,)) if self._marks else document


def redact(document: Any, marks: Iterable[str] = ()) -> Any:
    """`Redactor(marks).document(document)`, for a document with marks of its own."""
    return Redactor(marks).document(document)


def redact_text(text: str) -> str:
    """Free text without what is personal or secret in it."""
    return _text(text, 0)


@lru_cache(maxsize=4096)
def names_secret(name: str) -> bool:
    """Whether a value under this name is a secret, judged by the words in the name."""
    words = tuple(personal.words(name[:200]))
    if not words or words[-1] in _HARMLESS_ENDS:
        return False
    if words[-1] == "token" or not _SECRET_WORDS.isdisjoint(words):
        return True
    return any(pair in _SECRET_PAIRS for pair in pairwise(words))


@lru_cache(maxsize=4096)
def names_number(name: str) -> bool:
    """Whether a number under this name is somebody's: a phone's, a passport's."""
    words = tuple(personal.words(name[:200]))
    if len(words) > 1 and words[-1] in _NUMBER_ENDS:
        words = words[:-1]
    return bool(words) and words[-1] in _NUMBER_WORDS


def tells(document: Any, depth: int = 0) -> bool:
    """False only when `Redactor().document` would leave the document as it is; True for what is nested too deeply to
    look at. It lets the hot path skip the walk: names and texts repeat from document to document, and those known to be
    harmless are compared without a line of Python.
    """
    if depth > MAX_DEPTH:
        return True
    items: Iterable[Any]
    if type(document) is dict:
        if not _harmless.issuperset(document) and _names_tell(document):
            return True
        items = document.values()
    elif type(document) is list:
        items = document
    else:
        return suspicious(document) if type(document) is str else _is_card(document)
    for item in items:
        kind = type(item)
        if kind is str:
            if len(item) > _SHORT and item not in _harmless_texts:
                if suspicious(item):
                    return True
                if len(item) in _KEPT:
                    _keep(item, _harmless_texts)
        elif kind is dict or kind is list:
            if item and tells(item, depth + 1):
                return True
        elif kind is int and item > _FEWEST and _is_card(item):
            return True
    return False


_HARMLESS_AT_MOST = 4096
_KEPT: Final = frozenset(range(65)) - {personal.UUID_LENGTH}
"""Lengths of the texts that are worth keeping: ids hardly repeat, and are told by their form."""
_SHORT: Final = 4
_FEWEST: Final = 10**13
_harmless: set[str] = set()
_harmless_texts: set[str] = set()


def _names_tell(names: Iterable[str]) -> bool:
    for name in names:
        if names_secret(name) or names_number(name) or suspicious(name):
            return True
        if len(name) in _KEPT:
            _keep(name, _harmless)
    return False


def _keep(text: str, known: set[str]) -> None:
    if len(known) >= _HARMLESS_AT_MOST:
        known.clear()
    known.add(text)


def _is_card(value: Any) -> bool:
    return type(value) is int and value > _FEWEST and personal.is_card(value)


_SECRET_WORDS = frozenset(
    {
        "password", "passwords", "passwd", "passphrase", "passcode", "pwd", "secret", "secrets", "authorization",
        "cookie", "cookies", "credential", "credentials", "apikey", "cvv", "cvc", "ssn",
    }
)  # fmt: skip
_SECRET_PAIRS = frozenset(
    {
        ("api", "key"), ("private", "key"), ("signing", "key"), ("api", "keys"), ("private", "keys"),
        ("access", "key"), ("access", "keys"), ("encryption", "key"), ("encryption", "keys"),
    }
)  # fmt: skip
_HARMLESS_ENDS = frozenset({"ref", "reference", "id", "name", "count", "length", "type", "policy", "hash"})
_NUMBER_WORDS = frozenset(
    {
        "phone", "telephone", "tel", "mobile", "cell", "cellphone", "msisdn", "fax", "iban", "passport", "bsn", "cpf",
        "pesel", "nino", "aadhaar", "nif", "dni",
    }
)  # fmt: skip
_NUMBER_ENDS = frozenset({"number", "no", "nr"})


def _text(text: str, wrapped: int) -> str:
    if not suspicious(text):
        return text
    if wrapped > MAX_WRAPPED:
        return REDACTED
    if text.lstrip()[:1] in ("{", "[", '"'):
        try:
            inner = orjson.loads(text)
        except orjson.JSONDecodeError:
            inner = None
        shown = _walk(inner, (), 0, wrapped + 1)
        if shown != inner:
            return orjson.dumps(shown).decode()
    # Also where JSON showed nothing: a name that stands twice in an object is parsed once.
    text = personal.mask(text, names_secret)
    if "%" in text:
        plain = unquote(text)
        if plain != text:
            shown = _text(plain, wrapped + 1)
            if shown != plain:
                return shown
    return text


def _walk(value: Any, nodes: tuple[_Trie, ...], depth: int, wrapped: int = 0) -> Any:
    if isinstance(value, str):
        return _text(value, wrapped)
    if isinstance(value, dict):
        if depth > MAX_DEPTH:
            return REDACTED
        shown: dict[str, Any] = {}
        for name, item in value.items():
            inner = _step(nodes, name)
            if _ends(inner) or (item is not None and names_secret(name)):
                item = _mask(item)
            elif names_number(name):
                item = _numbers(item, inner, depth, wrapped)
            else:
                item = _walk(item, inner, depth + 1, wrapped)
            shown[_name(name, shown, wrapped)] = item
        return shown
    if isinstance(value, (list, tuple)):
        if depth > MAX_DEPTH:
            return REDACTED
        return [
            _mask(item)
            if _ends(inner := _step(nodes, str(at)) if nodes else ())
            else _walk(item, inner, depth + 1, wrapped)
            for at, item in enumerate(value)
        ]
    return REDACTED if _is_card(value) else value


def _name(name: str, taken: dict[str, Any], wrapped: int) -> str:
    """The name as it may be shown; names that become the same are told apart by their place among them."""
    shown = _text(name, wrapped)
    number, free = 1, shown
    while free in taken:
        number += 1
        free = f"{shown} {number}"
    return free


def _numbers(item: Any, nodes: tuple[_Trie, ...], depth: int, wrapped: int) -> Any:
    """Under a name that says whose number it is: texts and whole numbers with the digits of one are masked."""
    if isinstance(item, str) or (isinstance(item, int) and not isinstance(item, bool)):
        return REDACTED if personal.numbers_someone(str(item)) else _walk(item, nodes, depth + 1, wrapped)
    if isinstance(item, list) and not nodes:
        return [_numbers(one, (), depth + 1, wrapped) for one in item] if depth <= MAX_DEPTH else REDACTED
    return _walk(item, nodes, depth + 1, wrapped)


def _walk_marks(value: Any, nodes: tuple[_Trie, ...]) -> Any:
    if isinstance(value, dict):
        places: Iterable[tuple[Any, Any]] = value.items()
        copy: Any = dict(value)
    elif isinstance(value, list):
        places = enumerate(value)
        copy = list(value)
    else:
        return value
    for name, item in places:
        inner = _step(nodes, str(name))
        if inner:
            copy[name] = _mask(item) if _ends(inner) else _walk_marks(item, inner)
    return copy


def _step(nodes: tuple[_Trie, ...], part: str) -> tuple[_Trie, ...]:
    if not nodes:
        return ()
    found = [node[key] for node in nodes for key in ("/" + part, "/" + EVERY) if key in node]
    return tuple(found)


def _ends(nodes: tuple[_Trie, ...]) -> bool:
    return any(_END in node for node in nodes)


def _mask(value: Any) -> Any:
    if value is None:
        return None
    return ERASED if value == ERASED_VALUE else REDACTED
