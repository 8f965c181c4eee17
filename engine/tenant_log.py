"""A tenant's own stream: acts and facts that belong to the tenant and to no run, one append each, and so entries of its
audit. What was done to the platform as a whole stands in the stream of `PLATFORM`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final
from uuid import uuid5

from contracts.envelope import Envelope
from contracts.manifest import EventModel
from contracts.notices import UNWIND
from contracts.problems import Unavailable
from contracts.run_events import RunEvent
from contracts.sdk.transport import EVENTS_EXCHANGE
from contracts.tenant_events import tenant_stream
from engine.clock import Clock
from engine.store import Appended, Commit, Duplicate, OutboxMessage, Stale, Store
from engine.store.keys import Vault
from engine.store.mapper import Mapper, seal_blob

MOST_TRIES: Final = 5
"""Others may write to the same stream at the same time; each lost race tells the version to go on from."""


class TenantLog:
    """Appends to the streams of tenants as process `epoch()`."""

    def __init__(self, store: Store, vault: Vault, mapper: Mapper, clock: Clock, *, epoch: Callable[[], int]) -> None:
        self._store, self._vault, self._mapper, self._clock, self._epoch = store, vault, mapper, clock, epoch
        self._versions: dict[str, int] = {}

    async def record(
        self,
        tenant: str,
        event: RunEvent,
        notice: EventModel | None = None,
        *,
        outbox: tuple[OutboxMessage, ...] = (),
        once: str | None = None,
    ) -> bool:
        """Records the event, and sends the notice and what is in `outbox` with it. False: under the key `once` that was
        done before, by whichever process. Raises `Unavailable` when nothing of it happened.
        """
        outcome: object = None
        for _ in range(MOST_TRIES):
            commit = await self._commit(tenant, event, notice, outbox)
            if once is not None:
                commit = replace(commit, input_keys=(once,))
            [outcome] = await self._store.append([commit], epoch=self._epoch(), now=self._clock.database_now())
            if isinstance(outcome, Appended):
                self._versions[tenant] = commit.expected + 1
                return True
            if isinstance(outcome, Duplicate):
                return False
            if not isinstance(outcome, Stale):
                break
            self._versions[tenant] = outcome.actual
        raise Unavailable(f"{event.TOPIC} is not recorded ({type(outcome).__name__}); ask again")

    async def _commit(
        self, tenant: str, event: RunEvent, notice: EventModel | None, outbox: tuple[OutboxMessage, ...]
    ) -> Commit:
        stream, expected = tenant_stream(tenant), self._versions.get(tenant, 0)
        keys = await self._vault.keys_for(tenant)
        if notice is not None:
            ident = str(uuid5(stream, str(expected + 1)))
            envelope = Envelope(
                id=ident,
                source=UNWIND.source,
                type=UNWIND.type_of(type(notice)),
                tenantid=tenant,
                time=event.at,
                data=notice.model_dump(mode="json"),
            )
            body = seal_blob(keys, "outbox", ident, envelope.to_json())
            outbox += (OutboxMessage(message_id=ident, exchange=EVENTS_EXCHANGE, routing_key=envelope.type, body=body),)
        return Commit(
            tenant=tenant,
            stream=stream,
            kind="tenant",
            expected=expected,
            events=(self._mapper.encode(keys, stream, expected + 1, event),),
            outbox=outbox,
        )
