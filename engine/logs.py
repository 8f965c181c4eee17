"""Log lines: one JSON object per decision on standard output, never a payload. Set up once by the entry points.

    log = engine.logs.logger("relay"); log.info("published", tenant_id="acme", run_id=run_id, count=12)

`tenant_id`, `run_id`, `correlation_id`, `step_id` and `event_id` are the names of the places in every line; `bind(...)`
keeps some of them for everything that follows in the task. Values are redacted by name and by pattern; names that could
hold a payload are refused, and a line that cannot be redacted is reduced to its event name.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from contextlib import AbstractContextManager, suppress
from typing import Any, Final, Literal, TextIO, cast
from uuid import UUID

import orjson
import structlog

from contracts.sdk.places import PLACES
from engine.guards.redaction import REDACTED, Redactor, redact_text

PAYLOAD_NAMES: Final = frozenset(
    {"payload", "data", "body", "input", "output", "receipt", "envelope", "headers", "arguments", "document", "locals"}
)
MAX_TEXT: Final = 2_000

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_LONGEST_NUMBER: Final = 64
_BY_NAME: Final = Redactor()


def configure(
    *,
    format: Literal["json", "console"] = "json",
    level: Literal["debug", "info", "warning", "error"] = "info",
    stream: TextIO | None = None,
) -> None:
    """Sends our lines, and those of the libraries, to `stream` (standard output) in one form."""
    out = cast(TextIO, _Losing(stream or sys.stdout))
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _exception,
        keep_payloads_out,
    ]
    render: Any = structlog.dev.ConsoleRenderer(colors=out.isatty()) if format == "console" else _json
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(allow=PLACES),
                *shared,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(_LEVELS[level], logging.WARNING))


class _Losing:
    """A stream that loses the lines that it cannot take: a full disk below the log, or a reader that has gone, must not
    end who writes it.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._out.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._out.flush()

    def isatty(self) -> bool:
        return self._out.isatty()


def logger(part: str) -> structlog.typing.FilteringBoundLogger:
    """The logger of one part of the engine, such as `intake`; the name stands in every line as `part`."""
    bound: structlog.typing.FilteringBoundLogger = structlog.get_logger(part=part)
    return bound


def bind(**places: Any) -> AbstractContextManager[Any]:
    """Adds places (`tenant_id`, `run_id`, ...) to every line of this task until the block ends."""
    context: AbstractContextManager[Any] = structlog.contextvars.bound_contextvars(**places)
    return context


def keep_payloads_out(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The last word on every line: payload names and secrets are masked, texts cut and cleaned."""
    try:
        return {name: _shown(name, value) for name, value in line.items()}
    except Exception:
        # Whatever made redaction fail may be the very thing that must not be shown.
        return {"event": "log line could not be redacted", "level": "error", "at": line.get("at", "")}


def _shown(name: str, value: Any) -> Any:
    if name in _OURS:
        return value
    if name in PAYLOAD_NAMES:
        return REDACTED
    if isinstance(value, str):
        value = _said(value)
    elif value is None or isinstance(value, bool | int | float):
        pass
    elif isinstance(value, UUID):
        value = str(value)
    elif isinstance(value, dict | list | tuple):
        value = _BY_NAME.document(_plain(value))
    elif isinstance(value, Exception):
        value = f"{type(value).__name__}: {_said(str(value))}"
    else:
        value = _said(str(value))
    return _BY_NAME.document({name: value})[name]


_OURS: Final = frozenset({"_record", "_from_structlog", "at", "level"})


def _plain(value: Any, depth: int = 0) -> Any:
    if depth > 8:
        return REDACTED
    if isinstance(value, dict):
        return {
            str(name): REDACTED if str(name) in PAYLOAD_NAMES else _plain(item, depth + 1)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value[:100]]
    return value if value is None or isinstance(value, bool | int | float) else _said(str(value))


def _said(text: str) -> str:
    """The text, redacted and cut. What the cut may have torn in two is not shown."""
    shown = redact_text(text[: 2 * MAX_TEXT])
    torn = _LONGEST_NUMBER if len(text) > 2 * MAX_TEXT else 0
    return shown[: min(MAX_TEXT, len(shown) - torn)]


def _exception(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """An exception as its type, message and places, without locals: `error` and `frames`."""
    given = line.pop("exc_info", None)
    if not given:
        return line
    error = given if isinstance(given, BaseException) else given[1] if isinstance(given, tuple) else sys.exc_info()[1]
    if error is not None:
        line["error"] = f"{type(error).__name__}: {error}"
        frames: list[str] = []
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            frames.append(f"{'/'.join(code.co_filename.split('/')[-2:])}:{trace.tb_lineno} {code.co_name}")
            trace = trace.tb_next
        line["frames"] = frames[-20:]
    return line


def _json(_: Any, __: str, line: MutableMapping[str, Any]) -> str:
    return orjson.dumps(dict(line), default=str, option=orjson.OPT_NON_STR_KEYS).decode()
