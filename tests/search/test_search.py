"""Every agent: counts, budgets, determinism, saving; and what PPO-Lagrangian learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml

from rlprune.errors import CheckpointError, ConfigError
from rlprune.plan import Plan
from rlprune.search import AGENTS, Archive, create_agent, search
from rlprune.space import Codec
from tests.search.analytic_problem import AnalyticProblem

CONFIGS = Path(__file__).parents[2] / "configs" / "agent"
SMALL = {
    "ppo_lagrangian": {"proposals": 16, "warmup": 8, "epochs": 2},
    "amc": {"updates": 2, "hidden": 8},
}


def small_agent(name: str):
    return create_agent(name, **SMALL.get(name, {}))


@pytest.mark.parametrize("name", sorted({*AGENTS} - {"gates"}))
def test_every_agent_spends_exactly_its_evaluations_and_meets_every_budget(name: str) -> None:
    problem = AnalyticProblem(tiles=0.6)
    result = search(problem, small_agent(name), evaluations=31, seed=1, progress=False)
    spent = 1 if name == "uniform" else 31
    assert len(result.ledger) == len(problem.ledger) == spent
    assert len({e.plan for e in result.ledger}) == spent
    assert all(v <= 0 for v in problem.violations(result.best.plan).values())
    assert result.score == problem.rescore(result.best.plan)
    assert result.score >= result.ledger[0].quality
    assert [row["evaluation"] for row in result.history] == list(range(1, spent + 1))


@pytest.mark.parametrize("name", sorted({*AGENTS} - {"gates"}))
def test_same_seed_same_ledger_other_seed_another(name: str) -> None:
    def ledger(seed: int) -> list[Plan]:
        result = search(
            AnalyticProblem(), small_agent(name), evaluations=25, seed=seed, progress=False
        )
        return [e.plan for e in result.ledger]

    first = ledger(3)
    np.random.random(7)
    assert ledger(3) == first
    if name != "uniform":
        assert ledger(4) != first


@pytest.mark.parametrize("name", ["random", "evolution", "cem", "amc", "ppo_lagrangian"])
def test_a_space_with_few_plans_ends_instead_of_looping(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    problem = AnalyticProblem(decisions_count=1)
    result = search(problem, small_agent(name), evaluations=400, seed=0, progress=False)
    assert len(result.ledger) < 30
    assert "known plans" in caplog.text


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_the_shipped_config_is_the_default_of_the_agent(name: str) -> None:
    loaded = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    agent = create_agent(**loaded)
    assert agent.name == name
    assert dataclasses.asdict(agent.config) == {k: v for k, v in loaded.items() if k != "name"}
    assert agent.config == type(agent.config)()


def test_wrong_agents_and_options_are_named() -> None:
    with pytest.raises(ConfigError, match=r"agent 'genetic' is unknown.*cem"):
        create_agent("genetic")
    with pytest.raises(ConfigError, match=r"no option sample.*samples"):
        create_agent("cem", sample=3)
    with pytest.raises(ConfigError, match="elites must be between 1 and samples - 1, got 12"):
        create_agent("cem", elites=12)
    with pytest.raises(ConfigError, match=r"agent 'cem'\.samples='many': expected a whole number"):
        create_agent("cem", samples="many")
    with pytest.raises(ConfigError, match="evaluations must be at least 1"):
        search(AnalyticProblem(), "uniform", evaluations=0)


def test_the_archive_keeps_the_best_feasible_plans_in_order() -> None:
    problem = AnalyticProblem()
    rng = np.random.default_rng(0)
    archive = Archive(capacity=5)
    for _ in range(200):
        choice = [int(rng.integers(1, size + 1)) for size in problem.space.sizes]
        archive.add(problem.evaluate(problem.space.plan(choice)))
    feasible = sorted((e.quality for e in problem.ledger if e.feasible), reverse=True)
    assert [e.quality for e in archive] == feasible[:5]
    assert archive.best is not None
    assert archive.best.quality == feasible[0]


def test_ppo_lagrangian_learns_to_meet_the_budgets_without_projection() -> None:
    problem = AnalyticProblem(limit=0.3, tiles=0.6)
    agent = create_agent(
        "ppo_lagrangian", project=False, proposals=16, episodes=16, updates=1, unscreened=1.0,
        initial_std=0.4,
    )  # fmt: skip
    result = search(problem, agent, evaluations=400, seed=0, progress=False)
    violation = [max(e.violations.values()) for e in result.ledger]
    assert np.mean(violation[:50]) > 0.05, "at first the policy overdraws"
    assert abs(np.mean(violation[-100:])) < 0.15
    assert np.mean([v <= 0 for v in violation[-100:]]) > 0.2
    multipliers = [row["constraint/chain/lambda"] for row in result.history]
    assert np.nanmax(multipliers) > 0.1
    assert result.best.feasible


def test_a_search_without_a_feasible_sample_still_returns_a_feasible_plan() -> None:
    problem = AnalyticProblem(limit=0.02)
    agent = create_agent("ppo_lagrangian", project=False, proposals=4, episodes=4, warmup=8)
    result = search(problem, agent, evaluations=6, seed=0, progress=False)
    assert result.best.feasible


def test_ppo_lagrangian_beats_random_and_cem_on_one_ledger() -> None:
    def mean_best(agent: str) -> float:
        return float(
            np.mean(
                [
                    search(AnalyticProblem(seed=s, ruggedness=0.2), agent, 100, s, progress=False)
                    .archive[0]
                    .quality
                    for s in range(2)
                ]
            )
        )

    ppo = mean_best("ppo_lagrangian")
    assert ppo > mean_best("random")
    assert ppo > mean_best("cem")


def test_a_saved_policy_acts_alike_after_loading_and_warm_starts_a_search(tmp_path: Path) -> None:
    agent = small_agent("ppo_lagrangian")
    search(AnalyticProblem(), agent, evaluations=40, seed=0, progress=False)
    agent.save(tmp_path / "agent")
    again = small_agent("ppo_lagrangian")
    again.load(tmp_path / "agent")
    env = gym.make("rlprune_envs:KeepRatio-v0", problem=AnalyticProblem())
    observation, _ = env.reset()
    for _ in range(9):
        action = agent.act(observation)
        np.testing.assert_array_equal(action, again.act(observation))
        predicted, _ = agent.model.predict(observation, deterministic=True)
        np.testing.assert_allclose(action, predicted, atol=1e-6)
        observation, *_ = env.step(action)
    assert again.state == agent.state
    search(AnalyticProblem(), again, evaluations=20, seed=1, progress=False)


def test_loading_the_wrong_agent_or_nothing_is_named(tmp_path: Path) -> None:
    create_agent("cem").save(tmp_path)
    with pytest.raises(CheckpointError, match="holds a 'cem' agent"):
        create_agent("ppo_lagrangian").load(tmp_path)
    with pytest.raises(CheckpointError, match="cannot read"):
        create_agent("cem").load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no policy yet"):
        create_agent("ppo_lagrangian").act(np.zeros(3))


def test_tensorboard_gets_the_constraints_and_the_search(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    search(
        AnalyticProblem(), small_agent("ppo_lagrangian"), 20, 0, progress=True,
        tensorboard=tmp_path,
    )  # fmt: skip
    events = EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"]
    names = {f"constraint/chain/{part}" for part in ("value", "limit", "lambda")}
    names |= {f"search/{part}" for part in ("reward", "evaluations", "cache_hits", "best_feasible")}
    assert names <= set(events)


def test_a_search_leaves_the_global_generators_alone() -> None:
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    search(AnalyticProblem(), small_agent("ppo_lagrangian"), 15, 0, progress=False)
    search(AnalyticProblem(), small_agent("amc"), 15, 0, progress=False)
    assert np.random.random() == expected


def test_a_space_that_holds_few_plans_is_searched_to_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    problem = AnalyticProblem(decisions_count=2)
    codec = Codec(problem)
    grid = np.linspace(-1.0, 1.0, 60)
    reachable = {codec.plan(np.array([a, b])) for a in grid for b in grid}
    agent = {"name": "ppo_lagrangian", "proposals": 16, "warmup": 4}
    result = search(problem, agent, evaluations=1000, seed=0, progress=False)
    assert {e.plan for e in result.ledger} >= reachable
    assert "lead to known plans" in caplog.text
