"""The shipped modules at work: tenancy, identity, billing, configuration, notifications, crm, audit.

Each is a service with tables of its own, started as a task of `unwind up` or as a process by `unwind serve-module
NAME` (`consumers.module_host`). They know the engine only through the bus. Contracts are in `contracts.modules`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

from consumers.modules.settings import MailServer, ModuleSettings
from contracts.sdk import Service, Transport

__all__ = ["NAMES", "MailServer", "ModuleSettings", "make_module", "shipped_modules"]

NAMES: Final = ("tenancy", "identity", "billing", "configuration", "notifications", "crm", "audit")
"""In the order a tenant meets them. Each names a submodule with `make(transport, settings)`."""


def make_module(name: str, transport: Transport, settings: ModuleSettings) -> Service:
    """One of them, not started. Raises ValueError naming those there are."""
    if name not in NAMES:
        raise ValueError(f"there is no shipped module {name!r}; choose one of {', '.join(NAMES)}")
    # A process of one module loads what that one needs: only notifications needs an HTTP and mail client.
    service: Service = import_module(f"{__name__}.{name}").make(transport, settings)
    return service


def shipped_modules(transport: Transport, settings: ModuleSettings) -> list[Service]:
    """All of them over one transport, not started. Start the transport first and stop it last: a service stops only
    the transport that it started.
    """
    return [make_module(name, transport, settings) for name in NAMES]
