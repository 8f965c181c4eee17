"""`unwind contracts ...`: the generated schemas of every installed module, and what a change of them would break for
those who read old messages."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Contracts of the installed modules.")
