"""What is personal when it comes in stays marked wherever the run carries it, so that no read model ever shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from contracts import run_events as ev
from contracts.calls import ActionSpec
from contracts.pointers import resolve, segments
from contracts.run_events import RunEvent
from engine.plan.code import Run, saga
from engine.run.evolve import SHORTEST_TAINT, texts
from engine.run.inputs import Decided, SkipAsked
from tests.pure.run import sagas
from tests.pure.run.telling import Story, abandoned, approved, begun, cancelled, done, lost, matched, undo_lost, undone

EMAIL = "ann@example.org"


def unmarked(event: RunEvent) -> Iterator[tuple[str, str]]:
    """Every text of the event outside its marks, with its pointer."""
    for field in fields(event):
        if field.name in ("at", "marks"):
            continue
        for pointer, text in texts(_json(getattr(event, field.name)), f"/{field.name}"):
            if not any(pointer == mark or pointer.startswith(mark + "/") for mark in event.marks):
                yield pointer, text


def _json(value: Any) -> Any:
    return dict(value) if hasattr(value, "items") else list(value) if isinstance(value, tuple) else value


def leaks(story: Story, *personal: str) -> list[str]:
    return [
        f"{type(event).__name__}{pointer}"
        for event in story.log
        for pointer, text in unmarked(event)
        if any(value in text for value in personal)
    ]


def test_a_personal_value_is_marked_in_every_event_it_travels_through() -> None:
    story = Story(sagas.personal).when(begun({"email": EMAIL, "plan": "starter"}, marks=("/email",)))
    story.when(done("account", {"id": 1, "login": EMAIL}), matched("confirmed", {"mail": EMAIL}), approved("check"))
    story.is_("succeeded")
    assert leaks(story, EMAIL) == []
    marked = {type(event).__name__ for event in story.log if event.marks}
    assert marked == {
        "RunStarted",
        "StepScheduled",
        "StepSucceeded",
        "WaitStarted",
        "WaitMatched",
        "ApprovalRequested",
        "RunEnded",
    }


def test_a_personal_value_is_marked_in_the_undo_too() -> None:
    story = Story(sagas.personal).when(begun({"email": EMAIL, "plan": "starter"}, marks=("/email",)))
    story.when(done("account", {"login": EMAIL}), cancelled(), undone("account", output={"removed": EMAIL}))
    assert leaks(story, EMAIL) == []
    (undo,) = story.of(ev.UndoScheduled)
    assert set(undo.marks) == {"/input/email", "/receipt/login"}


def test_what_an_action_declares_as_personal_is_marked_from_then_on() -> None:
    @saga("declared", version=1)
    async def declared(run: Run, data: Any) -> Any:
        found = await run.step("find", "crm.find", id=1)
        await run.step("tell", "crm.find", id=2, text=f"call {found['people'][0]['phone']}")

    spec = ActionSpec(name="crm.find", kind="command", command="crm.FindV1", output_marks=("/people/*/phone",))
    story = Story(declared, {"crm.find": spec}).when(begun())
    story.when(done("find", {"people": [{"phone": "0123-456"}]}))
    assert leaks(story, "0123-456") == []
    assert story.of(ev.StepSucceeded)[0].marks == ("/output/people/0/phone",)
    assert story.of(ev.StepScheduled)[1].marks == ("/input/text",)


def test_what_a_fact_declares_as_personal_is_marked() -> None:
    story = Story(sagas.waiting).when(begun(), matched("paid", {"iban": "DE0012345"}, marks=("/iban",)))
    assert leaks(story, "DE0012345") == []


def test_a_mark_points_at_what_is_there() -> None:
    story = Story(sagas.personal).when(begun({"email": EMAIL, "plan": "starter"}, marks=("/email",)))
    story.when(done("account", {"login": EMAIL}))
    for event in story.log:
        for mark in event.marks:
            name, *rest = segments(mark)
            assert EMAIL in resolve(getattr(event, name), tuple(rest))


def test_a_failure_that_repeats_a_personal_value_is_marked_down_to_the_ending() -> None:
    story = Story(sagas.personal).when(begun({"email": EMAIL, "plan": "starter"}, marks=("/email",)))
    story.when(done("account", {}), matched("confirmed"))
    story.hear(lambda at: Decided(at=at, name="check", approved=True, by="boss", comment=f"{EMAIL} is fine"))
    assert leaks(story, EMAIL) == []
    story = Story(sagas.personal).when(begun({"email": EMAIL, "plan": "starter"}, marks=("/email",)))
    story.when(lost("account", f"no box {EMAIL}", ambiguous=True), undo_lost("account", EMAIL, retryable=False))
    story.when(abandoned()).is_("compensation_failed")
    assert leaks(story, EMAIL) == []
    story = Story(sagas.blunt).when(begun({"email": EMAIL}, marks=("/email",)))
    story.when(lost("one", f"no box {EMAIL}")).is_("parked")
    story.hear(lambda at: SkipAsked(at=at, by="ann", step="one", output={}, reason=f"told {EMAIL}")).is_("failed")
    assert leaks(story, EMAIL) == []


personal_text = st.text(alphabet=st.characters(codec="utf-8"), min_size=SHORTEST_TAINT, max_size=20).map(
    lambda text: f"«{text}»"
)  # brackets keep a random text from being part of the engine's own words
places = st.recursive(
    st.sampled_from(["#", "dear #, welcome", "other"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab/~c"), inner, max_size=3),
    max_leaves=6,
)


def filled(value: Any, text: str) -> Any:
    if isinstance(value, str):
        return value.replace("#", text)
    if isinstance(value, list):
        return [filled(one, text) for one in value]
    return {name: filled(one, text) for name, one in value.items()}


@settings(max_examples=120, deadline=None)
@for_all(
    text=personal_text,
    output=places,
    fact=places,
    end=st.sampled_from([(approved("check"),), (cancelled(), undone("account")), (lost("account"), abandoned())]),
)
def test_no_personal_text_is_outside_the_marks_wherever_modules_repeat_it(
    text: str, output: Any, fact: Any, end: Any
) -> None:
    story = Story(sagas.personal).when(begun({"email": text, "plan": "starter"}, marks=("/email",)))
    story.when(done("account", filled(output, text)), matched("confirmed", {"said": filled(fact, text)}), *end)
    assert leaks(story, text) == []
