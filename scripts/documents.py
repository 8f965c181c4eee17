"""JSON that people type or pipe into a verb."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from contracts.problems import NotFound, PayloadInvalid


def json_value(text: str, field: str) -> Any:
    """The JSON in `text`, or on standard input when it is `-`. Raises `PayloadInvalid` naming the option."""
    import orjson

    try:
        return orjson.loads(sys.stdin.buffer.read() if text == "-" else text)
    except orjson.JSONDecodeError as error:
        raise PayloadInvalid(f"--{field} is not JSON: {error.msg}", field=field) from None


def json_file(name: str, field: str) -> Any:
    """The JSON in the file called `name`, or on standard input when it is `-`. Raises `PayloadInvalid`, `NotFound`."""
    if name == "-":
        return json_value(name, field)
    try:
        return json_value(Path(name).read_text(encoding="utf-8"), field)
    except FileNotFoundError:
        raise NotFound(f"there is no file {name}", field=field) from None


def json_object(text: str, field: str) -> dict[str, Any]:
    value = json_value(text, field)
    if not isinstance(value, dict):
        raise PayloadInvalid(f"--{field} must be a JSON object", field=field)
    return value
