"""The pytest plug-in: the fixture `unwind_worlds` plays sagas of one's own in simulated worlds (docs/simulation.md).
It is loaded by every pytest of an environment with the wheel, so it imports nothing of the engine before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from scripts.simulation.worlds import Worlds

SEEDS = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("unwind", "simulated worlds of Unwind sagas")
    group.addoption(
        "--unwind-seeds", type=int, default=SEEDS, metavar="N", help=f"worlds to play in each test (default: {SEEDS})"
    )
    group.addoption(
        "--unwind-seed", type=int, default=None, metavar="S", help="play this one world, and tell its faults (with -s)"
    )


@pytest.fixture
def unwind_worlds(request: pytest.FixtureRequest) -> Worlds:
    """Plays sagas in worlds whose processes are killed at every await; see `scripts.simulation.worlds.Worlds`."""
    try:
        from scripts.simulation.worlds import Worlds
    except ImportError as error:
        raise ImportError(
            "unwind_worlds needs the packages of unwind-saga, and another of the same name (scripts, consumers, "
            "projections, engine or contracts) was found first; call unwind_saga.use_floors() at the top of conftest.py"
        ) from error
    return Worlds(
        request.config.getoption("unwind_seeds"), request.config.getoption("unwind_seed"), request.node.nodeid
    )
