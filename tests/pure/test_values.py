"""Values: frozen for the type checker and in Python's development mode, quick to make otherwise."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime

from contracts.run_events import SleepStarted
from contracts.values import value

ASSIGNS = """
from contracts.run_events import RunAdmitted
from datetime import UTC, datetime
event = RunAdmitted(at=datetime.now(UTC))
event.at = None
"""


@value()
class Place:
    row: int
    seat: str = "a"


def test_values_are_equal_and_hashed_by_their_fields_and_hold_no_others() -> None:
    assert Place(1) == Place(1, "a") == replace(Place(2), row=1)
    assert hash(Place(1)) == hash(Place(1, "a"))
    assert not hasattr(Place(1), "__dict__")
    assert not hasattr(SleepStarted(at=datetime.now(UTC), name="nap", visit=1, due=datetime.now(UTC)), "__dict__")


def test_development_mode_refuses_to_change_a_value() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", ASSIGNS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert FrozenInstanceError.__name__ in done.stderr
