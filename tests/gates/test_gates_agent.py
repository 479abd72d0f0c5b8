"""Gates as an agent: budgets met, better than uniform, the same again, in steps as in one go."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlprune.budgets import Budget
from rlprune.errors import ConfigError, PlanError
from rlprune.gates import GateTraining, SoftCosts
from rlprune.plan import Plan
from rlprune.problem import Problem
from rlprune.search import SearchResult, search
from rlprune.space import CostModel
from rlprune.tasks import Classification
from tests.problem.problems import digits, evaluator, tiles

SHORT = {"name": "gates", "steps": 30, "learning_rate": 0.2, "snapshots": 2}


def problem(budgets: Any, **options: Any) -> Problem:
    images, labels = digits()
    samples = [(images[at : at + 64], labels[at : at + 64]) for at in range(0, 384, 64)]
    return evaluator(budgets, samples=samples, task=Classification(), **options)


def run(found: Problem, seed: int = 0, **options: Any) -> SearchResult:
    return search(found, {**SHORT, **options}, evaluations=6, seed=seed, progress=False)


@pytest.mark.parametrize("kind", ["hard_concrete", "scaling", "top_k"])
def test_gates_beat_the_uniform_plan_within_the_budget(kind: str) -> None:
    result = run(problem({"macs": 0.3}), kind=kind)
    assert result.best.feasible
    assert len(result.ledger) == 6
    assert result.archive[0].quality > result.ledger[0].quality + 0.05
    assert result.history[-1]["gates/core_seconds"] > 0
    assert result.history[-1]["gates/evaluations"] > 0
    assert result.history[-1]["constraint/macs/lambda"] >= 0


def test_units_are_those_that_are_asked_for() -> None:
    found = problem({"macs": 0.5})
    ranked = found.space.scores
    for units in ("learned", "importance"):
        result = run(found, units=units, steps=10, snapshots=1)
        plan = result.ledger[1].plan
        by_importance = Plan.from_widths(found.groups, plan.widths, ranked)
        assert (plan == by_importance) is (units == "importance")
    with pytest.raises(ConfigError, match="units must be both, learned, importance"):
        run(found, units="all")


def test_depth_and_a_black_box_beside_a_formula() -> None:
    found = problem({"tiles": Budget(tiles, "60%"), "params": 0.4}, depth=True)
    result = run(found, steps=10, weight_rate=1e-3, labels=0.5)
    assert result.best.feasible
    network = found.candidate(result.best.plan)
    for budget in found.budgets:
        assert budget.value(network, found.groups.example_inputs) <= budget.limit
    assert set(result.agent.state["snapshots"][-1]["branches"]) == set(found.groups.branches)


def test_a_killed_run_replays_to_the_same_plan_and_another_seed_to_another(tmp_path: Path) -> None:
    store = tmp_path / "evaluations.jsonl"

    def ledger(seed: int = 0) -> list[Any]:
        with contextlib.closing(problem({"macs": 0.4}, store=store)) as found:
            return [evaluation.plan for evaluation in run(found, seed, steps=8).ledger]

    whole = ledger()
    lines = store.read_text().splitlines(keepends=True)
    store.write_text("".join(lines[: len(lines) // 2]))
    torch.rand(3)
    assert ledger() == whole
    assert len(store.read_text().splitlines()) == len(lines)
    assert ledger(1) != whole


def test_soft_costs_are_the_costs_where_gates_are_binary() -> None:
    found = problem({"macs": 0.5, "bytes": 0.5}, depth=True)
    groups, branches = found.groups, list(found.groups.branches.values())
    soft = SoftCosts(found, CostModel(found), depth=True)
    rng = np.random.default_rng(0)
    for gone in (None, branches[0]):
        widths = [int(rng.integers(1, group.width + 1)) for group in groups.prunable]
        opened = torch.tensor([float(branch is not gone) for branch in branches])
        inside = () if gone is None else gone.groups
        real = [0 if g.name in inside else w for g, w in zip(groups.prunable, widths, strict=True)]
        value = soft(torch.tensor(widths), opened)[0] * found.budgets[0].limit
        assert float(value) == pytest.approx(groups.macs(real), rel=1e-9)


def test_without_samples_gates_say_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"give data=rlprune\.Data"):
        run(evaluator({"macs": 0.5}))


def test_gates_start_from_the_plan_of_another_agent(tmp_path: Path) -> None:
    other = search(problem({"macs": 0.3}), "ppo_lagrangian", 12, 0, progress=False).plan
    (tmp_path / "plan.json").write_text(other.to_json())
    result = run(problem({"macs": 0.3}), steps=8, start=str(tmp_path))
    assert result.ledger[1].plan == other
    with pytest.raises(PlanError, match="cannot read a plan"):
        run(problem({"macs": 0.3}), start=str(tmp_path / "nothing"))


def test_a_training_that_was_killed_goes_on_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ledger(folder: str, **options: Any) -> tuple[list[Any], dict[str, Any]]:
        budgets = {"bytes": 0.6, "macs": 0.6}
        store = tmp_path / folder / "evaluations.jsonl"
        with contextlib.closing(problem(budgets, store=store)) as found:
            result = run(found, steps=12, weight_rate=1e-3, **options)
        state = dict(result.agent.state)
        state.pop("core_seconds")
        return [evaluation.plan for evaluation in result.ledger], state

    whole = ledger("whole")
    steps, take = [], GateTraining._step

    def killed(self: GateTraining, *given: Any) -> Any:
        steps.append(given[-1])
        if len(steps) == 9:
            raise KeyboardInterrupt
        return take(self, *given)

    monkeypatch.setattr(GateTraining, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        ledger("killed")
    assert ledger("killed") == whole
    assert len(steps) == 9 + 4, "the eight steps before are not taken again"


def test_an_agent_searches_around_the_plan_of_the_gates(tmp_path: Path) -> None:
    gates = run(problem({"macs": 0.4}), place="reads")
    (tmp_path / "plan.json").write_text(gates.plan.to_json())
    options = {"name": "ppo_lagrangian", "anchor": str(tmp_path), "warmup": 6}
    result = search(problem({"macs": 0.4}), options, 12, 0, progress=False)
    assert result.ledger[0].plan == gates.plan
    assert result.archive[0].quality >= result.ledger[0].quality
    others = [plan for plan in (e.plan for e in result.ledger[1:]) if plan != gates.plan]
    shared = [set(plan.keep[n]) & set(gates.plan.keep[n]) for plan in others for n in plan.keep]
    least = [min(plan.widths[n], gates.plan.widths[n]) for plan in others for n in plan.keep]
    assert [len(units) for units in shared] == least
    tighter = search(problem({"macs": 0.3}), options, 2, 0, progress=False)
    assert tighter.best.feasible
    with pytest.raises(ConfigError, match="anchor must be uniform, sensitivity or the path"):
        search(problem({"macs": 0.3}), {"name": "cem", "anchor": "sensitivty"}, 2)


def test_weights_trained_along_go_into_the_result(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from rlprune import Data, prune
    from rlprune.models import create

    images, labels = digits()
    data = Data(train=(images[:600], labels[:600]), holdout=0.3)
    agent = {**SHORT, "weight_rate": 1e-2, "labels": 1.0, "steps": 40}
    dense = create("digits_cnn", width=8, seed=0)
    options = {"agent": agent, "evaluations": 3, "finetune": None, "exports": (), "depth": True,
               "compensation": "bn"}  # fmt: skip
    result = prune(
        dense, data.example_inputs, data=data, budgets={"macs": 0.5}, evaluator={"quality": "loss"},
        latency={"repeats": 1}, out_dir=tmp_path, progress=False, **options,
    )  # fmt: skip
    scores = result.report["weights"]
    assert scores["learned"] > scores["dense"]
    trained = load_file(tmp_path / "agent" / "weights.safetensors")
    kept = list(result.plan.keep["block1.conv1"])
    found = result.model.state_dict()["block1.bn1.weight"]
    assert torch.equal(found, trained["block1.bn1.weight"][kept])
    assert not list(tmp_path.glob("gates-*"))
    page = (tmp_path / "report.html").read_text()
    assert "The gates" in page
    assert "the learned ones were taken" in page
    assert len(result.report["gates"]) == 1
    assert set(result.report["gates"][0]["branches"]) == {"block1", "block2"}
