"""Waiting at a growing pace for something that is away: a database, a bus. Never busy, never longer than a ceiling."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(slots=True)
class Pace:
    first_seconds: float = 0.1
    ceiling_seconds: float = 5.0
    pauses: int = 0

    async def pause(self) -> None:
        seconds = min(self.ceiling_seconds, self.first_seconds * 2.0 ** min(self.pauses, 16))
        self.pauses += 1
        await asyncio.sleep(seconds)
