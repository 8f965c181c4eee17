"""What a declaration adds to the embedded bus, on plain values."""

from __future__ import annotations

import pytest

from contracts.sdk.embedded_topology import StoredQueue, additions
from contracts.sdk.transport import Binding, Exchange, Queue, Topology, TopologyMismatch

EVENTS = Exchange(name="events", kind="topic")
WORK = Queue(name="work")


def test_a_part_that_is_named_twice_is_added_once() -> None:
    topology = Topology(
        exchanges=(EVENTS, EVENTS), queues=(WORK, WORK), bindings=(Binding(queue="work", exchange="events", key="#"),)
    )
    assert additions(topology, {}, {}, session=1) == ([EVENTS], [WORK])


def test_what_is_there_already_is_not_added() -> None:
    topology = Topology(exchanges=(EVENTS,), queues=(WORK,))
    assert additions(topology, {"events": EVENTS}, {"work": StoredQueue(1, WORK, None)}, session=1) == ([], [])


def test_the_reply_queue_of_another_session_is_refused() -> None:
    mine = Queue(name="replies", transient=True)
    with pytest.raises(TopologyMismatch, match="reply queue of another process"):
        additions(Topology(queues=(mine,)), {}, {"replies": StoredQueue(1, mine, 2)}, session=1)


def test_two_exchanges_of_one_name_in_one_declaration_are_refused() -> None:
    with pytest.raises(TopologyMismatch, match="exchange events exists as topic"):
        additions(Topology(exchanges=(EVENTS, Exchange(name="events", kind="direct"))), {}, {}, session=1)
