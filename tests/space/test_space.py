"""Decisions: ties and branches, and the way from choices to plans and back."""

from __future__ import annotations

import numpy as np
import pytest

from rlprune import importance
from rlprune.budgets import Budget, count_bytes
from rlprune.compaction import build
from rlprune.errors import ConfigError, InfeasibleBudgetError
from rlprune.plan import Plan
from rlprune.problem import Problem
from rlprune.search import search
from rlprune.space import Codec, Space, project
from tests.problem.problems import INPUTS, evaluator, groups, tiles


def space(**options: object) -> Space:
    return Space(groups(), importance.scores(groups(), "l1"), **options)  # type: ignore[arg-type]


def random_choice(space: Space, rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(rng.choice(decision.legal)) for decision in space.decisions)


@pytest.mark.parametrize("options", [{}, {"tie": ["block*"]}, {"depth": True, "tie": "block*"}])
def test_a_choice_is_a_plan_and_a_plan_a_choice(options: dict[str, object]) -> None:
    found, rng = space(**options), np.random.default_rng(0)
    for _ in range(20):
        plan = found.plan(random_choice(found, rng))
        choice = found.choice(found.ratios(plan))
        assert found.plan(choice) == plan
        assert found.choice(found.ratios(found.plan(choice))) == choice
        assert found.adjusted(plan, choice) == plan
        assert list(found.counts(choice)) == list(plan.widths.values())


def test_tied_groups_share_one_ratio() -> None:
    found = space(tie=["block*", "head*"])
    kinds = {decision.name: decision.kind for decision in found.decisions}
    assert kinds == {"stem.0": "width", "block*": "tie", "down.0": "width", "head*": "tie"}
    tie = next(d for d in found.decisions if d.name == "block*")
    assert tie.size == max(groups().prunable[column].width for column in tie.columns)
    rng = np.random.default_rng(1)
    for _ in range(20):
        ratios = found.plan(random_choice(found, rng)).ratios
        assert ratios["block1.conv1"] == pytest.approx(ratios["block2.conv1"], abs=1 / 24)


def test_ties_that_name_nothing_or_the_same_twice_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'layer\*' matches no prunable group; they are stem"):
        space(tie=["layer*"])
    with pytest.raises(ConfigError, match=r"'block1.conv1' is matched by 'block\*' and by"):
        space(tie=["block*", "*conv1"])


def test_a_dropped_branch_keeps_nothing_whatever_its_widths() -> None:
    found = space(depth=True)
    names = [decision.name for decision in found.decisions]
    assert names.index("block1") < names.index("block1.conv1")
    choice = list(found.largest)
    choice[names.index("block1")] = 0
    plan = found.plan(choice)
    assert plan.widths["block1.conv1"] == 0
    assert plan == found.plan(found.largest).drop(groups(), ["block1"])
    narrow = list(choice)
    narrow[names.index("block1.conv1")] = 1
    assert found.plan(narrow) == plan
    assert groups().dropped(plan.widths) == (groups().branches["block1"],)


def test_formulas_know_what_goes_with_a_branch() -> None:
    problem = evaluator({"macs": 0.9, "params": 0.9, "bytes": 0.9}, depth=True)
    rng, found = np.random.default_rng(2), problem.space
    plans = [found.plan(random_choice(found, rng)) for _ in range(10)]
    assert any(0 in plan.widths.values() for plan in plans)
    for plan in plans:
        small = build(groups(), plan)
        costs = problem.costs(plan)
        assert costs["bytes"] == count_bytes(small)
        for budget in problem.budgets:
            assert costs[budget.name] == budget.value(small, INPUTS)
    widths = np.array([list(plan.widths.values()) for plan in plans])
    for budget in problem.budgets:
        assert budget.estimate is not None
        one_by_one = [budget.estimate(row.tolist()) for row in widths]
        np.testing.assert_array_equal(budget.estimate.many(widths), one_by_one)


def test_branches_go_where_widths_alone_do_not_suffice() -> None:
    budgets = {"tiles": Budget(tiles, 5), "macs": 0.9}
    with pytest.raises(InfeasibleBudgetError, match=r"smallest reachable value is 7"):
        evaluator(budgets)
    problem = evaluator(budgets, depth=True)
    rng = np.random.default_rng(0)
    for _ in range(5):
        ratios = rng.uniform(0.05, 1.0, len(problem.space))
        plan = problem.space.plan(project(problem, ratios))
        assert max(problem.violations(plan).values()) <= 0
        assert groups().dropped(plan.widths)


def test_projection_keeps_branches_that_are_wanted_and_fit() -> None:
    problem = evaluator({"macs": 0.5}, depth=True)
    found = problem.space
    ratios = np.full(len(found), 0.8)
    assert not groups().dropped(found.plan(project(problem, ratios)).widths)
    ratios[[d.name for d in found.decisions].index("block2")] = 0.2
    plan = found.plan(project(problem, ratios))
    assert [branch.name for branch in groups().dropped(plan.widths)] == ["block2"]
    assert -0.01 < problem.violations(plan)["macs"] <= 0


def test_previews_follow_branches_and_never_measure() -> None:
    problem = evaluator({"macs": 0.5, "tiles": Budget(tiles, "90%")}, depth=True)
    codec = Codec(problem)
    calls = problem.ledger.calls["tiles"]
    actions = np.random.default_rng(3).uniform(-1, 1, (16, len(problem.space)))
    previews = codec.previews(actions)
    assert problem.ledger.calls["tiles"] == calls
    branches = problem.space.branches
    np.testing.assert_array_equal(
        previews.ratios[:, branches] > 0.5, codec.ratios(actions)[:, branches] > 0.5
    )


def test_adjusting_changes_as_few_units_as_it_can() -> None:
    found = space()
    last = {g.name: tuple(range(g.width // 2, g.width)) for g in groups().prunable}
    plan = Plan(last, {g.name: g.width for g in groups().prunable})
    counts = np.array(list(plan.widths.values()))
    narrower = found.adjusted(plan, tuple((counts - 2).tolist()))
    wider = found.adjusted(plan, tuple((counts + 2).tolist()))
    for name, units in plan.keep.items():
        assert set(narrower.keep[name]) < set(units) < set(wider.keep[name])
        gone = set(units) - set(narrower.keep[name])
        assert float(found.scores[name][list(gone)].max()) <= float(
            found.scores[name][list(narrower.keep[name])].min()
        )


def dropping(problem: Problem) -> set[Plan]:
    return {e.plan for e in problem.ledger if groups().dropped(e.plan.widths)}


@pytest.mark.parametrize("agent", ["random", "cem", "amc", "ppo_lagrangian"])
def test_every_agent_searches_over_depth(agent: str) -> None:
    problem = evaluator({"macs": 0.6, "tiles": Budget(tiles, "80%")}, depth=True)
    options = {
        "ppo_lagrangian": {"proposals": 16, "warmup": 4, "epochs": 2},
        "amc": {"updates": 2, "hidden": 8, "warmup": 4},
    }
    chosen = {"name": agent, **options.get(agent, {})}
    result = search(problem, chosen, evaluations=16, seed=1, progress=False)
    assert dropping(problem)
    assert result.best.feasible
    assert len(result.ledger) == 16
