"""When the next attempt is due: exponential backoff with a ceiling, spread by a jitter that the idempotency key
decides, so that deciding needs no dice; and no earlier than the failure itself says.

    retry_after_seconds   the other side was asked, and says when to come again (RFC 9110, section 10.2.3)
    put_off_seconds       nothing was tried, it was not its turn: the attempt is none of those that the policy grants
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

from contracts.calls import MOST_WAIT_SECONDS, RetryPolicy
from engine.run.draft import Draft
from engine.run.state import Step

UNDO_RETRY = RetryPolicy(attempts=5, delay_seconds=1.0, factor=3.0, max_delay_seconds=300.0)
"""Undos are tried more patiently than steps: what is left undone needs a person."""

PUT_OFF = RetryPolicy(delay_seconds=0.5, factor=1.5, max_delay_seconds=300.0, jitter=0.3)
"""Who is put off again and again asks less and less often, so that a thousand who wait for one turn do not fill the
log; by that nobody waits more than half as long again.
"""


def policy_of(run: Draft, step: Step) -> RetryPolicy:
    """The step's own policy, else its action's, else the default."""
    if step.retry is not None:
        return RetryPolicy(**step.retry)
    spec = run.plan.action(step.action)
    return spec.retry if spec is not None else RetryPolicy()


def next_attempt_at(run: Draft, step: Step, error: Mapping[str, Any]) -> datetime | None:
    """When attempt `step.attempt + 1` is due after this error; None when attempts are used up."""
    return _due(run.at, policy_of(run, step), step.attempt, step.put_off, step.key, error)


def next_undo_at(run: Draft, step: Step, error: Mapping[str, Any]) -> datetime | None:
    """When the next attempt to undo `step` is due after this error; None when those are used up."""
    return _due(run.at, UNDO_RETRY, step.undo_attempt, step.undo_put_off, step.key + "/undo", error)


def _due(
    at: datetime, policy: RetryPolicy, attempt: int, put_off: int, key: str, error: Mapping[str, Any]
) -> datetime | None:
    """`put_off` of the attempts before were none."""
    if "put_off_seconds" in error:
        return at + max(backoff(PUT_OFF, put_off + 1, key), _asked_for(error))
    if attempt - put_off >= policy.attempts:
        return None
    return at + max(backoff(policy, attempt, key), _asked_for(error))


def _asked_for(error: Mapping[str, Any]) -> timedelta:
    seconds = max(error.get(name) or 0.0 for name in ("retry_after_seconds", "put_off_seconds"))
    return timedelta(seconds=min(max(0.0, seconds), MOST_WAIT_SECONDS))


def backoff(policy: RetryPolicy, attempt: int, key: str) -> timedelta:
    """The delay after `attempt` (1 is the first).

    >>> backoff(RetryPolicy(delay_seconds=1, factor=2, jitter=0), 3, "k").total_seconds()
    4.0
    """
    delay = min(policy.max_delay_seconds, policy.delay_seconds * policy.factor ** (attempt - 1))
    share = int.from_bytes(blake2b(f"{key}#{attempt}".encode(), digest_size=4).digest()) / 0xFFFFFFFF
    return timedelta(seconds=delay * (1 + policy.jitter * (2 * share - 1)))
