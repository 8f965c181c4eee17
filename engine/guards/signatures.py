"""Signed webhooks in: was this body sent by someone who holds the secret? Three schemes, one refusal.

    github    X-Hub-Signature-256: sha256=<hex>                          HMAC-SHA256 over the raw body
    stripe    Stripe-Signature: t=<seconds>,v1=<hex>                     HMAC-SHA256 over timestamp.body
    standard  webhook-id, webhook-timestamp, webhook-signature: v1,...   Standard Webhooks, over id.timestamp.body

Verified over the bytes as received, so a request with a Content-Encoding must be refused before. Comparison is in
constant time and on bytes. Every cause (missing, malformed, wrong, stale) is the same `Unauthenticated`; during a
rotation several secrets are accepted. It parses no body. Called by the webhook routes.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, assert_never

from standardwebhooks import Webhook

from engine.guards.permissions import unauthenticated
from engine.store import HookScheme

HUB_HEADER: Final = "X-Hub-Signature-256"
STRIPE_HEADER: Final = "Stripe-Signature"
TOLERANCE: Final = timedelta(minutes=5)
_MAX_SIGNATURES: Final = 8


def verify_webhook(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], *, now: datetime) -> str | None:
    """Answers the sender's message id (Standard Webhooks), or None for the plain scheme, which has none. Raises
    `Unauthenticated` when the body was not signed with one of `secrets`.
    """
    lower = _lower(headers)
    if "webhook-signature" in lower:
        return verify_standard(lower, body, secrets, now=now)
    verify_plain(lower.get(HUB_HEADER.lower()), body, secrets)
    return None


def verify_scheme(
    scheme: HookScheme, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], *, now: datetime
) -> str | None:
    """The same by this scheme and no other: whoever may choose the scheme would choose the one without a timestamp."""
    lower = _lower(headers)
    match scheme:
        case "standard":
            return verify_standard(lower, body, secrets, now=now)
        case "stripe":
            verify_stripe(lower.get(STRIPE_HEADER.lower()), body, secrets, now=now)
        case "github":
            verify_plain(lower.get(HUB_HEADER.lower()), body, secrets)
        case _:
            assert_never(scheme)
    return None


def plainly_encoded(headers: Mapping[str, str]) -> bool:
    """Whether the body is sent as it is. `headers` by names in any case, or in lower case."""
    return headers.get("content-encoding", "identity").strip().lower() in ("", "identity")


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    lower = {name.lower(): value for name, value in headers.items()}
    if not plainly_encoded(lower):
        raise unauthenticated()
    return lower


def sign_plain(body: bytes, secret: str) -> str:
    """The value of `X-Hub-Signature-256` for a body."""
    return "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex()


def verify_plain(header: str | None, body: bytes, secrets: Sequence[str]) -> None:
    """Raises `Unauthenticated` unless the header is `sha256=<hex>` of the body under one of `secrets`."""
    # Header text may hold anything; compare_digest refuses non-ASCII text with TypeError, bytes it takes as they are.
    given = (header or "").strip().encode("utf-8", "surrogateescape")
    valid = False
    for secret in secrets:
        # Every secret is tried, so that the time does not say which one came close.
        valid |= bool(secret) and hmac.compare_digest(sign_plain(body, secret).encode(), given)
    if not valid:
        raise unauthenticated()


def sign_stripe(at: datetime, body: bytes, secret: str) -> str:
    """The value of `Stripe-Signature` for a body."""
    seconds = int(at.timestamp())
    return f"t={seconds},v1={_stripe_mac(seconds, body, secret)}"


def verify_stripe(header: str | None, body: bytes, secrets: Sequence[str], *, now: datetime) -> None:
    """Raises `Unauthenticated` unless one `v1` of the header is the MAC of its `t` and the body under one of `secrets`,
    and `t` is within the tolerance.
    """
    pairs = [part.strip().partition("=") for part in (header or "").split(",")[: 2 * _MAX_SIGNATURES]]
    times = [value for name, _, value in pairs if name == "t"]
    given = [value.encode("utf-8", "surrogateescape") for name, _, value in pairs if name == "v1"][:_MAX_SIGNATURES]
    # Two timestamps would leave open which of them was signed.
    if len(times) != 1:
        raise unauthenticated()
    at = _recent(times[0], now)
    valid = False
    for secret in secrets:
        right = _stripe_mac(at, body, secret).encode()
        for signature in given:
            valid |= bool(secret) and hmac.compare_digest(right, signature)
    if not valid:
        raise unauthenticated()


def _stripe_mac(seconds: int, body: bytes, secret: str) -> str:
    return hmac.digest(secret.encode(), b"%d.%s" % (seconds, body), "sha256").hex()


def _recent(timestamp: str, now: datetime) -> int:
    """The timestamp in seconds. Raises `Unauthenticated` for one that is none, or outside the tolerance."""
    if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        raise unauthenticated()
    at = int(timestamp)
    if abs(now.timestamp() - at) > TOLERANCE.total_seconds():
        raise unauthenticated()
    return at


def sign_standard(message_id: str, at: datetime, body: bytes, secret: str) -> dict[str, str]:
    """The three Standard Webhooks headers for a body."""
    at = at.astimezone(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(_key(secret)).sign(message_id, at, body.decode()),
    }


def verify_standard(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], *, now: datetime) -> str:
    """The message id, once one of the signatures holds and the timestamp is within the tolerance. `headers` in lower
    case.
    """
    message_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    # A dot in the id would let the border between id and timestamp move under the same signature.
    if (
        not message_id
        or "." in message_id
        or len(message_id) > 200
        or not message_id.isascii()
        or not message_id.isprintable()
    ):
        raise unauthenticated()
    at = _recent(timestamp, now)
    try:
        text = body.decode("utf-8")
        expected = [
            base64.b64decode(
                Webhook(_key(secret)).sign(message_id, datetime.fromtimestamp(at, UTC), text).removeprefix("v1,")
            )
            for secret in secrets
            if secret
        ]
    except (ValueError, OverflowError):
        raise unauthenticated() from None
    valid = False
    for signature in headers.get("webhook-signature", "").split(" ")[:_MAX_SIGNATURES]:
        version, _, encoded = signature.partition(",")
        try:
            given = base64.b64decode(encoded.encode("utf-8", "surrogateescape"), validate=True)
        except (binascii.Error, ValueError):
            continue
        for right in expected:
            valid |= version == "v1" and hmac.compare_digest(right, given)
    if not valid:
        raise unauthenticated()
    return message_id


def _key(secret: str) -> bytes:
    """`whsec_<base64>` as the bytes it stands for, any other text as it is."""
    if secret.startswith("whsec_"):
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    return secret.encode()
