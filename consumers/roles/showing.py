"""A process that writes the read models, and tells in its log how far the audit of each tenant has come."""

from __future__ import annotations

from consumers.heads import Heads
from consumers.parts import Parts
from consumers.process import Process
from consumers.projector import VIEWS, Projector


async def start_showing(process: Process, parts: Parts) -> Projector:
    """Begins both; answers the one that knows whether a view has stopped."""
    projector = Projector(
        process.store,
        process.vault,
        process.mapper,
        VIEWS,
        process.clock,
        process.metrics,
        accounts=process.accounts,
    )
    heads = Heads(process.store, seconds=process.settings.audit.head_seconds)
    await parts.begin(projector, heads)
    return projector
