"""The `Journal` port, once for both drivers: arrivals, start keys, outcomes and dead letters. Arrivals are written by
`append` alone; here they are read, annotated and pruned."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

import orjson

from engine.store import ARRIVALS_AT_ONCE, DeadLetter, Journaled, PastArrival, Pending
from engine.store import rows as read
from engine.store.statements import Caller


class JournalVerbs(Caller):
    """See `engine.store.Journal`; docstrings are there."""

    async def arrival(self, tenant: str, source: str, event_id: str) -> bytes | None:
        found = await self.call("arrival", tenant=tenant, source=source, event_id=event_id)
        return found[0]["body"] if found else None

    async def started(self, tenant: str, start_key: str) -> UUID | None:
        found = await self.call("started", tenant=tenant, start_key=start_key)
        return read.uuid(found[0]["run_id"]) if found and found[0]["run_id"] is not None else None

    async def past_arrivals(
        self,
        tenant: str,
        types: Sequence[str],
        *,
        since: datetime,
        until: datetime,
        after: int = 0,
        limit: int = 500,
        most: int = ARRIVALS_AT_ONCE,
    ) -> list[PastArrival]:
        meant = {"tenant": tenant, "types": ",".join(types), "since": since, "until": until, "most": most}
        after = after or await self._arrival_before(since)
        page: list[PastArrival] = []
        whole = False
        while not whole and len(page) < limit:
            found = await self.call("past_arrivals", **meant, after=after, limit=limit - len(page))
            after, whole = found[0]["upto"], found[0]["whole"]
            page += [
                PastArrival(row["id"], row["source"], row["event_id"], row["type"])
                for row in found
                if row["id"] is not None
            ]
        return page

    async def count_past_arrivals(
        self, tenant: str, types: Sequence[str], *, since: datetime, until: datetime, most: int = ARRIVALS_AT_ONCE
    ) -> int:
        meant = {"tenant": tenant, "types": ",".join(types), "since": since, "until": until, "most": most}
        found, after, whole = 0, await self._arrival_before(since), False
        while not whole:
            [row] = await self.call("count_past_arrivals", **meant, after=after)
            found, after, whole = found + row["found"], row["upto"], row["whole"]
        return found

    async def _arrival_before(self, at: datetime) -> int:
        [row] = await self.call("arrival_before", at=at)
        return int(row["id"])

    async def record_outcome(self, tenant: str, source: str, event_id: str, outcome: str) -> None:
        await self.call("record_outcome", tenant=tenant, source=source, event_id=event_id, outcome=outcome, now=None)

    async def outcomes(self, tenant: str, source: str, event_id: str) -> list[str]:
        """What became of an arrival, oldest first."""
        found = await self.call("outcomes", tenant=tenant, source=source, event_id=event_id)
        return [row["outcome"] for row in found]

    async def journaled(self, tenant: str, source: str, event_id: str) -> Journaled | None:
        found = await self.call("journaled", tenant=tenant, source=source, event_id=event_id)
        if not found:
            return None
        pending = await self.call("pending_inputs", tenant=tenant, source=source, event_id=event_id)
        return Journaled(
            type=found[0]["type"],
            received_at=read.instant(found[0]["received_at"]),
            causation_id=found[0]["causation_id"],
            body=bytes(found[0]["body"]),
            outcomes=tuple(await self.outcomes(tenant, source, event_id)),
            pending=tuple(
                Pending(
                    row["kind"],
                    None if row["run_id"] is None else read.uuid(row["run_id"]),
                    row["workflow"],
                    row["name"],
                    row["visit"],
                )
                for row in pending
            ),
        )

    async def prune_journal(self, *, before: datetime, limit: int = 1000) -> int:
        """Forgets a slice of arrivals received before that moment, inbox rows and keys with them; answers how many.
        Pending inputs keep theirs."""
        return len(await self.call("prune_journal", before=before, limit=limit))

    async def forget_subject(self, tenant: str, frame: bytes, *, most: int = ARRIVALS_AT_ONCE) -> int:
        found, source, event_id, whole = 0, "", "", False
        while not whole:
            given = {"tenant": tenant, "frame": frame, "source": source, "event_id": event_id, "limit": most}
            [row] = await self.call("forget_subject", **given)
            found, source, event_id, whole = found + row["found"], row["source"], row["event_id"], row["whole"]
        return found

    async def bury(self, letter: DeadLetter) -> bool:
        found = await self.call(
            "bury",
            id=letter.id,
            tenant=letter.tenant,
            reason=letter.reason,
            detail=letter.detail,
            source=letter.source,
            routing_key=letter.routing_key,
            event_id=letter.event_id,
            type=letter.type,
            attempts=orjson.dumps(list(letter.attempts)).decode(),
            envelope=letter.envelope,
            headers=orjson.dumps(dict(letter.headers), default=str).decode(),
            state=letter.state,
            created_at=letter.created_at,
            settled_at=letter.settled_at,
            settled_by=letter.settled_by,
        )
        return bool(found)

    async def dead_letters(
        self, *, tenant: str | None, state: str | None = "dead", limit: int = 100, after: UUID | None = None
    ) -> list[DeadLetter]:
        found = await self.call("dead_letters", tenant=tenant, state=state, after=after, limit=limit)
        return [read.dead_letter(row) for row in found]

    async def dead_letter(self, tenant: str | None, letter_id: UUID) -> DeadLetter | None:
        found = await self.call("dead_letter", tenant=tenant, id=letter_id)
        return read.dead_letter(found[0]) if found else None

    async def dead_letters_of(self, tenant: str, event_id: str, *, limit: int = 10) -> list[DeadLetter]:
        found = await self.call("dead_letters_of", tenant=tenant, event_id=event_id, limit=limit)
        return [read.dead_letter(row) for row in found]

    async def settle_dead_letter(
        self, letter_id: UUID, *, state: Literal["redriven", "discarded"], by: str, now: datetime | None = None
    ) -> bool:
        return bool(await self.call("settle_dead_letter", id=letter_id, state=state, by=by, now=now))
