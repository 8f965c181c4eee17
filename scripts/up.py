"""`unwind up`: the whole product in one process over one folder. Makes the key file and the first token when they are
missing, starts the modules and the engine, says where to look, and serves until a signal."""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from consumers.assembly import Assembly
from consumers.module_host import ModuleHost
from engine.clock import SystemClock
from engine.guards.first_run import FirstRun, first_run
from engine.guards.token_changes import TokenChanges
from engine.logs import configure
from engine.settings import bus_url, load
from scripts.answer import Answer
from scripts.border import people
from scripts.opening import local_user, opened_store
from scripts.residence import Residence, residence

if TYPE_CHECKING:
    from engine.settings import Settings


async def run(*, demo: bool, once: bool, modules: str, port: int) -> Answer:
    """Serves until SIGTERM or SIGINT; with `once`, until it is ready and the demo, if asked for, has ended."""
    overrides: dict[str, Any] = {"rehearsals": True} if demo else {}
    if modules:
        overrides["modules"] = modules
    settings = load(**overrides)
    if port >= 0:
        settings = settings.model_copy(update={"http": settings.http.model_copy(update={"port": port})})
    # Lines for people go to standard output, the log to standard error, so that either can be kept.
    configure(
        format="console" if sys.stderr.isatty() else settings.log.format, level=settings.log.level, stream=sys.stderr
    )
    story: list[Any] = []
    with residence(settings.data_dir) as home:
        async with opened_store(
            settings, migrate=settings.migrate, wait_seconds=settings.timeouts.start_seconds
        ) as store:
            changes = TokenChanges(store, settings.key_path, SystemClock(), by=local_user())
            made = await first_run(settings, changes, now=datetime.now(UTC))
        host = ModuleHost(settings, bus_url=bus_url(settings))

        async def started(assembly: Assembly) -> None:
            await assembly.ready()
            assert assembly.url is not None
            home.announce(assembly.url)
            _say(settings, assembly.url, made, host, home)
            if demo:
                from scripts.demo import play

                story.append(await play(assembly.url, settings.admin_token_path.read_text().strip(), people()))
            if once:
                os.kill(os.getpid(), signal.SIGTERM)

        try:
            await host.start()
            await Assembly(settings).run_until_signal(started=started)
        finally:
            await host.stop()
    document = {"data_dir": str(settings.data_dir), "demo": story[0] if story else None}
    return Answer(document, "Stopped; everything is kept in " + str(settings.data_dir.absolute()))


def _say(settings: Settings, url: str, made: FirstRun, host: ModuleHost, home: Residence) -> None:
    lines = [f"Unwind is ready at {url}"]
    if made.key_file is not None:
        lines.append(f"  keys         {settings.key_path}  (new; back it up apart from the database)")
    lines.append(f"  admin token  {settings.admin_token_path}{'  (new)' if made.admin_token_file is not None else ''}")
    lines.append(f"  data         {home.folder.absolute() if settings.database_url is None else 'PostgreSQL'}")
    if host.sink is not None:
        lines.append(f"  mail         caught, one file each, in {(settings.data_dir / 'mail').absolute()}")
    lines.append("  try          unwind runs list · unwind runs explain RUN · curl " + url + "/metrics")
    print("\n".join(lines), file=people(), flush=True)
