"""What may be seen: marked places and secret names never, everything else unchanged."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.guards.redaction import (
    REDACTED,
    Redactor,
    names_secret,
    redact,
    redact_text,
    tells,
)
from tests.pure.linear import seconds_to_redact

SECRET_NAMES = [
    "password", "Password", "userPassword", "user_password", "passwd", "passphrase", "secret", "client_secret",
    "clientSecret", "token", "access_token", "accessToken", "refresh-token", "Authorization", "X-Api-Key",
    "api_key", "apiKey", "APIKey", "api.key", "api key", "apikey", "private_key", "signingKey", "cookie",
    "Set-Cookie", "credentials", "cvv", "ssn",
]  # fmt: skip
HARMLESS_NAMES = [
    "max_tokens", "tokens", "token_count", "keyboard", "secretary", "monkey", "key", "idempotency_key",
    "passenger", "compass", "secret_ref", "secret_id", "password_policy", "author", "authority", "cookbook",
    "name", "", "bypass", "tokenizer",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_name_that_says_secret_hides_its_value(name: str) -> None:
    assert names_secret(name)
    assert redact({"deep": [{name: {"any": "thing"}}]}) == {"deep": [{name: REDACTED}]}


@pytest.mark.parametrize("name", HARMLESS_NAMES)
def test_a_name_that_only_looks_similar_stays(name: str) -> None:
    assert redact({name: 5}) == {name: 5}


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_secret_name_tells_at_every_depth_and_every_time(name: str) -> None:
    documents: tuple[Any, ...] = (
        {name: 1},
        {"name": 1, name: 2},
        {"a": [{"key": 1}, {"name": {name: None}}]},
        [[{name: []}]],
    )
    for document in documents:
        assert [tells(document), tells(document)] == [True, True]
    assert not tells({"said": name, "all": [name, {"author": name}]})


_PIECES = [*SECRET_NAMES, *HARMLESS_NAMES, "phone", "ada@example.org", "4111 1111 1111 1111", "+49 170 1234567", "%40"]
_TEXTS = st.text(max_size=12) | st.sampled_from(_PIECES) | st.lists(st.sampled_from(_PIECES), max_size=3).map(" ".join)
_DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(_DOCUMENTS)
def test_the_quick_look_lets_nothing_pass_that_would_be_masked(document: Any) -> None:
    shown = redact(document)
    if not tells(document):
        assert shown == document
    assert redact(document) == shown


@pytest.mark.parametrize(
    ("marks", "shown"),
    [
        (["/a"], {"a": REDACTED, "b": [{"c": 2}, {"c": 3}], "d/e": 4, "f": None}),
        (["/b/0/c"], {"a": 1, "b": [{"c": REDACTED}, {"c": 3}], "d/e": 4, "f": None}),
        (["/b/*/c"], {"a": 1, "b": [{"c": REDACTED}, {"c": REDACTED}], "d/e": 4, "f": None}),
        (["/b/*/c", "/b/1"], {"a": 1, "b": [{"c": REDACTED}, REDACTED], "d/e": 4, "f": None}),
        (["/b", "/b/0/c"], {"a": 1, "b": REDACTED, "d/e": 4, "f": None}),
        (["/d~1e"], {"a": 1, "b": [{"c": 2}, {"c": 3}], "d/e": REDACTED, "f": None}),
        (["/*"], {"a": REDACTED, "b": REDACTED, "d/e": REDACTED, "f": None}),
        (["/f", "/nothing", "/a/deeper", "/b/9"], {"a": 1, "b": [{"c": 2}, {"c": 3}], "d/e": 4, "f": None}),
        ([""], REDACTED),
        (["a"], REDACTED),
        ([7], REDACTED),
    ],
)
def test_marked_places_are_masked(marks: list[Any], shown: Any) -> None:
    document = {"a": 1, "b": [{"c": 2}, {"c": 3}], "d/e": 4, "f": None}
    assert Redactor(marks).document(document) == shown
    assert Redactor(marks).marked(document) == shown
    assert document == {"a": 1, "b": [{"c": 2}, {"c": 3}], "d/e": 4, "f": None}


def test_masking_by_marks_alone_leaves_names_to_themselves() -> None:
    assert Redactor(["/a"]).marked({"a": 1, "password": 2}) == {"a": REDACTED, "password": 2}


def test_two_equal_values_have_the_same_mask_and_no_hash() -> None:
    assert redact({"a": "x", "b": "y"}, ["/a", "/b"]) == {"a": REDACTED, "b": REDACTED}


def test_what_is_nested_beyond_reason_is_masked() -> None:
    document: Any = "deep"
    for _ in range(200):
        document = [document]
    assert "deep" not in repr(redact(document))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mail to ada.l+x@example.co.uk failed", "mail to [redacted] failed"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: [redacted]"),
        ("token unw_abcd1234_" + "A" * 49 + " used", "token [redacted] used"),
        ("card 4111 1111 1111 1111 declined", "card [redacted] declined"),
        ("card 4111-1111-1111-1111.", "card [redacted]."),
        ("order 4111 1111 1111 1112", "order 4111 1111 1111 1112"),
        ("run 01932847-1234-7123-8123-123456789012", "run 01932847-1234-7123-8123-123456789012"),
        ("a @ b", "a @ b"),
        ("", ""),
    ],
)
def test_free_text_loses_addresses_tokens_and_card_numbers(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@pytest.mark.parametrize("unit", ["a", "a@", "@", "1", "1 ", "1-", "bearer ", "unw_", "a.a@a-", "."])
def test_redaction_takes_linear_time(unit: str) -> None:
    # A quadratic pattern would take 64 times as long for 8 times the text.
    assert seconds_to_redact(unit, 400_000) < max(0.05, 24 * seconds_to_redact(unit, 50_000))


def test_a_megabyte_of_marked_records_is_redacted_within_a_second() -> None:
    document = {"people": [{"email": "ada@example.org", "age": n, "note": "n" * 40} for n in range(12_000)]}
    begun = time.thread_time()
    shown = redact(document, ["/people/*/email"])
    assert time.thread_time() - begun < 1.0
    assert {person["email"] for person in shown["people"]} == {REDACTED}
