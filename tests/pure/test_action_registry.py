"""The registry of actions: one name, one action, and only functions that a restarted process finds again."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest

from contracts.calls import ActionCall, ActionSpec, RetryPolicy
from contracts.modules import SHIPPED
from contracts.registry import Registry
from engine.actions.registry import ActionInvalid, ActionRegistry, action
from engine.settings import Settings


def greet(call: ActionCall) -> Any:
    return {"hello": call.input["name"]}


async def fetch(call: ActionCall) -> Any:
    return None


class Holder:
    def method(self, call: ActionCall) -> Any:
        return None


GREET = action("mail.greet", timeout_seconds=5, retry=RetryPolicy(attempts=2), input_marks=("/name",))(greet)


def closing_over(value: int) -> Any:
    def inner(call: ActionCall) -> Any:
        return value

    return inner


def test_a_module_level_function_becomes_an_action_with_what_was_declared() -> None:
    assert (
        ActionSpec(
            name="mail.greet",
            kind="local",
            perform=greet,
            timeout_seconds=5,
            retry=RetryPolicy(attempts=2),
            input_marks=("/name",),
        )
        == GREET
    )
    registry = ActionRegistry(local=[GREET, action("mail.fetch", undo="mail.greet")(fetch)])
    assert (len(registry), set(registry), registry.get("nothing")) == (2, {"mail.greet", "mail.fetch"}, None)
    assert registry["mail.fetch"].undo == "mail.greet"


@pytest.mark.parametrize(
    "function",
    [
        lambda call: None,
        closing_over(1),
        functools.partial(greet),
        Holder().method,
        Holder.method,
        Holder,
        print,
        "greet",
    ],
)
def test_what_a_restarted_process_could_not_find_again_is_refused(function: Any) -> None:
    with pytest.raises(ActionInvalid):
        action("mail.wrong")(function)
    with pytest.raises(ActionInvalid):
        ActionRegistry(local=[ActionSpec(name="mail.wrong", kind="local", perform=function)])


@pytest.mark.parametrize(
    "name", ["", "greet", "Mail.greet", "mail.", ".greet", "mail greet", "mail.greet@1", "mail:greet"]
)
def test_a_name_that_is_not_words_with_dots_is_refused(name: str) -> None:
    with pytest.raises(ActionInvalid):
        ActionRegistry(local=[replace(GREET, name=name)])


def test_a_name_taken_twice_is_refused() -> None:
    with pytest.raises(ActionInvalid, match="twice"):
        ActionRegistry(local=[GREET, GREET])
    commands = {"mail.greet": ActionSpec(name="mail.greet", kind="command")}
    with pytest.raises(ActionInvalid, match="twice"):
        ActionRegistry(local=[GREET], commands=commands)


def test_an_undo_that_nothing_brings_is_refused() -> None:
    with pytest.raises(ActionInvalid, match="nothing brings"):
        ActionRegistry(local=[replace(GREET, undo="mail.forget")])


def test_a_process_finds_the_commands_of_its_modules_and_the_shipped_connectors() -> None:
    registry = ActionRegistry.assemble(Registry(SHIPPED), Settings(), local=[GREET])
    assert {"http.request", "mail.greet"} <= set(registry)
    assert any(spec.kind == "command" for spec in registry.values())
    assert registry["http.request"].perform is not None
