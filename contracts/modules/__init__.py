"""The contracts of the modules that ship with Unwind, one file each, each ending in its `MODULE`.

They are read by the registry, by the modules themselves (`consumers.modules`) and by whoever writes a saga over them.
Nothing here runs.
"""

from __future__ import annotations

from contracts.manifest import Module
from contracts.modules import audit, billing, configuration, crm, identity, notifications, tenancy

SHIPPED: tuple[Module, ...] = (
    tenancy.MODULE,
    identity.MODULE,
    billing.MODULE,
    configuration.MODULE,
    notifications.MODULE,
    crm.MODULE,
    audit.MODULE,
)
"""In the order a tenant meets them."""
