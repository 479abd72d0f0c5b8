"""A saved policy as the start of another search."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from rlprune.errors import CheckpointError, ConfigError
from rlprune.plan import Plan
from rlprune.search import create_agent, search
from rlprune.search.ppo_lagrangian.transfer import PolicyShape, adapt, along_depth, loosened
from tests.search.analytic_problem import AnalyticProblem

SMALL = {"proposals": 16, "warmup": 8, "epochs": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent of a search over nine groups."""
    folder = tmp_path_factory.mktemp("run")
    agent = create_agent("ppo_lagrangian", **SMALL)
    search(AnalyticProblem(), agent, evaluations=40, seed=0, progress=False)
    agent.save(folder / "agent")
    return folder


def loaded(folder: Path, **options: object):
    agent = create_agent("ppo_lagrangian", **SMALL, **options)
    agent.load(folder)
    return agent


def test_values_along_depth_are_kept_interpolated_and_spread() -> None:
    rows = torch.tensor([[0.0, 1.0, 4.0], [3.0, 3.0, 3.0]])
    assert torch.equal(along_depth(rows, 3), rows)
    expected = torch.tensor([[0.0, 0.5, 1.0, 2.5, 4.0], [3.0] * 5])
    torch.testing.assert_close(along_depth(rows, 5), expected)
    torch.testing.assert_close(along_depth(rows, 2), torch.tensor([[0.0, 4.0], [3.0, 3.0]]))
    torch.testing.assert_close(along_depth(rows[0], 1), torch.tensor([1.0]))
    torch.testing.assert_close(along_depth(torch.tensor([2.0]), 4), torch.full((4,), 2.0))


def test_with_equally_many_groups_the_policy_is_loaded_exactly(trained: Path) -> None:
    agent = loaded(trained)
    weights = dict(agent._weights)
    for name, value in adapt(weights, weights, "here").items():
        assert torch.equal(value, weights[name]), name
    loose = loosened(weights, 0.9)
    assert float(loose["log_std"].exp().min()) == pytest.approx(0.9)
    assert torch.equal(loose["action_net.weight"], weights["action_net.weight"])


def test_another_network_gets_the_shared_part_as_it_is_and_the_rest_along_depth(
    trained: Path,
) -> None:
    short = loaded(trained)
    before = dict(short._weights)
    problem = AnalyticProblem(decisions_count=5, seed=3)
    search(problem, short, evaluations=1, seed=1, progress=False)
    after = short._weights
    assert PolicyShape.of(after, "it") == PolicyShape(5, 1, 2, 32)
    for name in ("mlp_extractor.actor.0.weight", "mlp_extractor.critic.0.bias", "action_net.bias"):
        assert torch.equal(after[name], before[name]), name
    columns = before["action_net.weight"][0, 32:]
    torch.testing.assert_close(after["action_net.weight"][0, 32:], columns[[0, 2, 4, 6, 8]])
    env = gym.make("rlprune_envs:KeepRatio-v0", problem=problem)
    observation, _ = env.reset()
    assert -1 <= float(short.act(observation)[0]) <= 1


def test_a_search_starts_from_the_policy_of_a_run_and_says_so(
    trained: Path, tmp_path: Path
) -> None:
    def first_plans(**options: object) -> list[Plan]:
        agent = create_agent("ppo_lagrangian", **SMALL, **options)
        result = search(AnalyticProblem(limit=0.4), agent, 8, seed=5, progress=False)
        result.agent.save(tmp_path)
        return [e.plan for e in result.ledger]

    cold = first_plans()
    assert create_agent("ppo_lagrangian").origin is None
    warm = first_plans(start=str(trained))
    assert warm[0] == cold[0], "the uniform plan is everybody's reference"
    assert warm[1:] != cold[1:]
    assert first_plans(start=str(trained / "agent")) == warm
    assert f'"origin": "{trained / "agent"}"' in (tmp_path / "agent.json").read_text()


def test_the_standard_deviation_of_the_start_can_be_chosen(trained: Path) -> None:
    for std in (0.1, 0.6):
        agent = loaded(trained, start_std=std)
        search(AnalyticProblem(), agent, evaluations=1, seed=0, progress=False)
        assert float(agent._weights["log_std"].exp().min()) >= std - 1e-6
    with pytest.raises(ConfigError, match="start_std must be positive, got 0"):
        create_agent("ppo_lagrangian", start_std=0)


@pytest.mark.parametrize(
    ("problem", "options", "message"),
    [
        (AnalyticProblem(tiles=0.6), {}, "with 1 budgets, .* has 2; give as many"),
        (AnalyticProblem(), {"hidden": 8}, "with 32 hidden units, .* has 8; set agent.hidden=32"),
    ],
    ids=["budgets", "hidden"],
)  # fmt: skip
def test_a_policy_that_does_not_fit_says_what_differs_and_what_to_do(
    trained: Path, problem: AnalyticProblem, options: dict[str, object], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as refused:
        search(problem, loaded(trained, **options), evaluations=10, progress=False)
    assert str(trained) in str(refused.value)


def test_folders_without_a_policy_are_named_with_those_below_that_have_one(
    trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "macs_50").symlink_to(trained, target_is_directory=True)
    agent = create_agent("ppo_lagrangian", **SMALL, start=str(tmp_path))
    with pytest.raises(CheckpointError, match=r"no agent.json there; give one of .*macs_50"):
        search(AnalyticProblem(), agent, evaluations=2, progress=False)
    (tmp_path / "agent.json").write_text((trained / "agent" / "agent.json").read_text())
    with pytest.raises(CheckpointError, match="no policy weights"):
        search(AnalyticProblem(), agent, evaluations=2, progress=False)
    with pytest.raises(CheckpointError, match="holds no policy of ppo_lagrangian"):
        PolicyShape.of({"weight": torch.zeros(2, 2)}, "it")
    assert np.isfinite(loaded(trained).state["multipliers"]["chain"]["value"])
