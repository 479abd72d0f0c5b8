from __future__ import annotations

from pathlib import Path

import pytest

from rlprune.errors import ConfigError
from rlprune.run.config import compose, config_dir

FOLDER = config_dir()
OPTIONS = sorted(
    path.relative_to(FOLDER).with_suffix("").as_posix()
    for path in FOLDER.rglob("*.yaml")
    if path.parent != FOLDER
)
VALUES = {
    "data/imagefolder": ["data.root=photos"],
    "data/imagenet": ["data.root=imagenet"],
    **{
        f"experiment/{name}_imagenet": ["data.root=imagenet"]
        for name in ("resnet50", "mobilenet_v2", "efficientnet_lite0")
    },
    "model/custom": ["model._target_=my_package.net"],
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_every_group_composes(option: str) -> None:
    group, _, name = option.rpartition("/")
    listed = (FOLDER / "config.yaml").read_text()
    added = "" if f"- {group}:" in listed or group.startswith("hydra") else "+"
    config = compose([f"{added}{group}={name}", *VALUES.get(option, [])])
    if not group.startswith(("hydra", "experiment")):
        assert group in config


@pytest.mark.parametrize(
    "budget", [o for o in OPTIONS if o.startswith("budget/") and o != "budget/custom"]
)
def test_every_budget_is_read(budget: str) -> None:
    from rlprune.budgets import from_config

    assert from_config(compose([budget.replace("/", "=")])["budget"])


@pytest.mark.parametrize(
    "agent", [o for o in OPTIONS if o.startswith("agent/") and "custom" not in o]
)
def test_every_agent_is_built(agent: str) -> None:
    from rlprune.search import create_agent

    assert create_agent(**compose([agent.replace("/", "=")])["agent"]).name


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.startswith("evaluator/")])
def test_every_evaluator_is_read(option: str) -> None:
    from rlprune.problem import EvaluatorConfig

    fields = compose([option.replace("/", "=")])["evaluator"]
    assert EvaluatorConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.startswith("importance/")])
def test_every_criterion_is_known(option: str) -> None:
    from rlprune import importance
    from rlprune.run import RunSpec

    chosen = RunSpec.from_config(compose([option.replace("/", "=")])).importance
    assert chosen in (*importance.CRITERIA, "auto")


def test_groups_of_ones_own_and_mistakes(tmp_path: Path) -> None:
    (tmp_path / "budget").mkdir()
    (tmp_path / "budget" / "mine.yaml").write_text("macs: 0.123\n")
    assert compose(["budget=mine"], tmp_path)["budget"] == {"macs": 0.123}
    with pytest.raises(ConfigError, match="vgg16"):
        compose(["model=vgg17"])
    with pytest.raises(ConfigError, match="evaluation"):
        compose(["evaluation=3"])
