"""Every action a saga can name: local ones declared here or by the installation, and the commands of installed
modules.

    @action("mail.render", undo=None, timeout_seconds=5)
    async def render(call: ActionCall) -> Any: ...

    registry = ActionRegistry(local=[render], commands=contracts_registry.action_specs())

It is a read-only mapping from name to `ActionSpec`, made once by the assembly; it performs nothing. A local action must
be a module-level function, so that another process, or this one after a restart, finds the very same code; connectors
that need a client (such as `http.request`) bring their own `ActionSpec` as `connectors`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FunctionType
from typing import Any, Final, Literal

from contracts.calls import ActionSpec, Find, Perform, RetryPolicy
from contracts.problems import Problem
from contracts.registry import Registry
from contracts.sdk.tracing import Tracing
from engine.actions.http import http_request
from engine.guards.egress import Egress
from engine.guards.outbound import Outbound
from engine.guards.secrets import Secrets
from engine.metrics import Metrics
from engine.settings import Settings

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+")


class ActionInvalid(Problem):
    """An action cannot be declared or named like this; nothing starts until it is mended."""

    code = "action_invalid"
    title = "An action is declared wrongly"
    exit_code = 2


class ActionRegistry(Mapping[str, ActionSpec]):
    """Actions by name. Raises `ActionInvalid` for a name taken twice or an undo that nobody brings."""

    def __init__(
        self,
        *,
        local: Iterable[ActionSpec] = (),
        connectors: Iterable[ActionSpec] = (),
        commands: Mapping[str, ActionSpec] | None = None,
    ) -> None:
        self._specs: dict[str, ActionSpec] = dict(commands or {})
        for spec in local:
            check_function(spec.name, spec.perform)
            self._add(spec)
        for spec in connectors:
            self._add(spec)
        for spec in self._specs.values():
            if spec.undo is not None and ":" not in spec.undo and spec.undo not in self._specs:
                raise ActionInvalid(f"action {spec.name} is undone by {spec.undo}, which nothing brings", field="undo")
            _check_query(spec)

    @classmethod
    def assemble(
        cls,
        contracts: Registry,
        settings: Settings,
        metrics: Metrics | None = None,
        local: Iterable[ActionSpec] = (),
        tracing: Tracing | None = None,
        secrets: Callable[[], Secrets] | None = None,
        outbound: Outbound | None = None,
    ) -> ActionRegistry:
        """The actions of a process: commands of the installed modules, the shipped connectors, and `local` ones.
        `secrets` are asked for when a step names one; without, such a step fails. `outbound` brings the rules of
        tenants.
        """
        egress = Egress.from_settings(settings.egress, metrics=metrics, outbound=outbound)
        return cls(local=local, connectors=[http_request(egress, tracing, secrets)], commands=contracts.action_specs())

    def __getitem__(self, name: str) -> ActionSpec:
        return self._specs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def _add(self, spec: ActionSpec) -> None:
        if not _NAME.fullmatch(spec.name):
            raise ActionInvalid(
                f"{spec.name!r} is not an action name; use lower-case words with dots such as mail.render", field="name"
            )
        if spec.kind != "local" or spec.perform is None:
            raise ActionInvalid(f"action {spec.name} must be local and have a function", field="perform")
        if spec.name in self._specs:
            raise ActionInvalid(f"action {spec.name} is declared twice; give one of them another name", field="name")
        self._specs[spec.name] = spec


def action(
    name: str,
    *,
    undo: str | None = None,
    timeout_seconds: float = 30.0,
    retry: RetryPolicy | None = None,
    ambiguous: Literal["tombstone", "query", "park"] = "tombstone",
    coverage: Literal["compensatable", "retriable", "pivot"] = "compensatable",
    input_marks: tuple[str, ...] = (),
    output_marks: tuple[str, ...] = (),
    permission: str | None = None,
    find: Find | None = None,
) -> Callable[[Perform], ActionSpec]:
    """Declares a module-level function (plain or async, taking the `ActionCall`) as the local action `name`. `find`,
    with `ambiguous="query"`, is another such function: it looks whether the effect under the call's key happened.
    """

    def declare(function: Perform) -> ActionSpec:
        check_function(name, function)
        spec = ActionSpec(
            name=name,
            kind="local",
            perform=function,
            undo=undo,
            timeout_seconds=timeout_seconds,
            retry=retry or RetryPolicy(),
            ambiguous=ambiguous,
            coverage=coverage,
            input_marks=input_marks,
            output_marks=output_marks,
            permission=permission,
            find=find,
        )
        _check_query(spec)
        return spec

    return declare


def _check_query(spec: ActionSpec) -> None:
    if spec.lacks is not None:
        raise ActionInvalid(f'action {spec.name} is ambiguous="query" without {spec.lacks}', field="ambiguous")
    if spec.find is not None:
        check_function(spec.name, spec.find)


def check_function(name: str, function: Any) -> None:
    """Refuses what a restarted process could not find again: lambdas, nested functions, methods, partial functions."""
    if not isinstance(function, FunctionType) or function.__closure__ or function.__qualname__ != function.__name__:
        raise ActionInvalid(
            f"action {name} must be a module-level function without closure, not {function!r}", field="perform"
        )
    if function.__name__ == "<lambda>":
        raise ActionInvalid(f"action {name} must be a named function, not a lambda", field="perform")
