from __future__ import annotations

from pathlib import Path

import pytest

from rlprune.cli.arguments import continued, merged
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


def test_a_run_that_is_not_there_or_swept_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        continued([f"run={tmp_path / 'nowhere'}"])
    with pytest.raises(ConfigError, match="holds no run"):
        continued([f"run={tmp_path}"])
    with pytest.raises(ConfigError, match=r"hydra\.sweep\.dir"):
        continued(["-m", f"run={run}"])
