"""`unwind keys ...`: the key ring file and the data keys it wraps. Works on the file and the store themselves, since
an engine cannot start without them.

A root key is replaced in four steps, each safe to repeat: `rotate-root` (a new root key wraps what comes), restart
every process, `rewrap` (the new root key wraps what is there), `retire` (the old one leaves the file). Each is an entry
of the platform's audit; of a change to the file it is made before, so that none is made in secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from scripts.answer import Answer, progress, stacked, table
from scripts.border import verb

if TYPE_CHECKING:
    from contracts.run_events import RunEvent
    from engine.settings import Settings
    from engine.store import Store
    from engine.store.key_ring import KeyRing

app = typer.Typer(no_args_is_help=True, help="The key ring file and the data keys it wraps.")

BACK_UP = "Back up the key file apart from the database: without it nothing opens."


@verb(app, "init")
async def init() -> Answer:
    """Make the key ring file and the first admin token, each in a 0600 file."""
    from datetime import UTC, datetime

    from engine.clock import SystemClock
    from engine.guards.first_run import first_run
    from engine.guards.token_changes import TokenChanges
    from engine.settings import load
    from scripts.opening import local_user, opened_store

    settings = load()
    async with opened_store(settings, migrate=settings.migrate) as store:
        changes = TokenChanges(store, settings.key_path, SystemClock(), by=local_user())
        made = await first_run(settings, changes, now=datetime.now(UTC))
    document = {
        "key_file": str(settings.key_path),
        "key_file_made": made.key_file is not None,
        "admin_token_file": str(settings.admin_token_path),
        "admin_token_made": made.admin_token_file is not None,
    }
    lines = [
        f"{settings.key_path}: {'made' if made.key_file else 'was there already'}",
        f"{settings.admin_token_path}: {'made' if made.admin_token_file else 'not made, a platform token exists'}",
        BACK_UP,
    ]
    return Answer(document, "\n".join(lines))


@verb(app, "list")
async def list_roots() -> Answer:
    """The root keys: how many data keys each wraps, whether the file holds it, which is current."""
    from engine.settings import load
    from scripts.opening import opened_store

    settings = load()
    async with opened_store(settings) as store:
        rows = await _roots(settings, store)
    return _shown(rows)


@verb(app, "rotate-root")
async def rotate_root() -> Answer:
    """Add a new root key to the file and make it current. Restart every process, then `unwind keys rewrap`."""
    from datetime import UTC, datetime

    from contracts.tenant_events import RootKeyRotated
    from engine.settings import load
    from engine.store.key_ring import KeyRing
    from scripts.opening import local_user, must_be_alone, opened_store

    settings = load()
    must_be_alone(settings, "rotating the root key")
    before = KeyRing.load(settings.key_path)
    ring = before.with_new_root()
    async with opened_store(settings) as store:
        event = RootKeyRotated(at=datetime.now(UTC), root_id=ring.current, replaces=before.current, by=local_user())
        await _record(store, before, event)
        ring.save(settings.key_path)
        rows = await _roots(settings, store)
    return _shown(
        rows, f"Root key {ring.current} is current. {BACK_UP} Restart every process, then run `unwind keys rewrap`."
    )


@verb(app, "rewrap")
async def rewrap() -> Answer:
    """Wrap every data key under the current root key; no body is touched. May be stopped and started again."""
    from datetime import UTC, datetime

    from contracts.tenant_events import DataKeysRewrapped
    from engine.settings import load
    from engine.store.key_ring import KeyRing
    from engine.store.keys import Vault
    from scripts.opening import local_user, must_be_alone, opened_store

    settings = load()
    must_be_alone(settings, "rewrapping")
    async with opened_store(settings) as store:
        ring = KeyRing.load(settings.key_path)
        vault = Vault(store, ring)
        await vault.start()
        with progress("data keys"):
            done = await vault.rewrap()
        event = DataKeysRewrapped(at=datetime.now(UTC), root_id=ring.current, keys=done, by=local_user())
        await _record(store, ring, event)
        rows = await _roots(settings, store)
    return _shown(rows, f"{done} data keys were wrapped anew.", rewrapped=done)


@verb(app, "retire")
async def retire(root_id: str = typer.Argument(help="The root key to take out of the file.")) -> Answer:
    """Take an old root key out of the file. Refused while it wraps anything or is current."""
    from datetime import UTC, datetime

    from contracts.problems import Conflict, NotFound
    from contracts.tenant_events import RootKeyRetired
    from engine.settings import load
    from engine.store.key_ring import KeyRing
    from scripts.opening import local_user, must_be_alone, opened_store

    settings = load()
    must_be_alone(settings, "retiring a root key")
    ring = KeyRing.load(settings.key_path)
    if root_id not in ring.ids:
        raise NotFound(f"the file holds no root key {root_id}; it holds {', '.join(sorted(ring.ids))}", field="ROOT_ID")
    if root_id == ring.current:
        raise Conflict(f"root key {root_id} is current; `unwind keys rotate-root` first", field="ROOT_ID")
    async with opened_store(settings) as store:
        wraps = (await store.root_ids()).get(root_id, 0)
        if wraps:
            raise Conflict(
                f"root key {root_id} still wraps {wraps} data keys; `unwind keys rewrap` first", field="ROOT_ID"
            )
        await _record(store, ring, RootKeyRetired(at=datetime.now(UTC), root_id=root_id, by=local_user()))
        ring.without(root_id).save(settings.key_path)
        rows = await _roots(settings, store)
    return _shown(rows, f"Root key {root_id} left the file. Keep its backup as long as database backups from its time.")


async def _record(store: Store, ring: KeyRing, event: RunEvent) -> None:
    from contracts.tenant_events import PLATFORM
    from engine.brief_log import brief_log
    from engine.clock import SystemClock

    async with brief_log(store, ring, SystemClock(), "keys") as log:
        await log.record(PLATFORM, event)


async def _roots(settings: Settings, store: Store) -> list[dict[str, Any]]:
    from engine.store.key_ring import KeyRing
    from engine.store.keys import describe_root_ids

    return describe_root_ids(await store.root_ids(), KeyRing.load(settings.key_path))


def _shown(rows: list[dict[str, Any]], note: str = "", **more: object) -> Answer:
    columns = tuple(rows[0]) if rows else ("root_id",)
    shown = table([column.replace("_", " ").upper() for column in columns], [tuple(row.values()) for row in rows])
    document: dict[str, object] = {"root_keys": rows, **more}
    return Answer(document, stacked(shown, f"\n{note}") if note else shown)
