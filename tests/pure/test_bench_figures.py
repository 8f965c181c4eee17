"""What the bench makes of its measurements: medians, verdicts, the page."""

from __future__ import annotations

import pytest

from contracts.problems import NotFound
from scripts.bench.figures import FIGURES, Measured, Round, named, verdict
from scripts.bench.report import bench, page

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


def test_the_page_has_a_row_for_each_figure() -> None:
    measured = [Measured(figure, (Round(figure.goal, dict.fromkeys(figure.beside, 1234.5)),)) for figure in FIGURES]
    document = {
        "measured_at": "2030-01-01T00:00:00+00:00",
        "machine": "2 cores",
        "quick": False,
        "figures": [one.to_document() for one in measured],
    }
    text = page(document)
    assert text.count("| goal |") == len(FIGURES) + 1
    assert "steps per second 1,234" in text
    assert "medians of three rounds" in text
