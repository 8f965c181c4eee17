"""A process that sends: the relay publishes on the bus what commits left in the outbox, the notifier delivers to the
outlets of tenants, outside.
"""

from __future__ import annotations

from consumers.notifier import Notifier
from consumers.parts import Parts
from consumers.process import Process
from consumers.relay import Relay


async def start_sending(process: Process, parts: Parts) -> None:
    """Begins both."""
    outlets = process.door.outlets
    relay = Relay(
        process.store,
        process.vault,
        process.transport,
        process.epoch,
        process.clock,
        process.metrics,
        batch=process.settings.limits.outbox_batch,
        deadline_seconds=process.settings.timeouts.publish_seconds,
        tracing=process.tracing,
        outlets=outlets,
    )

    def renewed(epoch: int) -> None:
        relay.epoch = epoch

    process.renewed = renewed
    notifier = Notifier(process.store, outlets, process.egress, process.clock, process.metrics)
    outlets.on_due = notifier.wake
    await parts.begin(notifier)
    process.coordinator.wrote_outbox = relay.wake
    process.door.on_outbox = relay.wake
    await parts.begin(relay)
