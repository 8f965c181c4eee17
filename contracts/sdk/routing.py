"""Which queues a message reaches: exchanges, bindings and alternate exchanges as RabbitMQ has them, on plain values.

Not a store and not a client. The embedded bus asks it for every message; tests ask it about patterns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from contracts.sdk.transport import Exchange

_CACHED_ROUTES = 8192


def topic_matches(pattern: str, key: str) -> bool:
    """Whether a topic pattern takes a key: words between dots, `*` is one word, `#` any number of words, none included.

    >>> [topic_matches(pattern, "billing.PaidV1") for pattern in ("billing.*", "#.PaidV1", "*")]
    [True, True, False]
    """
    if pattern == "#" or pattern == key:
        return True
    return _words_match(tuple(pattern.split(".")), tuple(key.split(".")))


def _words_match(pattern: tuple[str, ...], key: tuple[str, ...]) -> bool:
    # reachable[i]: the pattern up to here takes the first i words of the key; linear in pattern x key, whatever the
    # number of `#`.
    reachable = [True] + [False] * len(key)
    for word in pattern:
        if word == "#":
            seen = False
            for i, here in enumerate(reachable):
                seen = seen or here
                reachable[i] = seen
        else:
            reachable = [False] + [reachable[i] and word in ("*", part) for i, part in enumerate(key)]
    return reachable[-1]


@dataclass(frozen=True, slots=True)
class Routes:
    """One version of the topology, asked again and again: answers are remembered until the next version replaces it."""

    exchanges: Mapping[str, Exchange]
    queues: Mapping[str, int]
    bindings: Mapping[str, tuple[tuple[str, int], ...]]
    _answers: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)

    def targets(self, exchange: str, key: str) -> tuple[int, ...]:
        """The queues, each once, in id order. None of them: unroutable. The exchange without a name leads to the queue
        the key names."""
        answer = self._answers.get((exchange, key))
        if answer is None:
            if len(self._answers) >= _CACHED_ROUTES:
                self._answers.clear()  # keys are chosen by senders; memory is not
            answer = self._answers[exchange, key] = tuple(sorted(self._follow(exchange, key)))
        return answer

    def _follow(self, exchange: str, key: str) -> Iterable[int]:
        if exchange == "":
            queue = self.queues.get(key)
            return () if queue is None else (queue,)
        visited: set[str] = set()
        name: str | None = exchange
        while name is not None and name not in visited:
            visited.add(name)
            here = self.exchanges.get(name)
            if here is None:
                return ()
            found = {queue for pattern, queue in self.bindings.get(name, ()) if _takes(here.kind, pattern, key)}
            if found:
                return found
            name = here.alternate
        return ()


def _takes(kind: str, pattern: str, key: str) -> bool:
    if kind == "fanout":
        return True
    if kind == "direct":
        return pattern == key
    return topic_matches(pattern, key)
