"""The evaluator: true costs, one ledger, replay from disk, refusal of what cannot be."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rlprune import importance
from rlprune.budgets import Budget, Latency
from rlprune.compaction import build, discover
from rlprune.compensation import LeastSquares
from rlprune.errors import (
    BudgetError,
    CheckpointError,
    ConfigError,
    DataError,
    InfeasibleBudgetError,
    PlanError,
    ScoreError,
)
from rlprune.inputs import ExampleInputs
from rlprune.plan import Plan
from rlprune.problem import (
    DataQuality,
    EvaluatorConfig,
    Problem,
    ScoreQuality,
    create,
)
from rlprune.space import FEATURES, CostModel, project, uniform
from tests.problem.problems import (
    INPUTS,
    digits,
    evaluator,
    groups,
    held_out,
    network,
    tiles,
)


def random_plan(problem: Problem, seed: int) -> Plan:
    generator = np.random.default_rng(seed)
    chosen = tuple(int(generator.choice(decision.legal)) for decision in problem.space.decisions)
    return problem.space.plan(chosen)


def smallest(problem: Problem) -> Plan:
    return problem.space.plan(problem.space.smallest)


def largest(problem: Problem) -> Plan:
    return problem.space.plan(problem.space.largest)


def test_estimates_equal_the_values_of_the_compacted_network() -> None:
    problem = evaluator({"macs": 0.5, "params": 0.5, "bytes": 0.5})
    assert all(budget.estimate is not None for budget in problem.budgets)
    for seed in range(15):
        plan = random_plan(problem, seed)
        module = build(groups(), plan)
        costs = problem.costs(plan)
        for budget in problem.budgets:
            assert costs[budget.name] == budget.value(module, INPUTS)


def test_formulas_take_many_plans_at_once() -> None:
    problem = evaluator({"macs": 0.5, "params": 0.5, "bytes": 0.5})
    plans = [random_plan(problem, seed) for seed in range(15)]
    widths = np.array([list(plan.widths.values()) for plan in plans])
    for budget in problem.budgets:
        assert budget.estimate is not None
        one_by_one = [budget.estimate(row.tolist()) for row in widths]
        np.testing.assert_array_equal(budget.estimate.many(widths), one_by_one)


def test_black_boxes_see_the_compacted_network() -> None:
    problem = evaluator({"tiles": Budget(tiles, "90%"), "peak_memory": 0.9})
    plan = random_plan(problem, 1)
    module = build(groups(), plan)
    costs = problem.costs(plan)
    assert costs["tiles"] == tiles(module, INPUTS)
    assert costs["peak_memory"] == problem.budgets[1].value(module, INPUTS)


def test_the_ledger_holds_every_distinct_candidate_once() -> None:
    problem = evaluator()
    first, second = random_plan(problem, 0), random_plan(problem, 1)
    asked = [problem.evaluate(plan) for plan in (first, second, first)]
    assert [item.cached for item in asked] == [False, False, True]
    assert [item.plan for item in problem.ledger] == [first, second]
    assert [item.index for item in problem.ledger] == [0, 1]
    assert asked[2].quality == asked[0].quality
    assert (problem.stats["unique"], problem.stats["cache_hits"]) == (2, 1)
    problem.costs(random_plan(problem, 2))
    problem.rescore(second)
    assert len(problem.ledger) == 2


def test_an_evaluation_knows_whether_it_is_feasible() -> None:
    problem = evaluator({"macs": 0.5, "params": 0.5})
    _, choice = uniform(problem)
    assert problem.evaluate(problem.space.plan(choice)).feasible
    whole = problem.evaluate(largest(problem))
    assert not whole.feasible
    assert whole.violations["macs"] == pytest.approx(1.0)


def test_the_users_network_is_never_changed() -> None:
    before = {key: value.clone() for key, value in network().state_dict().items()}
    problem = evaluator(compensation="bn", calibration=digits())
    problem.evaluate(random_plan(problem, 0))
    after = network().state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert not network().training


@pytest.mark.parametrize("statistics", ["batch", "recalibrate"])
def test_quality_does_not_depend_on_what_was_evaluated_before(statistics: str) -> None:
    quality = DataQuality(
        network(), held_out(), statistics=statistics, calibration=held_out(), precision="float32"
    )
    plan = random_plan(evaluator(), 5)
    alone = evaluator(quality=quality).evaluate(plan).quality
    problem = evaluator(quality=quality)
    for seed in range(3):
        problem.evaluate(random_plan(problem, seed))
    assert problem.evaluate(plan).quality == alone


_CHILD = """
import sys, torch
torch.set_num_threads(1)
from rlprune.problem import DataQuality
from rlprune.models import create
from rlprune.space import FEATURES, CostModel, project, uniform
from rlprune.compaction import discover
from tests.problem.problems import held_out
nets = [create("digits_cnn", num_classes=10, width=width) for width in (24, 12)]
for net, path in zip(nets, sys.argv[1:]):
    net.load_state_dict(torch.load(path, weights_only=True))
