"""Local actions: the registry and one file per connector. The shapes they share are in `contracts.calls`."""

from __future__ import annotations

from contracts.calls import ActionCall, ActionFailed, ActionSpec, Perform, RetryPolicy

__all__ = ["ActionCall", "ActionFailed", "ActionSpec", "Perform", "RetryPolicy"]
