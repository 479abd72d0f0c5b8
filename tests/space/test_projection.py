"""Projected widths meet every budget and leave almost nothing unused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlprune.budgets import Budget, Latency
from rlprune.compaction import build, discover
from rlprune.errors import PlanError
from rlprune.inputs import ExampleInputs
from rlprune.space import project, uniform
from rlprune.space.nearest import NearestTable, nearest
from tests.problem.problems import INPUTS, evaluator, groups, network, tiles


def wishes(count: int, seed: int) -> list[float]:
    return np.random.default_rng(seed).uniform(0.05, 1.0, count).tolist()


@pytest.mark.parametrize("budgets", [{"macs": 0.5}, {"params": 0.2}, {"macs": 0.4, "bytes": 0.3}])
def test_projected_widths_meet_and_fill_the_budgets(budgets: dict[str, float]) -> None:
    problem = evaluator(budgets)
    for seed in range(20):
        widths = project(problem, wishes(len(problem.space), seed))
        assert -0.01 < max(problem.violations(problem.space.plan(widths)).values()) <= 0
        module = build(groups(), problem.space.plan(widths))
        for budget in problem.budgets:
            assert budget.value(module, INPUTS) <= budget.limit


def test_projection_keeps_the_proportions_that_were_asked_for() -> None:
    problem = evaluator({"macs": 0.5})
    ratios = wishes(len(problem.space), 3)
    widths = project(problem, ratios)
    dense = problem.space.sizes
    inside = [i for i, width in enumerate(widths) if 1 < width < dense[i]]
    scales = [widths[i] / (ratios[i] * dense[i]) for i in inside]
    rounding = max(1.5 / (ratios[i] * dense[i]) for i in inside)
    assert max(scales) - min(scales) < 2 * rounding


def test_a_modest_wish_is_scaled_up_to_the_budget() -> None:
    problem = evaluator({"macs": 0.5})
    low = project(problem, [0.1] * len(problem.space))
    high = project(problem, [0.9] * len(problem.space))
    assert low == high


def test_an_idle_budget_leaves_the_network_whole() -> None:
    problem = evaluator({"macs": 1.0})
    assert project(problem, [0.3] * len(problem.space)) == problem.space.largest
    assert uniform(problem) == (1.0, problem.space.largest)


def test_uniform_widths_are_the_largest_that_fit() -> None:
    problem = evaluator({"macs": 0.5, "params": 0.3})
    ratio, widths = uniform(problem)
    assert max(problem.violations(problem.space.plan(widths)).values()) <= 0
    wider = problem.space.choice(np.full(len(problem.space), ratio + 0.05))
    assert max(problem.violations(problem.space.plan(wider)).values()) > 0


def test_a_black_box_is_met_in_few_calls() -> None:
    calls: list[int] = []

    def counted(model: torch.nn.Module, example_inputs: ExampleInputs) -> float:
        calls.append(1)
        return tiles(model, example_inputs)

    problem = evaluator({"tiles": Budget(counted, "50%"), "macs": 0.9})
    for seed in range(5):
        calls.clear()
        widths = project(problem, wishes(len(problem.space), seed))
        assert max(problem.violations(problem.space.plan(widths)).values()) <= 0
        assert len(calls) <= 14


def test_a_latency_budget_is_never_left_violated_by_its_own_measurements() -> None:
    problem = evaluator({"latency": Latency(0.9, repeats=3, warmup=1)})
    widths = project(problem, wishes(len(problem.space), 0))
    met = max(problem.violations(problem.space.plan(widths)).values()) <= 0
    assert met or widths == problem.space.smallest


def test_widths_stay_legal_under_rounding_and_bounds() -> None:
    limited = discover(network(), INPUTS, round_to=8, bounds={"*": (0.3, 0.9)})
    problem = evaluator({"macs": 0.5}, groups=limited)
    for seed in range(10):
        widths = project(problem, wishes(len(problem.space), seed))
        for width, group in zip(widths, limited.prunable, strict=True):
            assert width in group.legal_widths()
        assert max(problem.violations(problem.space.plan(widths)).values()) <= 0


@pytest.mark.parametrize(
    ("width", "expected"), [(-3, 2), (2.9, 2), (3, 2), (3.1, 4), (6, 4), (9, 9), (100, 9)]
)
def test_nearest_prefers_the_smaller_on_a_tie(width: float, expected: int) -> None:
    assert nearest((2, 4, 8, 9), width) == expected


def test_many_wishes_at_once_get_the_answers_of_one_by_one() -> None:
    rng = np.random.default_rng(0)
    legal = [(2, 4, 8, 9), (0, 1), tuple(range(1, 65)), (5,), tuple(range(0, 100, 7))]
    sizes = [values[-1] + 2 for values in legal]
    table = NearestTable(legal, sizes)
    wishes = rng.uniform(-2, 110, (400, len(legal)))
    wishes[200:] = np.rint(2 * wishes[200:]) / 2
    expected = [[nearest(v, w) for v, w in zip(legal, row, strict=True)] for row in wishes]
    np.testing.assert_array_equal(table(wishes), expected)


def test_a_wrong_number_of_ratios_is_refused() -> None:
    problem = evaluator()
    with pytest.raises(PlanError, match="1 ratios given for"):
        project(problem, [0.5])
