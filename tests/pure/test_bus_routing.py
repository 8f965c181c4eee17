"""Which queues a message reaches on the embedded bus."""

from __future__ import annotations

import doctest
from itertools import product

import pytest

from contracts.sdk import routing
from contracts.sdk.routing import Routes, topic_matches
from contracts.sdk.transport import Exchange

WORDS = ("a", "b", "")


def by_definition(pattern: list[str], key: list[str]) -> bool:
    """What the AMQP specification says, word for word, however slow."""
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(by_definition(pattern[1:], key[i:]) for i in range(len(key) + 1))
    return bool(key) and pattern[0] in ("*", key[0]) and by_definition(pattern[1:], key[1:])


def test_topic_patterns_match_as_the_specification_defines_them() -> None:
    keys = [list(k) for n in range(1, 4) for k in product(WORDS, repeat=n)]
    patterns = [list(p) for n in range(1, 4) for p in product((*WORDS, "*", "#"), repeat=n)]
    for pattern, key in product(patterns, keys):
        assert topic_matches(".".join(pattern), ".".join(key)) is by_definition(pattern, key), (pattern, key)


def test_many_hashes_take_no_exponential_time() -> None:
    assert not topic_matches(".".join(["#", "a"] * 40 + ["z"]), ".".join(["a"] * 60))


@pytest.fixture
def routes() -> Routes:
    return Routes(
        exchanges={
            "events": Exchange(name="events", alternate="unrouted"),
            "unrouted": Exchange(name="unrouted", kind="fanout"),
            "exact": Exchange(name="exact", kind="direct"),
            "a": Exchange(name="a", alternate="b"),
            "b": Exchange(name="b", alternate="a"),
            "lost": Exchange(name="lost", alternate="nowhere"),
        },
        queues={"one": 1, "two": 2, "three": 3},
        bindings={
            "events": (("billing.*", 2), ("#.PaidV1", 2), ("billing.PaidV1", 1)),
            "unrouted": (("ignored", 3),),
            "exact": (("k", 1), ("#", 2)),
        },
    )


@pytest.mark.parametrize(
    ("exchange", "key", "queues"),
    [
        ("events", "billing.PaidV1", (1, 2)),
        ("events", "crm.LostV1", (3,)),
        ("exact", "k", (1,)),
        ("exact", "anything", ()),
        ("", "two", (2,)),
        ("", "four", ()),
        ("nowhere", "k", ()),
        ("lost", "k", ()),
        ("a", "k", ()),
    ],
    ids=[
        "each queue once",
        "alternate",
        "direct",
        "direct, no pattern",
        "by name",
        "no such queue",
        "no such exchange",
        "alternate missing",
        "alternates in a circle",
    ],
)
def test_a_message_reaches(routes: Routes, exchange: str, key: str, queues: tuple[int, ...]) -> None:
    assert routes.targets(exchange, key) == queues
    assert routes.targets(exchange, key) == queues  # and again, from memory


def test_the_example_holds() -> None:
    assert doctest.testmod(routing).failed == 0
