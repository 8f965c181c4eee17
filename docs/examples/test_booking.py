from docs.examples.booking import booking
from engine.rehearsal import rehearse
from engine.simulate import Simulation, fails

TRIP = {"route": "HAM-LIS", "city": "Lisbon", "budget": 500}
GOOD = {
    "flights.book": {"id": "f-1", "price": 250},
    "hotels.book": {"id": "h-1", "price": 200},
    "payments.charge": {"id": "p-1"},
}


def test_a_trip_is_booked() -> None:
    sim = Simulation(booking, TRIP, actions=GOOD)
    assert (sim.status, sim.business_state, sim.output) == ("succeeded", "Booked", {"flight": "f-1", "hotel": "h-1"})


def test_a_refused_payment_cancels_flight_and_hotel() -> None:
    sim = Simulation(booking, TRIP, actions=GOOD | {"payments.charge": fails("card_declined")})
    assert (sim.status, sim.ledger_neutral) == ("compensated", True)


def test_nobody_approves_within_a_day() -> None:
    sim = Simulation(booking, TRIP | {"budget": 100}, actions=GOOD)
    sim.forward(hours=23)
    assert sim.status == "waiting"
    sim.forward(hours=1)
    assert (sim.status, sim.ledger_neutral) == ("compensated", True)


def test_whichever_step_fails_nothing_stays_booked() -> None:
    rehearsal = rehearse(booking, TRIP, actions=GOOD)
    assert rehearsal.neutral, str(rehearsal)
