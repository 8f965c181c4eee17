"""Redaction: what a person, a log line or a read model may see of a document. It never seals (that is
`engine.store.mapper`) and never changes the document it is given.

Three rules, in this order: marked places (JSON pointers or patterns from the contract's schema) become `[redacted]`;
values under names that say secret (`password`, `api_key`, `Authorization`, by whole words, so `max_tokens` and
`secretary` stay) become `[redacted]`; and, for free text such as log lines, e-mail addresses, bearer tokens and card
numbers are cut out by linear-time patterns. A mask is never a hash. What cannot be understood is masked whole.
Called by the mapper for projections and answers, by `engine.logs` for every line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

from contracts.pointers import ERASED_VALUE, EVERY, segments

REDACTED: Final = "[redacted]"
ERASED: Final = "[erased]"

MAX_DEPTH: Final = 100

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
        """A copy of the JSON-native document with marked and secret values masked."""
        if self._whole:
            return _mask(document)
        return _walk(document, (self._marks,) if self._marks else (), 0)

    def marked(self, document: Any) -> Any:
        """The same by marks only; shares unmarked parts with the original, so treat the answer as read-only."""
        if self._whole:
            return _mask(document)
        return _walk_marks(document, (self._marks,)) if self._marks else document


def redact(document: Any, marks: Iterable[str] = ()) -> Any:
    """`Redactor(marks).document(document)`, for a document with marks of its own."""
    return Redactor(marks).document(document)


def redact_text(text: str) -> str:
    """Free text without e-mail addresses, bearer tokens, API tokens and card numbers."""
    text = _BEARER.sub(REDACTED, text)
    if "@" in text:
        text = _EMAIL.sub(REDACTED, text)
    return _DIGITS.sub(_mask_card, text)


@lru_cache(maxsize=4096)
def names_secret(name: str) -> bool:
    """Whether a value under this name is a secret, judged by the words in the name."""
    words = tuple(word.lower() for word in _WORDS.findall(name[:200]))
    if not words or words[-1] in _HARMLESS_ENDS:
        return False
    if words[-1] == "token" or not _SECRET_WORDS.isdisjoint(words):
        return True
    return any(pair in _SECRET_PAIRS for pair in pairwise(words))


def may_name_secret(encoded: bytes) -> bool:
    """False only when no name in the encoded JSON can satisfy `names_secret`: lets the hot path skip the walk."""
    lowered = encoded.lower()
    for needle in _NEEDLES:  # noqa: SIM110 (a generator costs five times the search)
        if needle in lowered:
            return True
    return False


def names_a_secret(document: Any, depth: int = 0) -> bool:
    """Whether any name in the parsed document satisfies `names_secret`; exact, and for small documents a quarter of the
    price of searching their text. True for what is nested too deeply to look at.
    """
    if depth > MAX_DEPTH:
        return True
    items: Iterable[Any]
    if type(document) is dict:
        # Names repeat from document to document: most are known to be harmless, and compared without a line of Python.
        if not _harmless.issuperset(document) and _has_secret_name(document):
            return True
        items = document.values()
    elif type(document) is list:
        items = document
    else:
        return False
    for item in items:
        kind = type(item)
        if (kind is dict or kind is list) and item and names_a_secret(item, depth + 1):
            return True
    return False


_HARMLESS_AT_MOST = 4096
_HARMLESS_LENGTH = 64
_harmless: set[str] = set()


def _has_secret_name(document: dict[str, Any]) -> bool:
    for name in document:
        if names_secret(name):
            return True
        if len(_harmless) < _HARMLESS_AT_MOST and len(name) <= _HARMLESS_LENGTH:
            _harmless.add(name)
    return False


_NEEDLES = (
    b"pass", b"secret", b"token", b"authorization", b"cookie", b"credential", b"api", b"private", b"signing",
    b"cvv", b"cvc", b"ssn",
)  # fmt: skip
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET_WORDS = frozenset(
    {
        "password", "passwords", "passwd", "passphrase", "secret", "secrets", "authorization", "cookie", "cookies",
        "credential", "credentials", "apikey", "cvv", "cvc", "ssn",
    }
)  # fmt: skip
_SECRET_PAIRS = frozenset(
    {("api", "key"), ("private", "key"), ("signing", "key"), ("api", "keys"), ("private", "keys")}
)
_HARMLESS_ENDS = frozenset({"ref", "reference", "id", "name", "count", "length", "type", "policy", "hash"})

_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_BEARER = re.compile(
    r"(?i:\bbearer +[A-Za-z0-9._~+/=-]+)|\bunw_[A-Za-z0-9]+_[A-Za-z0-9]{20,}|\bwhsec_[A-Za-z0-9+/=]{16,}"
)
_DIGITS = re.compile(r"(?<![0-9A-Za-z-])[0-9](?:[ -]?[0-9]){12,18}(?![0-9A-Za-z-])")


def _walk(value: Any, nodes: tuple[_Trie, ...], depth: int) -> Any:
    if depth > MAX_DEPTH:
        return REDACTED
    if isinstance(value, dict):
        return {
            name: _mask(item)
            if (names_secret(name) and item is not None) or _ends(inner := _step(nodes, name))
            else _walk(item, inner, depth + 1)
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [
            _mask(item) if _ends(inner := _step(nodes, str(at)) if nodes else ()) else _walk(item, inner, depth + 1)
            for at, item in enumerate(value)
        ]
    return value


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


def _mask_card(found: re.Match[str]) -> str:
    digits = [int(character) for character in found.group() if character.isdigit()]
    total = sum(digit if at % 2 == 0 else digit * 2 - 9 * (digit > 4) for at, digit in enumerate(reversed(digits)))
    return REDACTED if total % 10 == 0 else found.group()
