"""Costs without a formula are learned from few measurements, and met with nothing to spare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import rlprune
from rlprune.budgets import peak_memory
from rlprune.compaction import build
from rlprune.models import create
from rlprune.plan import Plan
from rlprune.problem import Problem
from rlprune.search import search
from rlprune.space import Codec, CostModel, onto_budgets, raised
from rlprune.space.layers import Layers
from rlprune.space.learned import LearnedCost, Terms
from rlprune.structure import Groups
from tests.problem.problems import evaluator
from tests.problem.problems import tiles as tiles_of_units

Cost = Callable[..., float]


@cache
def resnet() -> tuple[Groups, Layers]:
    model = create(name="resnet20", num_classes=10).eval()
    groups = rlprune.discover(model, torch.zeros(1, 3, 32, 32))
    return groups, Layers(groups)


def ranks(values: np.ndarray) -> np.ndarray:
    return values.argsort().argsort().astype(float)


def tiles(side: int) -> Cost:
    """A cost of whole tiles, measured on the network itself."""

    def cost(model: nn.Module, example_inputs: object = None) -> float:
        return float(
            sum(
                -(-m.in_channels // side) * -(-m.out_channels // side)
                for m in model.modules()
                if isinstance(m, nn.Conv2d)
            )
        )

    return cost


def peak(model: nn.Module, example_inputs: object = None) -> float:
    return peak_memory(model, torch.zeros(1, 3, 32, 32))


def largest_weight(model: nn.Module, example_inputs: object = None) -> float:
    return float(max(p.numel() for p in model.parameters()))


def test_sizes_of_layers_add_up() -> None:
    groups, layers = resnet()
    rng = np.random.default_rng(0)
    widths = np.array([[rng.integers(1, g.width + 1) for g in groups.prunable] for _ in range(4)])
    assert layers.sizes("macs", widths).sum(1) == pytest.approx(
        [groups.macs(row.tolist()) for row in widths]
    )
    convolutions = [
        float(
            sum(
                p.numel()
                for n, p in build(groups, Plan.from_widths(groups, row.tolist())).named_parameters()
                if p.ndim > 1
            )
        )
        for row in widths
    ]
    assert layers.sizes("weights", widths).sum(1) == pytest.approx(convolutions)


@pytest.mark.parametrize("cost", [tiles(8), tiles(16), peak, largest_weight])
def test_sixty_measurements_rank_what_was_not_measured(cost: Cost) -> None:
    groups, layers = resnet()
    dense = np.array([g.width for g in groups.prunable], dtype=float)
    rng = np.random.default_rng(1)
    shares = np.clip(rng.uniform(0.3, 0.9, (110, 1)) + rng.normal(0, 0.2, (110, len(dense))), 0, 1)
    widths = np.maximum(np.round(shares * dense), 1).astype(int)
    plans = [Plan.from_widths(groups, row.tolist()) for row in widths]
    values = np.array([cost(build(groups, plan)) for plan in plans])
    model = LearnedCost(Terms(layers, dense), dense, cost(groups.model))
    model.learn(np.vstack([dense[None], widths[:60]]), np.append(cost(groups.model), values[:60]))
    forecast, spread = model.forecast(widths[60:])
    assert np.corrcoef(ranks(forecast), ranks(values[60:]))[0, 1] >= 0.9
    assert (spread >= 0).all()
    assert model(dense[None])[0] == pytest.approx(cost(groups.model), rel=0.05)


def one_step_up(problem: Problem, plan: Plan) -> Iterator[dict[str, float]]:
    """Costs of every plan in which one decision is raised by a step."""
    choice = list(problem.space.choice(problem.space.ratios(plan)))
    for at, decision in enumerate(problem.space.decisions):
        wider = [value for value in decision.legal if value > choice[at]]
        if wider:
            yield problem.costs(problem.space.plan([*choice[:at], wider[0], *choice[at + 1 :]]))


def test_no_returned_plan_can_be_raised_without_raising_a_cost() -> None:
    problem = evaluator({"tiles": rlprune.Budget(tiles_of_units, limit="60%")})
    plan = search(problem, "random", evaluations=4, seed=0).plan
    costs = problem.costs(plan)
    assert costs["tiles"] <= problem.budgets[0].limit
    for other in one_step_up(problem, plan):
        assert other["tiles"] > costs["tiles"]


@pytest.mark.parametrize("fn", [tiles_of_units, peak_memory])
def test_projections_take_few_calls_and_meet_the_budget(fn: Cost) -> None:
    problem = evaluator({"cost": rlprune.Budget(fn, limit="70%")})
    costs = CostModel(problem)
    learned = problem.ledger.calls["cost"]
    assert learned <= 20
    rng = np.random.default_rng(0)
    for _ in range(20):
        choice = onto_budgets(problem, rng.uniform(0.2, 1.0, len(problem.space)), costs)
        assert problem.violations(problem.space.plan(choice))["cost"] <= 0
    assert problem.ledger.calls["cost"] - learned <= 20 * 3


@pytest.mark.parametrize("fn", [tiles_of_units, peak_memory, largest_weight])
def test_different_proposals_get_different_previews(fn: Cost) -> None:
    problem = evaluator({"cost": rlprune.Budget(fn, limit="70%")})
    codec = Codec(problem)
    actions = np.random.default_rng(0).uniform(-1, 1, (128, len(problem.space)))
    previews = codec.previews(actions)
    assert len(np.unique(previews.ratios.round(6), axis=0)) >= 64


def test_raising_ends_where_a_step_breaks_a_budget() -> None:
    problem = evaluator({"tiles": rlprune.Budget(tiles_of_units, limit="60%"), "macs": 0.8})
    choice = raised(problem, problem.space.smallest)
    plan = problem.space.plan(choice)
    assert max(problem.violations(plan).values()) <= 0
    for other in one_step_up(problem, plan):
        assert any(other[b.name] > b.limit for b in problem.budgets)
