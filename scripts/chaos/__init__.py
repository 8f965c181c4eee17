"""Faults of real processes and servers, and what must hold after them: `unwind chaos`."""
