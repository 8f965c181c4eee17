"""Where a span stands in its trace, as W3C Trace Context writes it (`traceparent`), and contexts whose ids follow from
what they are about: every process that speaks of the same step names the same span, and none has to be kept open or
recorded for it. Pure. Spans themselves are made by `contracts.sdk.tracing`.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from contracts.values import value

_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:(?<!^00.{53})-.*)?"
)
"""Of later versions than 00 what follows is not read, as the recommendation asks."""
_SAMPLED: Final = 0x01


@value()
class SpanContext:
    """One span: 128 bits name the trace, 64 bits the span in it. A trace that is not `sampled` is carried on and its
    spans are sent by nobody.
    """

    trace_id: int
    span_id: int
    sampled: bool = True

    @property
    def traceparent(self) -> str:
        """
        >>> SpanContext(1, 2).traceparent
        '00-00000000000000000000000000000001-0000000000000002-01'
        """
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"

    def child(self, *about: object) -> SpanContext:
        """The span about this, in the same trace."""
        return SpanContext(self.trace_id, span_id(*about), self.sampled)


def read(traceparent: str | None) -> SpanContext | None:
    """The context that a header or an envelope carries; None for a text that is none, as the W3C's recommendation says.

    >>> read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").sampled
    False
    >>> read("00-00000000000000000000000000000000-b7ad6b7169203331-01") is None
    True
    """
    found = _TRACEPARENT.fullmatch(traceparent or "")
    if found is None:
        return None
    trace, span, flags = found.groups()
    return SpanContext(int(trace, 16), int(span, 16), bool(int(flags, 16) & _SAMPLED))


def span_id(*about: object) -> int:
    """64 bits that follow from the parts; never zero."""
    return _hash(about, 8) or 1


def trace_id(*about: object) -> int:
    """128 bits that follow from the parts; never zero."""
    return _hash(about, 16) or 1


def _hash(about: tuple[object, ...], size: int) -> int:
    return int.from_bytes(blake2b("\0".join(map(str, about)).encode(), digest_size=size).digest())
