"""What a value is here: a slotted dataclass that nobody changes once it is made. The type checker refuses every
assignment; Python refuses them in its development mode (`python -X dev`) only, because a frozen dataclass takes three
times as long to make and the engine makes hundreds of values per run. For what is made on the hot path; elsewhere the
plain frozen dataclass does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """Makes the class a value: equal and hashed by its fields."""
    if sys.flags.dev_mode:
        return dataclass(frozen=True, slots=True, kw_only=kw_only)
    return dataclass(slots=True, kw_only=kw_only, unsafe_hash=True)
