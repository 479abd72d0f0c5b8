from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from rlprune.cli.arguments import continued, merged, own_agent
from rlprune.cli.trust import sign
from rlprune.errors import ConfigError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "my run"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(
        "- model=vgg16\n- +budget.energy.limit=3\n- seed=1\n- stage=search\n"
    )
    (folder / ".hydra" / "hydra.yaml").write_text(
        "hydra:\n  runtime:\n    config_sources:\n"
        "    - {path: /shipped, schema: file, provider: main}\n"
        "    - {path: /mine, schema: file, provider: command-line}\n"
    )
    sign(folder / ".hydra")
    return folder


def test_a_command_line_without_run_is_left_alone() -> None:
    assert continued(["model=vgg16", "run=null"]) == ["model=vgg16", "run=null"]


def test_recorded_overrides_come_back_and_later_ones_win(run: Path) -> None:
    found = continued([f"run={run}", "model=vgg11", "budget.energy.limit=4", "evaluations=9"])
    assert found == [
        "--config-dir", "/mine", "model=vgg11", "+budget.energy.limit=4", "seed=1",
        "evaluations=9", f"run='{run}'", f"hydra.run.dir='{run}'",
    ]  # fmt: skip


def test_a_recorded_key_can_be_taken_back() -> None:
    recorded = ["+agent.nope=1", "seed=3"]
    assert merged(recorded, ["~agent.nope"]) == ["seed=3"]
    assert merged(recorded, ["~agent.other", "seed=4"]) == [
        "+agent.nope=1", "seed=4", "~agent.other",
    ]  # fmt: skip


def test_a_group_chosen_anew_comes_without_the_options_of_the_earlier_choice() -> None:
    recorded = ["finetune.epochs=12", "+budget.macs=0.4", "agent.seed=1", "budget=custom"]
    assert merged(recorded, ["finetune=none", "agent.seed=2"]) == [
        "+budget.macs=0.4", "agent.seed=2", "budget=custom", "finetune=none",
    ]  # fmt: skip
    assert merged(recorded, ["budget.macs=0.3"])[1] == "+budget.macs=0.3"


def test_a_run_that_is_not_there_or_swept_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        continued([f"run={tmp_path / 'nowhere'}"])
    with pytest.raises(ConfigError, match="holds no run"):
        continued([f"run={tmp_path}"])
    with pytest.raises(ConfigError, match=r"hydra\.sweep\.dir"):
        continued(["-m", f"run={run}"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["agent=cem", "agent.samples=8"], ["agent=cem", "agent.samples=8"]),
        (["seed=1"], ["seed=1"]),
        (
            ["seed=1", "agent=pkg.mod:Agent", "agent.step=0.2"],
            ["agent=custom", "++agent._target_=pkg.mod:Agent", "seed=1", "++agent.step=0.2"],
        ),
        (
            ["agent._target_=pkg.mod.Agent", "+agent.step=1"],
            ["agent=custom", "++agent._target_=pkg.mod.Agent", "+agent.step=1"],
        ),
        (
            ["agent=custom", "agent._target_=pkg.Agent"],
            ["agent=custom", "++agent._target_=pkg.Agent"],
        ),
        (["-m", "agent=cem,random"], ["-m", "agent=cem,random"]),
    ],
)
def test_an_agent_of_ones_own_is_written_as_hydra_reads_it(
    given: list[str], expected: list[str]
) -> None:
    assert own_agent(given) == expected
    assert own_agent(own_agent(given)) == expected


def test_an_installed_agent_is_chosen_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("walker", "pkg.mod:Walker", "rlprune.agents")
    monkeypatch.setattr("rlprune.plugins.entry_points", lambda group: [point])
    assert own_agent(["agent=walker"]) == ["agent=custom", "++agent._target_=walker"]
