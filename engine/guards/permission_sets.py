"""The permissions that a run was triggered with, kept once per set: a run's trigger names a set by its hash, and every
process that meets it reads the set once.

    who triggers ── intern ──► "*": permissions/<hash> = the sorted list      run.started: trigger.permissions = <hash>
                                            └──────── of ──────► worker, API

A set never changes, so it may be remembered for as long as a process lives. One that is missing, or that does not have
the hash it is kept under, permits nothing. Called by the door, the worker and the API.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from contracts.calls import ActionSpec
from engine.guards.permissions import ALL_PERMISSIONS, Principal

EVERYWHERE: Final = "*"
"""The tenant under which what holds for all of them is kept."""

SETTING: Final = "permissions/"


class SettingsCatalog(Protocol):
    async def setting(self, tenant: str, name: str) -> Any: ...

    async def put_setting(self, tenant: str, name: str, value: Any) -> None: ...


class PermissionSets:
    """One per process and purpose."""

    def __init__(self, catalog: SettingsCatalog) -> None:
        self._catalog = catalog
        self._known: dict[str, frozenset[str]] = {}

    async def intern(self, permissions: Iterable[str]) -> str:
        """The hash of this set, under which it is kept from now on."""
        held = frozenset(permissions)
        name = hash_of(held)
        if name not in self._known:
            await self._catalog.put_setting(EVERYWHERE, SETTING + name, sorted(held))
            self._known[name] = held
        return name

    def known(self, name: str) -> frozenset[str] | None:
        """The set, when this process has met it before."""
        return self._known.get(name)

    async def of(self, name: str) -> frozenset[str]:
        """The set of that hash."""
        held = self._known.get(name)
        if held is None:
            kept = await self._catalog.setting(EVERYWHERE, SETTING + name)
            held = frozenset(kept) if isinstance(kept, list) else frozenset()
            held = self._known[name] = held if hash_of(held) == name else frozenset()
        return held


def hash_of(permissions: Iterable[str]) -> str:
    """Names a set of permissions: 32 hex digits."""
    return hashlib.sha256("\n".join(sorted(permissions)).encode()).hexdigest()[:32]


def effective(principal: Principal, actions: Mapping[str, ActionSpec]) -> frozenset[str]:
    """What the runs that somebody triggers may do: the permissions of his roles, and for an admin also those that only
    installed local actions name.
    """
    if "admin" not in principal.roles:
        return principal.permissions
    named = {spec.permission for spec in actions.values() if spec.kind == "local" and spec.permission is not None}
    return principal.permissions | (named - ALL_PERMISSIONS)
