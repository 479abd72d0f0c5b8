"""Projected widths meet every budget and leave almost nothing unused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlprune.budgets import Budget, Latency
from rlprune.compaction import build
from rlprune.errors import PlanError
from rlprune.inputs import ExampleInputs
from rlprune.problem import projection
from rlprune.structure import discover
from tests.problem.problems import INPUTS, evaluator, groups, network, tiles


def wishes(count: int, seed: int) -> list[float]:
    return np.random.default_rng(seed).uniform(0.05, 1.0, count).tolist()


@pytest.mark.parametrize("budgets", [{"macs": 0.5}, {"params": 0.2}, {"macs": 0.4, "bytes": 0.3}])
def test_projected_widths_meet_and_fill_the_budgets(budgets: dict[str, float]) -> None:
    problem = evaluator(budgets)
    for seed in range(20):
        widths = projection.project(problem, wishes(len(problem.decisions), seed))
        assert -0.01 < max(problem.violations(widths).values()) <= 0
        module = build(groups(), problem.plan(widths))
        for budget in problem.budgets:
            assert budget.value(module, INPUTS) <= budget.limit


def test_projection_keeps_the_proportions_that_were_asked_for() -> None:
    problem = evaluator({"macs": 0.5})
    ratios = wishes(len(problem.decisions), 3)
    widths = projection.project(problem, ratios)
    dense = [group.width for group in problem.decisions]
    inside = [i for i, width in enumerate(widths) if 1 < width < dense[i]]
    scales = [widths[i] / (ratios[i] * dense[i]) for i in inside]
    rounding = max(1.5 / (ratios[i] * dense[i]) for i in inside)
    assert max(scales) - min(scales) < 2 * rounding


def test_a_modest_wish_is_scaled_up_to_the_budget() -> None:
    problem = evaluator({"macs": 0.5})
    low = projection.project(problem, [0.1] * len(problem.decisions))
    high = projection.project(problem, [0.9] * len(problem.decisions))
    assert low == high


def test_an_idle_budget_leaves_the_network_whole() -> None:
    problem = evaluator({"macs": 1.0})
    assert projection.project(problem, [0.3] * len(problem.decisions)) == problem.max_widths
    assert projection.uniform_widths(problem) == (1.0, problem.max_widths)


def test_uniform_widths_are_the_largest_that_fit() -> None:
    problem = evaluator({"macs": 0.5, "params": 0.3})
    ratio, widths = projection.uniform_widths(problem)
    assert max(problem.violations(widths).values()) <= 0
    wider = tuple(
        projection.nearest(choices, (ratio + 0.05) * group.width)
        for choices, group in zip(problem.legal, problem.decisions, strict=True)
    )
    assert max(problem.violations(wider).values()) > 0


def test_a_black_box_is_met_in_few_calls() -> None:
    calls: list[int] = []

    def counted(model: torch.nn.Module, example_inputs: ExampleInputs) -> float:
        calls.append(1)
        return tiles(model, example_inputs)

    problem = evaluator({"tiles": Budget(counted, "50%"), "macs": 0.9})
    for seed in range(5):
        calls.clear()
        widths = projection.project(problem, wishes(len(problem.decisions), seed))
        assert max(problem.violations(widths).values()) <= 0
        assert len(calls) <= 14


def test_a_latency_budget_is_never_left_violated_by_its_own_measurements() -> None:
    problem = evaluator({"latency": Latency(0.9, repeats=3, warmup=1)})
    widths = projection.project(problem, wishes(len(problem.decisions), 0))
    met = max(problem.violations(widths).values()) <= 0
    assert met or widths == problem.min_widths


def test_widths_stay_legal_under_rounding_and_bounds() -> None:
    limited = discover(network(), INPUTS, round_to=8, bounds={"*": (0.3, 0.9)})
    problem = evaluator({"macs": 0.5}, groups=limited)
    for seed in range(10):
        widths = projection.project(problem, wishes(len(problem.decisions), seed))
        for width, group in zip(widths, problem.decisions, strict=True):
            assert width in group.legal_widths()
        assert max(problem.violations(widths).values()) <= 0


@pytest.mark.parametrize(
    ("width", "expected"), [(-3, 2), (2.9, 2), (3, 2), (3.1, 4), (6, 4), (9, 9), (100, 9)]
)
def test_nearest_prefers_the_smaller_on_a_tie(width: float, expected: int) -> None:
    assert projection.nearest((2, 4, 8, 9), width) == expected


def test_a_wrong_number_of_ratios_is_refused() -> None:
    problem = evaluator()
    with pytest.raises(PlanError, match="1 ratios given for"):
        projection.project(problem, [0.5])
