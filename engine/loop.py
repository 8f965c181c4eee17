"""Which event loop a process runs on: uvloop where it is installed (the extra `fast`, and every lock file of ours),
Python's own elsewhere. Called once per process, by the command line, the modules' processes and the bench."""

from __future__ import annotations

import asyncio
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
