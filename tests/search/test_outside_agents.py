"""Agents of users' own, and algorithms trained on the environment as their users would."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rlprune
from rlprune.errors import ConfigError
from rlprune.search import Agent, Session, resolve_agent, search
from tests.search.analytic_problem import AnalyticProblem

EXAMPLES = Path(__file__).parents[1] / "examples"
SOURCE = Path(rlprune.__file__).resolve().parent.parent


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_outside_agent_runs_from_the_command_line(tmp_path: Path) -> None:
    paths = [str(EXAMPLES), str(SOURCE), str(SOURCE / "envs"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [
            sys.executable, "-m", "rlprune", "agent=outside_agent:Climber", "agent.step=0.2",
            "model.width=8", "pretrain.epochs=4", "pretrain.batch_size=64", "evaluations=7",
            "finetune.epochs=1", "export=[]", "latency.repeats=2", "threads=1",
            "hydra.run.dir=out", "pretrained_dir=pretrained",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["evaluations"] == 7
    assert report["agent"]["name"] == "Climber"
    assert report["agent"]["options"]["step"] == 0.2
    for budget in report["budgets"].values():
        assert budget["value"] <= budget["limit"]


def test_the_climber_climbs_and_its_path_is_its_seeds() -> None:
    climber = example("outside_agent").Climber

    def run(seed: int) -> list[float]:
        result = search(AnalyticProblem(), climber(step=0.3), 40, seed, progress=False)
        return [e.quality for e in result.ledger]

    first = run(0)
    assert max(first) > first[0]
    assert run(0) == first
    assert run(1) != first


def test_stable_baselines3_trains_on_the_environment() -> None:
    module = example("train_on_environment")
    problem = module.build(epochs=2)
    best = module.train(problem, episodes=6)
    assert list(best) == ["PPO", "SAC"]
    assert best["SAC"] >= best["PPO"] >= problem.ledger[0].quality
    assert len(problem.ledger) > 3


class Greedy(Agent):
    """Asks for more than it is told."""

    def ask(self, n: int) -> list:  # type: ignore[type-arg]
        rng, n_decisions = self.session.rng, len(self.session.space)
        return [self.session.codec.plan(rng.uniform(-1, 1, n_decisions)) for _ in range(n + 20)]


class InItsOwnEnvironment(Agent):
    """Trains in an environment, in place of asking and telling."""

    def run(self, session: Session) -> None:
        env = session.make_env(project=False)
        while not session.done:
            env.reset()
            terminated = False
            while not terminated:
                _, _, terminated, _, _ = env.step(session.rng.uniform(-1, 1, 1))


@pytest.mark.parametrize("kind", [Greedy, InItsOwnEnvironment])
def test_no_agent_spends_more_than_it_may(kind: type[Agent]) -> None:
    problem = AnalyticProblem()
    result = search(problem, kind, 15, 0, progress=False)
    assert len(result.ledger) == len(problem.ledger) == 15
    assert result.best.feasible


def test_agents_are_found_by_dotted_path_and_wrong_ones_are_named() -> None:
    path = "rlprune.search.random:RandomAgent"
    agent = resolve_agent({"_target_": path, "reach": 0.5})
    assert agent.config.reach == 0.5  # type: ignore[attr-defined]
    assert type(resolve_agent(path.replace(":", "."))) is type(agent)
    with pytest.raises(ConfigError, match="must be a subclass of rlprune's Agent"):
        resolve_agent("rlprune.search.archive:Archive")
    with pytest.raises(ConfigError, match="has no option step"):
        resolve_agent({"_target_": path, "step": 0.5})
    climber = example("outside_agent")
    sys.modules["outside_agent"] = climber
    try:
        with pytest.raises(ConfigError, match=r"wrong option.*'stride'"):
            resolve_agent({"_target_": "outside_agent:Climber", "stride": 1})
    finally:
        del sys.modules["outside_agent"]
