"""What tenancy says of a tenant is noted before it is taken: the later word holds, in whatever order they come, and
none is lost while the database is away.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consumers.intake import Intake
from contracts.envelope import Envelope
from contracts.modules import tenancy
from contracts.problems import Unavailable
from contracts.sdk import open_transport
from contracts.sdk.transport import EVENTS_EXCHANGE, Message, Published
from engine.bus.topology import engine_topology, queues
from tests.conformance.coordinating import Node, eventually

SAID = datetime(2026, 1, 1, tzinfo=UTC)


def fact(kind: str, state: str, revision: int, **more: Any) -> Message:
    data = {"tenant": "acme", "state": state, "revision": revision, "reason": "it mines coins", **more}
    envelope = Envelope(
        id=f"{kind}-{revision}",
        source=tenancy.MODULE.source,
        type=f"tenancy.{kind}",
        tenantid="acme",
        time=SAID,
        data=data,
    )
    return Message(EVENTS_EXCHANGE, envelope.type, envelope.to_json())


async def test_the_later_word_about_a_tenant_holds_and_none_is_lost(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = node.store
    real, away = store.note_standing, [True, True]

    async def now_and_then(*given: Any) -> bool:
        if away:
            away.pop()
            raise Unavailable("the database is away")
        return bool(await real(*given))

    monkeypatch.setattr(store, "note_standing", now_and_then)
    transport = open_transport(f"embedded://{tmp_path / 'bus.db'}", name="desk")
    await transport.start()
    await transport.declare(engine_topology(node.registry))
    intake = Intake(
        transport, queues.replies, store, node.vault, node.registry, node.plans, node.coordinator, node.clock,
        node.metrics, runs_in_decision=None,
    )  # fmt: skip
    await intake.start()

    async def says(state: str) -> None:
        async def so() -> bool:
            return bool(await store.standing("acme") == state)

        await eventually(so)

    try:
        assert await transport.publish([fact("TenantSuspendedV1", "Suspended", 4, cause="operator")]) == [
            Published.CONFIRMED
        ]
        await says("Suspended")
        assert away == []
        await transport.publish([fact("TenantReinstatedV1", "Active", 7)])
        await says("Active")
        late = fact("TenantSuspendedV1", "Suspended", 6, cause="operator")
        last = fact("TenantDecommissionedV1", "Decommissioned", 2**63 - 1, previous="Active")
        await transport.publish([late])
        source = tenancy.MODULE.source

        async def taken() -> bool:
            return await store.arrival("acme", source, "TenantSuspendedV1-6") is not None

        await eventually(taken)
        assert await store.standing("acme") == "Active"
        await transport.publish([last])
        await says("Decommissioned")
    finally:
        await intake.stop()
        await transport.stop()
