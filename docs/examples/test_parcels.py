from collections.abc import Iterator

from docs.examples.parcels import OrderedV1, parcels, shipping
from scripts.simulation.worlds import Chance, Ended, Sent, Worlds


def orders(chance: Chance) -> Iterator[Sent]:
    for number in range(3):
        yield Sent(OrderedV1(order_id=f"o-{number}", card=chance.pick(("full", "empty"))))


def the_shelf_holds_what_was_shipped(ended: Ended) -> None:
    held = sorted(row["order_id"] for row in ended.rows("parcels", "SELECT order_id FROM shelf"))
    shipped = sorted(run.data["order_id"] for run in ended.runs if run.status == "succeeded")
    assert held == shipped, f"the shelf holds {held}, shipped were {shipped}"


def test_an_order_is_shipped_with_both_or_with_neither(unwind_worlds: Worlds) -> None:
    unwind_worlds(sagas=[shipping], services=[parcels], events=orders, check=the_shelf_holds_what_was_shipped)
