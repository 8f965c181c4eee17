"""Asks what became of an attempt that nobody had heard of again: a module over the bus, by the query its command names;
or, for a local action, the function that looks. It decides nothing and records nothing: the worker hands the answer in.

Asking changes nothing, so it is repeated a few times before nobody is said to know.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any, Final

import orjson

from contracts.calls import ActionCall, ActionFailed, ActionSpec, Fate
from contracts.problems import Problem, Unavailable
from contracts.registry import Registry
from contracts.sdk.queries import Asker
from engine.recording import command_id

ASK_SECONDS: Final = 10.0
ASK_PAUSES: Final = (0.0, 1.0, 4.0)


class Asking:
    """`pauses` are waited before each time somebody is asked; `seconds` is how long an answer may take. Without an
    `asker` and the `registry` that checks what modules answer, only local functions are asked.
    """

    def __init__(
        self,
        asker: Asker | None = None,
        registry: Registry | None = None,
        *,
        seconds: float = ASK_SECONDS,
        pauses: Sequence[float] = ASK_PAUSES,
    ) -> None:
        self._asker = asker
        self._registry = registry
        self._seconds = seconds
        self._pauses = tuple(pauses)

    async def fate(self, spec: ActionSpec | None, call: ActionCall, *, closing: bool) -> Fate | str:
        """The answer; or, in words without payload, why there is none."""
        if spec is None:
            return f"no installed module or connector brings the action {call.action!r}"
        why = "nobody was asked"
        for pause in self._pauses:
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(self._seconds):
                    return await self._one(spec, call, closing)
            except TimeoutError:
                why = f"no answer within {self._seconds:g} s"
            except Problem as problem:
                why = f"{problem.code}: {problem.detail}"
            except ActionFailed as failed:
                why = f"{failed.code}: {failed.message}"
            except Exception as error:
                # The type only: an exception's text may hold what was being looked at.
                why = f"who was asked raised {type(error).__name__}"
        return why

    async def _one(self, spec: ActionSpec, call: ActionCall, closing: bool) -> Fate:
        if spec.find is not None:
            found = spec.find(call)
            return _checked(await found if inspect.isawaitable(found) else found)
        if spec.query is None or self._asker is None or self._registry is None:
            raise Unavailable("this process has no connection to the module")
        answer = await self._asker.ask_raw(
            spec.query,
            {"key": call.key, "command_id": command_id(call.key), "closing": closing},
            tenant=call.tenant,
            deadline_seconds=self._seconds,
            correlation_id=call.correlation_id or None,
            traceparent=call.traceparent,
        )
        answer = self._registry.query(spec.query).answer.check(answer)
        return Fate(answer["happened"], answer["receipt"])


def _checked(fate: Any) -> Fate:
    """Raises TypeError for an answer that says neither: guessing is what asking was for."""
    if not isinstance(fate, Fate) or type(fate.happened) is not bool:
        raise TypeError(type(fate).__name__)
    return Fate(fate.happened, orjson.loads(orjson.dumps(fate.receipt)) if fate.happened else None)
