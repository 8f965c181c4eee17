"""What was begun is stopped in the reverse order, also when the next one could not be; who died is said."""

from __future__ import annotations

import pytest

from consumers.parts import Parts


class Piece:
    def __init__(self, name: str, told: list[str], *, broken: bool = False) -> None:
        self._name, self._told, self._broken = name, told, broken
        self.error: BaseException | None = None

    async def start(self) -> None:
        if self._broken:
            raise OSError(self._name)
        self._told.append(f"+{self._name}")

    async def stop(self) -> None:
        self._told.append(f"-{self._name}")

    def failed(self) -> BaseException | None:
        return self.error


async def test_the_last_begun_is_stopped_first_and_one_may_ask_to_be_the_last() -> None:
    told: list[str] = []
    parts = Parts()
    await parts.begin(Piece("store", told), Piece("bus", told))
    await parts.begin(Piece("counts", told), stopped_last=True)
    parts.keep(Piece("web", told))
    await parts.stop()
    assert told == ["+store", "+bus", "+counts", "-web", "-bus", "-store", "-counts"]


async def test_what_was_begun_before_one_that_could_not_be_is_stopped() -> None:
    told: list[str] = []
    parts = Parts()
    with pytest.raises(OSError, match="bus"):
        await parts.begin(Piece("store", told), Piece("bus", told, broken=True), Piece("web", told))
    await parts.stop()
    assert told == ["+store", "-store"]


async def test_the_first_that_died_is_named() -> None:
    pieces = [Piece(name, []) for name in ("store", "bus")]
    parts = Parts()
    await parts.begin(*pieces)
    assert parts.failure() is None
    pieces[1].error = OSError("gone")
    assert parts.failure() is pieces[1].error
