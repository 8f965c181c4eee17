"""The examples that the README shows are run as they stand."""

from __future__ import annotations

from pathlib import Path

from docs.examples.test_booking import (
    test_a_refused_payment_cancels_flight_and_hotel,
    test_a_trip_is_booked,
    test_nobody_approves_within_a_day,
    test_whichever_step_fails_nothing_stays_booked,
)

__all__ = [
    "test_a_refused_payment_cancels_flight_and_hotel",
    "test_a_trip_is_booked",
    "test_nobody_approves_within_a_day",
    "test_whichever_step_fails_nothing_stays_booked",
]

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


def test_a_saga_with_undo_steps_takes_about_twenty_lines() -> None:
    source = (EXAMPLES / "booking.py").read_text(encoding="utf-8")
    declared = source[source.index("@saga") :].strip().splitlines()
    assert len(declared) <= 20
