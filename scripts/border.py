"""The one border between verbs and the shell: a verb's answer becomes output, a `Problem` becomes one line (or a JSON
problem) and an exit code. No other module of this floor prints an error or ends the process."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
import traceback
import typing
from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any, Final, TextIO

import typer

from contracts.problems import Problem
from engine.loop import run
from scripts.answer import Answer, print_document, show

EXIT_CODES: Final = {
    0: ("ok", "it was done"),
    1: ("internal", "a fault of Unwind's own, or a check that answered no"),
    2: ("bad input", "an argument, a setting or a document is wrong; the line names the field"),
    3: ("not found", "there is no such run, dead letter, tenant or file here"),
    4: ("conflict", "the current state does not allow it"),
    5: ("auth", "the token is missing, wrong or not permitted to do this"),
    6: ("limited", "a cap or rate limit is reached; try later"),
    7: ("unavailable", "the engine, the database or the bus does not answer; try later"),
    8: ("incompatible", "the key file, the schema or stored data do not fit this program"),
    130: ("interrupted", "stopped by Ctrl-C"),
}
"""Every exit code with its name and meaning; README's table is checked against it."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def verb(
    app: typer.Typer, name: str | None = None, *, hidden: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function (plain or async) that returns an `Answer` as a verb, and gives it `--json`."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function)
        hints = typing.get_type_hints(function, include_extras=True)
        parameters = [
            parameter.replace(annotation=hints[parameter.name]) for parameter in signature.parameters.values()
        ]
        parameters.append(
            inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson)
        )

        @functools.wraps(function)
        def run(**given: Any) -> None:
            as_json = bool(given.pop("as_json"))
            raise typer.Exit(perform(functools.partial(function, **given), as_json=as_json))

        del run.__wrapped__  # typer must read the widened signature, not the function's own
        run.__signature__ = signature.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
        app.command(name, hidden=hidden)(run)
        return function

    return register


_wants_json: Final[ContextVar[bool]] = ContextVar("wants_json", default=False)


def people() -> TextIO:
    """Where a verb that works for long tells people about it: not on the standard output that a machine reads."""
    return sys.stderr if _wants_json.get() else sys.stdout


def perform(function: Callable[[], Any], *, as_json: bool) -> int:
    """Runs a verb to its exit code."""
    _wants_json.set(as_json)
    try:
        answer = function()
        if inspect.iscoroutine(answer):
            answer = run(answer)
        if isinstance(answer, Answer):
            show(answer, as_json=as_json)
            return answer.exit_code
        return 0
    except Problem as problem:
        return tell(problem, as_json=as_json)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    except BaseExceptionGroup as group:
        # Work that ran side by side: the first refusal speaks for all.
        problems, others = group.split(Problem)
        if problems is None or others is not None:
            return _fault(group, as_json=as_json)
        return tell(_first(problems), as_json=as_json)
    except BrokenPipeError:
        # The reader went away (`unwind runs list | head`); writing at exit would only complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _fault(error, as_json=as_json)


def _fault(error: BaseException, *, as_json: bool) -> int:
    if os.environ.get("UNWIND_DEBUG"):
        traceback.print_exception(error)
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    detail = f"{type(error).__name__}: {error}; set UNWIND_DEBUG=1 to see where"
    return tell_line("internal", detail, 1, as_json=as_json)


def _first(group: BaseExceptionGroup[Problem]) -> Problem:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, Problem)
    return found


def tell(problem: Problem, *, as_json: bool) -> int:
    """One problem on standard error: a line that names field and remedy, or its RFC 9457 document."""
    if as_json:
        print_document(problem.to_document(), sys.stderr)
    else:
        print(f"unwind: {problem.code}: {_one_line(problem.detail)}", file=sys.stderr)
    return problem.exit_code


def tell_line(code: str, detail: str, exit_code: int, *, as_json: bool) -> int:
    if as_json:
        print_document({"type": f"urn:unwind:problem:{code}", "code": code, "detail": detail}, sys.stderr)
    else:
        print(f"unwind: {code}: {_one_line(detail)}", file=sys.stderr)
    return exit_code


def _one_line(text: str) -> str:
    return " ".join(text.split())
