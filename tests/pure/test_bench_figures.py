"""What the bench makes of its measurements: medians, verdicts, the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from contracts.problems import NotFound
from scripts.bench.figures import FIGURES, Figure, Measured, Round, named, verdict
from scripts.bench.report import bench, page, renewed

BY_NAME = {figure.name: figure for figure in FIGURES}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("steps_vs_dbos", 14.99, "short"),
        ("steps_vs_dbos", 15, "enough"),
        ("steps_vs_dbos", 30, "goal"),
        ("tail", 2.01, "short"),
        ("tail", 2, "enough"),
        ("tail", 1.5, "goal"),
        ("transactions_saturated", 0.02, "goal"),
        ("latency_vs_dbos", 0.36, "short"),
    ],
)
def test_a_figure_is_judged_in_its_own_direction(name: str, value: float, expected: str) -> None:
    assert verdict(BY_NAME[name], value) == expected


def test_the_median_round_stands_with_the_medians_beside_it() -> None:
    rounds = (Round(8, {"steps_per_second": 1}), Round(30, {"steps_per_second": 3}), Round(16, {"steps_per_second": 2}))
    measured = Measured(BY_NAME["steps_vs_dbos"], rounds)
    assert (measured.value, measured.verdict, measured.beside) == (16, "enough", {"steps_per_second": 2})
    assert measured.to_document()["rounds"] == [8, 30, 16]


def test_goals_ask_for_more_than_the_least() -> None:
    for figure in FIGURES:
        assert (figure.goal > figure.at_least) == (figure.better == "more"), figure.name


def test_figures_are_chosen_by_name_and_a_wrong_name_is_refused() -> None:
    assert [figure.name for figure in named(["tail", "group_commit"])] == ["group_commit", "tail"]
    assert named([]) == FIGURES
    with pytest.raises(NotFound, match="no figure is called speed"):
        bench(["speed"], quick=True, peer="none", postgres_url="", rabbitmq_url="", write=False)


def a_document(value: Callable[[Figure], float], at: str, *names: str) -> dict[str, Any]:
    measured = [Measured(one, (Round(value(one), dict.fromkeys(one.beside, 1234.5)),)) for one in named(names)]
    return {
        "measured_at": at,
        "machine": "2 cores",
        "quick": False,
        "figures": [one.to_document() for one in measured],
    }


def test_the_page_has_a_row_for_each_figure() -> None:
    text = page(a_document(lambda figure: figure.goal, "2030-01-01T00:00:00+00:00"))
    assert text.count("| goal |") == len(FIGURES) + 1
    assert "steps per second 1,234" in text
    assert "medians of three rounds" in text


def test_figures_measured_again_replace_their_rows_and_say_when() -> None:
    whole = page(a_document(lambda figure: figure.goal, "2030-01-01T00:00:00+00:00"))
    some = ("tail", "lasting_lag")
    text = renewed(whole, a_document(lambda figure: figure.at_least, "2031-02-03T04:05:06+00:00", *some))
    changed = [(old, new) for old, new in zip(whole.split("\n"), text.split("\n"), strict=True) if old != new]
    assert [new.split(" | ")[0].removeprefix("| ") for _, new in changed] == [BY_NAME[name].question for name in some]
    assert all("| enough |" in new and "measured again 2031-02-03T04:05:06+00:00 |" in new for _, new in changed)
