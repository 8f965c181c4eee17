"""The shipped modules at work: tenancy, identity, billing, configuration, notifications, crm, audit.

Each is a service with tables of its own, started as a task of `unwind up` or as a process by `unwind serve-module
NAME`. They know the engine only through the bus. Made by the assembly; contracts are in `contracts.modules`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from consumers.modules import audit, billing, configuration, crm, identity, notifications, tenancy
from consumers.modules.settings import MailServer, ModuleSettings
from contracts.sdk import Service, Transport

__all__ = ["MAKERS", "MailServer", "ModuleSettings", "make_module", "shipped_modules"]

MAKERS: Final[Mapping[str, Callable[[Transport, ModuleSettings], Service]]] = {
    "tenancy": tenancy.make,
    "identity": identity.make,
    "billing": billing.make,
    "configuration": configuration.make,
    "notifications": notifications.make,
    "crm": crm.make,
    "audit": audit.make,
}


def make_module(name: str, transport: Transport, settings: ModuleSettings) -> Service:
    """One of them, not started. Raises ValueError naming those there are."""
    try:
        maker = MAKERS[name]
    except KeyError:
        raise ValueError(f"there is no shipped module {name!r}; choose one of {', '.join(MAKERS)}") from None
    return maker(transport, settings)


def shipped_modules(transport: Transport, settings: ModuleSettings) -> list[Service]:
    """All of them over one transport, not started. Start the transport first and stop it last: a service stops only
    the transport that it started.
    """
    return [maker(transport, settings) for maker in MAKERS.values()]
