"""The one place at which this process kills itself with SIGKILL, and how often it is passed before.

append-before, append-after     around a store append that carries a commit of a run
publish-before, publish-after   around the relay handing anything to the bus
command-before, command-after   the same, when a command is among it; the outbox row is deleted after both
ack-before                      after the commit, before a delivery is acknowledged
effect, undo                    inside an effect, or inside its undo, after it has happened
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Any

from consumers.assembly import Assembly
from contracts.sdk.transport import COMMANDS_EXCHANGE

MOMENT_SECONDS = 0.3


class _Countdown:
    place = ""
    left = 0


_COUNTDOWN = _Countdown()


def die_at(place: str) -> None:
    """`append-before:2`: at the second time. An empty name: never."""
    _COUNTDOWN.place, _, count = place.partition(":")
    _COUNTDOWN.left = int(count or 1)


def reached(place: str) -> None:
    if _comes(place):
        os.kill(os.getpid(), signal.SIGKILL)


def _comes(place: str) -> bool:
    if place != _COUNTDOWN.place:
        return False
    _COUNTDOWN.left -= 1
    return _COUNTDOWN.left == 0


def watch(assembly: Assembly) -> None:
    """Puts the places around the calls they name; nothing else of the assembly is touched."""
    store, transport = assembly.process.store, assembly.process.transport
    append, publish, consume = store.append, transport.publish, transport.consume

    async def appending(commits: Sequence[Any], **given: Any) -> Any:
        of_a_run = any(commit.stream is not None for commit in commits)
        if of_a_run and _comes("append-before"):
            await asyncio.sleep(MOMENT_SECONDS)
            os.kill(os.getpid(), signal.SIGKILL)
        outcomes = await append(commits, **given)
        if of_a_run:
            reached("append-after")
        return outcomes

    async def publishing(messages: Sequence[Any], **given: Any) -> Any:
        command = any(message.exchange == COMMANDS_EXCHANGE for message in messages)
        reached("publish-before")
        if command:
            reached("command-before")
        answers = await publish(messages, **given)
        reached("publish-after")
        if command:
            reached("command-after")
        return answers

    async def consuming(queue: str, on_delivery: Any, **given: Any) -> Any:
        consumer = await consume(queue, on_delivery, **given)
        ack = consumer.ack

        def acking(deliveries: Sequence[Any]) -> None:
            if deliveries:
                reached("ack-before")
            ack(deliveries)

        consumer.ack = acking  # type: ignore[method-assign]
        return consumer

    store.append = appending  # type: ignore[method-assign]
    transport.publish = publishing  # type: ignore[method-assign]
    transport.consume = consuming  # type: ignore[method-assign]
