"""What a new installation needs before it can keep a secret: the key ring file and the first admin token, each made
once, each in a 0600 file. It never makes a key ring for a database that already holds keys: that would lock the data
away. Called by `unwind up` and `unwind keys init`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from engine.guards.permissions import TokenCatalog, first_admin
from engine.settings import Settings
from engine.store.key_ring import KeyRing, KeyRingMissing, create_key_ring


class FirstRunCatalog(TokenCatalog, Protocol):
    async def root_ids(self) -> dict[str, int]: ...


@dataclass(frozen=True, slots=True)
class FirstRun:
    """The files that were made just now; None where one was there already."""

    key_file: Path | None
    admin_token_file: Path | None


async def first_run(settings: Settings, catalog: FirstRunCatalog, *, now: datetime) -> FirstRun:
    """Makes what is missing. Raises the key ring's refusals for a file that is there but unsafe or damaged, and
    `KeyRingMissing` when the file is gone although the database was sealed with one.
    """
    key_path = settings.key_path
    made: Path | None = None
    if key_path.exists():
        KeyRing.load(key_path)
    elif await catalog.root_ids():
        raise KeyRingMissing(
            f"key file {key_path} does not exist, and the database holds keys that only it can open; "
            "restore it from its backup",
            field="key_file",
        )
    else:
        create_key_ring(key_path)
        made = key_path
    return FirstRun(made, await first_admin(catalog, settings.admin_token_path, now=now))
