"""When the next attempt is due: exponential backoff with a ceiling, spread by a jitter that the idempotency key
decides, so that deciding needs no dice.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import blake2b

from contracts.calls import RetryPolicy
from engine.run.draft import Draft
from engine.run.state import Step

UNDO_RETRY = RetryPolicy(attempts=5, delay_seconds=1.0, factor=3.0, max_delay_seconds=300.0)
"""Undos are tried more patiently than steps: what is left undone needs a person."""


def policy_of(run: Draft, step: Step) -> RetryPolicy:
    """The step's own policy, else its action's, else the default."""
    if step.retry is not None:
        return RetryPolicy(**step.retry)
    spec = run.plan.action(step.action)
    return spec.retry if spec is not None else RetryPolicy()


def next_attempt_at(run: Draft, step: Step) -> datetime | None:
    """When attempt `step.attempt + 1` is due; None when attempts are used up."""
    policy = policy_of(run, step)
    if step.attempt >= policy.attempts:
        return None
    return run.at + backoff(policy, step.attempt, step.key)


def next_undo_at(run: Draft, step: Step) -> datetime | None:
    """When the next attempt to undo `step` is due; None when those are used up."""
    if step.undo_attempt >= UNDO_RETRY.attempts:
        return None
    return run.at + backoff(UNDO_RETRY, step.undo_attempt, step.key + "/undo")


def backoff(policy: RetryPolicy, attempt: int, key: str) -> timedelta:
    """The delay after `attempt` (1 is the first).

    >>> backoff(RetryPolicy(delay_seconds=1, factor=2, jitter=0), 3, "k").total_seconds()
    4.0
    """
    delay = min(policy.max_delay_seconds, policy.delay_seconds * policy.factor ** (attempt - 1))
    share = int.from_bytes(blake2b(f"{key}#{attempt}".encode(), digest_size=4).digest()) / 0xFFFFFFFF
    return timedelta(seconds=delay * (1 + policy.jitter * (2 * share - 1)))
