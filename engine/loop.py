"""How a process of ours runs: on which event loop (uvloop where it is installed, by the extra `fast` and every lock
file of ours; Python's own elsewhere), and how often its memory is searched for cycles. Called once per process, by the
command line, the modules' processes and the bench."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs `main` to its end on a loop of its own; Ctrl-C cancels it."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


def calm_collector() -> None:
    """What is loaded by now stays for good, and events and hot runs are trees without cycles: looking through them
    every 700 allocations costs a seventh of the engine's time (`scripts.bench`), a quarter of a rebuild's, and finds
    nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
