"""The header Retry-After of an answer (RFC 9110, section 10.2.3) as seconds. What is done with them is the run's matter
(`engine.run.retry`); called by `engine.actions.http` and `engine.actions.oauth2`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

STATUSES: Final = frozenset({429, 503})
"""The answers whose Retry-After is honoured (RFC 6585, section 4; RFC 9110, section 15.6.4)."""

_SECONDS: Final = re.compile(r"[0-9]{1,9}")


def retry_after(status: int, headers: Mapping[str, str], *, now: datetime) -> float | None:
    """How long the other side asks to be left alone; None where it does not, or says it in no known way. A date is
    measured by the answer's own Date, which a wrong clock on this machine cannot shift, else by `now`.

    >>> retry_after(503, {"retry-after": "120"}, now=datetime.now(UTC))
    120.0
    """
    said = headers.get("retry-after", "").strip()
    if status not in STATUSES or not said:
        return None
    if _SECONDS.fullmatch(said):
        return float(said)
    until = _date(said)
    if until is None:
        return None
    return max(0.0, (until - (_date(headers.get("date", "")) or now)).total_seconds())


def _date(text: str) -> datetime | None:
    """An HTTP-date, in any of its three forms (section 5.6.7), all of which are UTC."""
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
