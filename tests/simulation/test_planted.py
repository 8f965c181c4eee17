"""A simulation that finds no planted bug proves nothing: each of ten is found, mostly within a few worlds."""

from __future__ import annotations

import pytest

from scripts.simulation.world import quiet, run_seed
from tests.simulation.planted import PLANTED

AT_MOST = 1_000


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name: str) -> None:
    with quiet():
        for seed in range(AT_MOST):
            told = run_seed(seed, planted=PLANTED[name])
            if told.violation is not None:
                print(f"{name}: seed {seed}: {told.violation}")
                return
    raise AssertionError(f"{name} was not found in {AT_MOST} worlds")
