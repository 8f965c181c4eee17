"""What a verb answers and how it is shown: one JSON document for machines, text or a table for people. It knows
nothing of the engine; every verb returns an `Answer`, and `scripts.border` prints it. Rich is imported only when
something is shown to a person."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

import orjson

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


@dataclass(frozen=True, slots=True)
class Answer:
    """`document` is what `--json` prints. `shown` makes what a person sees; a plain string is printed as it is.
    `exit_code` other than 0 says the question was answered and the answer is bad news (doctor found something, a
    contract would break)."""

    document: Any
    shown: Callable[[], RenderableType] | str
    exit_code: int = 0


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    empty: str = "Nothing to show.",
) -> Callable[[], RenderableType]:
    """A table without boxes, or the sentence `empty` when there are no rows. None is shown as a dash."""

    def shown() -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        materialised = [[Text("-" if cell is None else str(cell)) for cell in row] for row in rows]
        if not materialised:
            return Text(empty)
        grid = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for number, column in enumerate(columns):
            # What names the row is copied from the screen: it must stay in one piece.
            grid.add_column(column, overflow="fold", no_wrap=number == 0)
        for row in materialised:
            grid.add_row(*row)
        return grid

    return shown


def instant(text: str | None) -> str | None:
    """An RFC 3339 instant as people read it, to the second; documents keep the whole."""
    return None if text is None else text[:19].replace("T", " ")


def pairs(values: Mapping[str, object]) -> Callable[[], RenderableType]:
    """Names and values, one pair a line."""

    def shown() -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        grid = Table(box=None, show_header=False, pad_edge=False)
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in values.items():
            grid.add_row(Text(name), Text("-" if value is None else str(value)))
        return grid

    return shown


def stacked(*parts: Callable[[], RenderableType] | str) -> Callable[[], RenderableType]:
    """Several parts, one under the other."""

    def shown() -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        return Group(*[Text(part) if isinstance(part, str) else part() for part in parts])

    return shown


def listed(page: Mapping[str, Any], shown: Callable[[], RenderableType]) -> Answer:
    """A page of a list, with the way to the next one."""
    more = page.get("next")
    return Answer(page, stacked(shown, f"\nMore: --cursor {more}") if more else shown)


def show(answer: Answer, *, as_json: bool, out: TextIO | None = None) -> None:
    """Prints the answer to `out` (standard output by default)."""
    stream = out or sys.stdout
    if as_json:
        print_document(answer.document, stream)
    elif isinstance(answer.shown, str):
        if answer.shown:
            print(answer.shown, file=stream)
    else:
        console(stream).print(answer.shown())


def whole(stream: TextIO) -> TextIO:
    """The stream, or one over the same file that writes what it is given to the end. Python leaves standard output
    unbuffered under PYTHONUNBUFFERED and then writes once: what a pipe does not take at once, 64 KiB or more when the
    system interrupts the call, would be lost without an error.
    """
    raw = getattr(stream, "buffer", None)
    if not isinstance(raw, io.RawIOBase):
        return stream
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=stream.encoding, errors=stream.errors, line_buffering=True)


def print_document(document: Any, stream: TextIO) -> None:
    stream.write(orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")
    stream.flush()


def console(stream: TextIO) -> Console:
    """A console that obeys NO_COLOR and never wraps what is piped into a file."""
    from rich.console import Console

    width = None if stream.isatty() else int(os.environ.get("COLUMNS", "240"))
    return Console(file=stream, width=width, highlight=False, no_color="NO_COLOR" in os.environ or None)


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Shows how far long work has come, on standard error and only on a terminal; the function given is told the
    amount done so far."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}"),
        TimeElapsedColumn(),
        console=console(sys.stderr),
        transient=True,
    )
    with bars:
        task = bars.add_task(label, total=total)
        yield lambda done: bars.update(task, completed=done)
