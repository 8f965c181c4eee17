"""Passwords: which may be chosen, what is kept, what proves one, and that few are worked on at once."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from contracts.problems import PayloadInvalid, Unavailable
from engine.guards import passwords
from engine.guards.passwords import COMMON, FEWEST_KINDS, LONGEST_BYTES, SHORTEST, Passwords, check_new, is_stale

GOOD = "violet harbour lamp"


@pytest.fixture
async def keeper() -> AsyncIterator[Passwords]:
    keeper = Passwords()
    yield keeper
    keeper.stop()
    keeper.stop()


@pytest.mark.parametrize(
    "password",
    [
        "x" * (SHORTEST - 1),
        "v1olet-lamp",
        "violet lamp " + "y" * LONGEST_BYTES,
        "é" * (LONGEST_BYTES // 2) + "violet",
        "abababababab",
        "Password1234",
        "PASSWORDPASSWORD",
        "correct horse battery staple",
        "violet\x00harbour lamp",
        "my unwind harbour",
        "of Ann.Marie harbour",
    ],
)
def test_what_nobody_should_choose_is_refused(password: str) -> None:
    with pytest.raises(PayloadInvalid) as refused:
        check_new(password, email="ann.marie@example.org")
    assert refused.value.field == "password"
    assert password not in refused.value.detail


def test_a_long_one_is_taken_whatever_kinds_of_characters_it_has() -> None:
    for password in (GOOD, "violetharbour", "π ρ σ τ υ φ χ ψ", "x" * 250 + "-vwyz", "of bob harbour lamp"):
        check_new(password, email="bob@example.org")


def test_the_list_holds_only_what_would_be_long_enough() -> None:
    assert [one for one in COMMON if len(one) < SHORTEST or one != one.casefold()] == []
    assert FEWEST_KINDS < SHORTEST


async def test_a_password_is_proven_by_its_own_hash_alone(keeper: Passwords) -> None:
    kept = await keeper.hashed(GOOD)
    assert kept.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert GOOD not in kept
    assert kept != await keeper.hashed(GOOD)
    assert await keeper.proves(GOOD, kept)
    for wrong in (GOOD + "x", GOOD.upper(), "", "\ud800"):
        assert not await keeper.proves(wrong, kept)
    for broken in ("", "plain", "$argon2id$v=19$m=19456,t=2,p=1$AA$AA"):
        assert not await keeper.proves(GOOD, broken)


async def test_what_looks_the_same_is_the_same(keeper: Passwords) -> None:
    whole, apart = "fenêtre à côté", unicodedata.normalize("NFD", "fenêtre à côté")
    assert whole != apart
    assert await keeper.proves(apart, await keeper.hashed(whole))


async def test_who_has_no_password_takes_the_same_work_and_proves_nothing(
    keeper: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = passwords._verify, []

    def counted(password: str, kept: str) -> bool:
        asked.append(kept)
        return real(password, kept)

    monkeypatch.setattr(passwords, "_verify", counted)
    assert not await keeper.proves(GOOD, None)
    assert not await keeper.proves("", None)
    [first, second] = asked
    assert first == second
    assert not is_stale(first)


def test_a_hash_of_weaker_parameters_is_stale() -> None:
    def made(memory: int, passes: int) -> str:
        kdf = Argon2id(salt=b"s" * 16, length=32, iterations=passes, lanes=1, memory_cost=memory)
        return kdf.derive_phc_encoded(b"x")

    assert is_stale(made(8_192, 2))
    assert is_stale(made(19_456, 1))
    assert is_stale("$argon2i$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA")
    assert not is_stale(made(19_456, 2))
    assert not is_stale(made(32_768, 3))


async def test_few_are_worked_on_at_once_and_too_many_are_told_to_come_again() -> None:
    keeper = Passwords(at_once=1, most_waiting=1)
    kept = await keeper.hashed(GOOD)
    answers = await asyncio.gather(*(keeper.proves(GOOD, kept) for _ in range(5)), return_exceptions=True)
    assert [answer for answer in answers if answer is True] == [True, True]
    assert [type(answer) for answer in answers if answer is not True] == [Unavailable] * 3
    assert await keeper.proves(GOOD, kept)
    keeper.stop()
