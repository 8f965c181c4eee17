"""Mutants of pauses, maintenance, erasure and retention; part of the catalog."""

from __future__ import annotations

from typing import Final

from scripts.mutants.run import Mutant

_PAUSES: Final = "tests/conformance/coordinator/test_pauses.py"
_STOPPING: Final = "tests/stories/test_pauses.py"

KEEPING: Final = (
    Mutant(
        name="paused-runs-go-on",
        law="A paused tenant's run begins no new step",
        path="engine/coordinator.py",
        old="hold=hot.hold or paused)",
        new="hold=hot.hold)",
        test=_PAUSES,
        select="next_step and sqlite",
    ),
    Mutant(
        name="paused-runs-admitted",
        law="Who is paused is not offered a slot",
        path="engine/coordinator.py",
        old="                if isinstance(given, Admitted):\n",
        new="                if False:\n",
        test=_PAUSES,
        select="offered_by_another and sqlite",
    ),
    Mutant(
        name="deliveries-taken-under-maintenance",
        law="Under maintenance nothing is taken",
        path="consumers/resting.py",
        old="                await self._rest()\n                await self._drain()\n",
        new="                self._taking = False\n",
        test=_STOPPING,
        select="under_maintenance and embedded",
    ),
)
