"""What the shipped modules must be told, as plain values: the assembly fills it from the product's settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from contracts.sdk.database import Database, open_database


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """Where notifications go. `password` never prints."""

    host: str = "127.0.0.1"
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Literal["none", "starttls", "tls"] = "none"
    sender: str = "unwind@localhost"


class Outbound(Protocol):
    """Where a tenant's mails may go and how many it may send (`engine.guards.outbound`)."""

    async def rules(self, tenant: str) -> Any: ...

    async def permit(self, tenant: str, rules: Any, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSettings:
    """`database_url` None: one SQLite file per module in `data_dir`; a postgresql:// URL: one schema per module.
    `rehearsals` lets failures be scripted over the bus: demos and tests only. `link_base` heads the links in mails.
    `outbound` None: no tenant has rules for its mails.
    """

    data_dir: Path
    mail: MailServer
    outbound: Outbound | None = field(default=None, repr=False)
    database_url: str | None = field(default=None, repr=False)
    rehearsals: bool = False
    link_base: str = "http://127.0.0.1:8080"
    max_attempts: int = 5
    drain_seconds: float = 15.0
    relay_lease_seconds: float = 10.0

    def database(self, module: str) -> Database:
        """A database of the module's own, not yet opened."""
        if self.database_url is None:
            return open_database(f"sqlite://{(self.data_dir / 'modules' / f'{module}.sqlite').resolve()}")
        return open_database(f"{self.database_url}?schema=module_{module}")