print(DataQuality(nets[0], held_out())(nets[1]).hex())
"""


def test_quality_is_the_same_in_another_process(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    problem = evaluator()
    small = build(
        groups(), problem.space.plan([size // 2 for size in problem.space.sizes.tolist()])
    )
    paths = [tmp_path / "dense.pt", tmp_path / "small.pt"]
    for net, path in zip((network(), small), paths, strict=True):
        torch.save(net.state_dict(), path)
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, *map(str, paths)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = DataQuality(network(), held_out())(small)
    finally:
        torch.set_num_threads(threads)
    assert float.fromhex(child.stdout.split()[-1]) == here


def search(problem: Problem, count: int) -> list[tuple[Plan, float, str]]:
    """A small random search whose path depends on measured costs."""
    generator = np.random.default_rng(0)
    while len(problem.ledger) < count:
        choice = project(problem, generator.uniform(0.1, 1, len(problem.space)))
        problem.evaluate(problem.space.plan(choice))
    return [(item.plan, item.quality, json.dumps(item.costs)) for item in problem.ledger]


def test_a_search_replays_from_a_store_that_was_cut_anywhere(tmp_path: Path) -> None:
    budgets = {"macs": 0.6, "latency": Latency(0.95, repeats=3, warmup=1)}
    path = tmp_path / "run" / "evaluations.jsonl"
    problem = evaluator(budgets, store=path)
    whole = search(problem, 6)
    shares = CostModel(problem).shares
    problem.close()
    text = path.read_bytes()
    again = evaluator(budgets, store=path)
    assert search(again, 6) == whole
    assert np.array_equal(CostModel(again).shares, shares)
    assert again.stats["replayed"] == 6
    assert again.stats["seconds"]["forward"] == 0
    again.close()
    assert path.read_bytes() == text

    lines = text.splitlines(keepends=True)
    kept = next(i for i, line in enumerate(lines) if b'"evaluation"' in line) + 1
    path.write_bytes(b"".join(lines[:kept]) + lines[kept][: len(lines[kept]) // 2])
    resumed = evaluator(budgets, store=path)
    first = search(resumed, 1)
    assert first == whole[:1]
    assert resumed.stats["replayed"] == 1
    assert all(json.loads(line) for line in path.read_bytes().splitlines())
    resumed.close()


def test_deterministic_budgets_resume_to_the_same_ledger_after_any_cut(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    budgets = {"macs": 0.6, "tiles": Budget(tiles, "80%")}
    problem = evaluator(budgets, store=path)
    whole = search(problem, 5)
    problem.close()
    text = path.read_bytes()
    for share in (0.0, 0.3, 0.7, 0.99):
        path.write_bytes(text[: int(share * len(text))])
        resumed = evaluator(budgets, store=path)
        assert search(resumed, 5) == whole
        resumed.close()


def test_a_store_of_another_problem_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    evaluator({"macs": 0.5}, store=path).close()
    with pytest.raises(CheckpointError, match=r"another problem: budgets changed"):
        evaluator({"macs": 0.4}, store=path)
    with pytest.raises(CheckpointError, match=r"another problem: quality, rescoring changed"):
        evaluator(quality=DataQuality(network(), held_out(100)), store=path)
    scores = importance.scores(groups(), "l2")
    with pytest.raises(CheckpointError, match=r"another problem: importance changed"):
        evaluator(scores=scores, store=path)
    path.write_text('{"some": "json"}\n')
    with pytest.raises(CheckpointError, match="not a store of evaluations"):
        evaluator(store=path)
    path.write_text("no json\n")
    with pytest.raises(CheckpointError, match="line 1 is not JSON"):
        evaluator(store=path)


def test_a_store_knows_a_method_by_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    data = [(part, None) for part in digits()[0][:200].split(100)]

    def compensated(ridge: float, calibration: object = data) -> Problem:
        return evaluator(
            store=path, compensation=LeastSquares(ridge=ridge), calibration=calibration
        )

    problem = compensated(1e-3)
    first = problem.evaluate(random_plan(problem, 0))
    problem.close()
    again = compensated(1e-3)
    assert again.evaluate(first.plan) == first
    again.close()
    with pytest.raises(CheckpointError, match="another problem: compensation changed"):
        compensated(1e-2)
    with pytest.raises(CheckpointError, match="another problem: calibration changed"):
        compensated(1e-3, data[:1])


def test_unreachable_budgets_name_the_smallest_value_and_what_holds_it_up() -> None:
    problem = evaluator()
    least = groups().params(problem.space.smallest)
    with pytest.raises(InfeasibleBudgetError) as caught:
        evaluator({"params": 5, "macs": 0.5})
    message = str(caught.value)
    assert "budget 'params': no plan meets the limit 5 parameters" in message
    assert f"the smallest reachable value is {least:.6g} parameters" in message
    assert "fc 21% (neurons frozen: it is an output of the network)" in message
    assert "stem.0 9% (already 1 of 24 channels)" in message
    assert "'macs'" not in message


def test_unreachable_black_box_budget() -> None:
    with pytest.raises(InfeasibleBudgetError, match=r"'tiles'.*smallest reachable value is 7"):
        evaluator({"tiles": Budget(tiles, 3)})


def test_a_budget_that_fails_for_a_candidate_names_itself_and_the_widths() -> None:
    def fragile(model: nn.Module, example_inputs: ExampleInputs) -> float:
        return math.nan if tiles(model, example_inputs) < 12 else 1.0

    with pytest.raises(BudgetError, match=r"budget 'fragile'.*nan.*widths \[1, "):
        evaluator({"fragile": Budget(fragile, 2.0)})


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda model: math.nan, r"widths \[.*is nan; it must be a finite number"),
        (lambda model: 1 / 0, r"widths \[.*raised ZeroDivisionError"),
        (lambda model: "high", r"raised ValueError"),
    ],
)
def test_a_score_that_fails_names_the_candidate(score: object, message: str) -> None:
    problem = evaluator(quality=ScoreQuality(score))  # type: ignore[arg-type]
    with pytest.raises(ScoreError, match=message):
        problem.evaluate(largest(problem))


def test_illegal_plans_are_refused() -> None:
    problem = evaluator()
    with pytest.raises(PlanError, match="1 values given for"):
        problem.space.plan([3])
    choice = list(problem.space.largest)
    choice[0] = 1000
    with pytest.raises(PlanError, match=r"'stem.0'.*the value 1000 is not legal.*from 1 to"):
        problem.space.plan(choice)
    coarse = evaluator(groups=discover(network(), INPUTS, round_to=8))
    with pytest.raises(PlanError, match=r"width 3 is not legal; choose from 8 to .* steps of 8"):
        coarse.costs(problem.space.plan([3] * len(problem.space)))
    other = Plan({"conv": (0,)}, {"conv": 4})
    with pytest.raises(PlanError, match=r"another network.*'conv' is none of them"):
        problem.evaluate(other)


def test_a_plan_may_keep_any_units() -> None:
    problem = evaluator()
    prefix = random_plan(problem, 0)
    last = {name: tuple(range(w - len(prefix.keep[name]), w)) for name, w in prefix.dense.items()}
    suffix = Plan(last, prefix.dense)
    first, second = problem.evaluate(prefix), problem.evaluate(suffix)
    assert first.costs == second.costs
    assert first.quality != second.quality
    expected = build(groups(), suffix).eval()
    quality = DataQuality(network(), held_out(), precision="float32")
    assert quality(expected) == second.quality


def test_cost_shares_are_what_one_group_alone_can_save() -> None:
    problem = evaluator({"macs": 0.5, "tiles": Budget(tiles, "90%")})
    shares = CostModel(problem).shares
    assert shares.shape == (len(problem.space), 2)
    widths = list(problem.space.largest)
    widths[1] = problem.space.smallest[1]
    dense = groups().macs()
    assert shares[1, 0] == pytest.approx((dense - groups().macs(widths)) / dense)
    assert ((shares >= 0) & (shares < 1)).all()


def test_features_describe_every_decision_within_bounds() -> None:
    space = evaluator().space
    assert space.features.shape == (len(space), len(FEATURES))
    assert space.features.dtype == np.float32
    assert (np.abs(space.features) <= 1).all()
    depth = space.features[:, FEATURES.index("depth")]
    assert (depth[0], depth[-1]) == (-1, 1)
    assert (np.diff(depth) > 0).all()


def test_restart_begins_an_empty_ledger_and_keeps_results() -> None:
    problem = evaluator()
    plan = random_plan(problem, 0)
    first = problem.evaluate(plan)
    problem.restart()
    assert len(problem.ledger) == 0
    second = problem.evaluate(plan)
    assert second == first
    assert problem.stats["replayed"] == 1


class Holdout:
    """What the evaluator reads of a data set."""

    def __init__(self, count: int) -> None:
        self.holdout = held_out(count)

    def calibration(self, n: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = digits()
        return images[:n], labels[:n]


def test_create_scores_finalists_on_unseen_samples() -> None:
    config = EvaluatorConfig(images=50, rescore_images=60, precision="float32")
    problem = create(groups(), {"macs": 0.5}, data=Holdout(120), config=config)
    images, labels = held_out(120)
    plan = random_plan(problem, 0)
    seen, unseen = (
        DataQuality(
            network(), (images[part], labels[part]), kind=config.quality, precision="float32"
        )
        for part in (slice(50), slice(50, 110))
    )
    assert problem.evaluate(plan).quality == seen(problem.candidate(plan))
    assert problem.rescore(plan) == unseen(problem.candidate(plan))


def test_create_uses_data_driven_importance_compensation_and_own_scores() -> None:
    config = EvaluatorConfig(compensation=("bn",), statistics="keep", calibration_images=64)
    problem = create(groups(), {"macs": 0.5}, data=Holdout(64), importance="taylor", config=config)
    assert math.isfinite(problem.evaluate(largest(problem)).quality)
    own = create(groups(), {"macs": 0.5}, score=lambda model: 1.5)
    assert own.evaluate(smallest(own)).quality == 1.5
    with pytest.raises(DataError, match="candidates need a score"):
        create(groups(), {"macs": 0.5})
    with pytest.raises(ConfigError, match="images must be at least 1, got 0"):
        EvaluatorConfig(images=0)


def test_sensitivity_is_computed_when_asked_for_and_spends_no_evaluation() -> None:
    config = EvaluatorConfig(compensation=("least_squares",), calibration_images=64)
    problem = create(groups(), {"macs": 0.5}, data=Holdout(64), config=config)
    found = problem.sensitivity
    assert found is not None
    assert [len(curve) for curve in found] == [g.width + 1 for g in problem.groups.prunable]
    assert all(curve[-1] == 0 and curve[1] > 0 for curve in found)
    assert problem.sensitivity is found
    assert len(problem.ledger) == 0
    plain = create(
        groups(), {"macs": 0.5}, data=Holdout(64), config=replace(config, compensation=())
    )
    assert plain.sensitivity is not None
    worse = [a[len(a) // 2] > b[len(b) // 2] for a, b in zip(plain.sensitivity, found, strict=True)]
    assert all(worse), "nothing is refitted, so more is lost"


def test_without_data_or_derivatives_there_is_no_sensitivity(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert create(groups(), {"macs": 0.5}, score=lambda model: 1.5).sensitivity is None
    assert evaluator().sensitivity is None

    def fails() -> dict[str, np.ndarray]:
        raise RuntimeError("a view is modified in place")

    assert evaluator(sensitivity=fails).sensitivity is None
    assert "a view is modified in place" in caplog.text
