"""Where a log line of a module belongs, as `extra` of the standard library's logging: whose, which message, which
story. Never a payload, and of an exception its type and places alone, since its text may hold what was being worked on.
"""

from __future__ import annotations

import traceback
from typing import Any, Final

from contracts.envelope import Envelope

FRAMES: Final = 12
PLACES: Final = ("tenant_id", "event_id", "correlation_id", "step_key", "message_type", "error", "frames")
"""Every name that such a line may have; `engine.logs` shows these and no others."""


def places(envelope: Envelope, *, command: bool, error: BaseException | None = None) -> dict[str, Any]:
    """`command`: the envelope's subject is the idempotency key of a step, `<run>/<step>/<visit>`; that of a fact may
    name a person and is left out.
    """
    found: dict[str, Any] = {
        "tenant_id": envelope.tenantid,
        "event_id": envelope.id,
        "correlation_id": envelope.correlationid or envelope.id,
        "message_type": envelope.type,
    }
    if command and envelope.subject is not None:
        found["step_key"] = envelope.subject
    if error is not None:
        found["error"] = type(error).__name__
        found["frames"] = [line.strip() for line in traceback.format_tb(error.__traceback__)[-FRAMES:]]
    return found
