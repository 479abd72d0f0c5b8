"""A list of limits on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlprune.cli.arguments import listed
from rlprune.cli.parts import record_parts
from rlprune.run.config import compose

from .conftest import Cli


def test_a_list_goes_to_the_limit_of_a_budget_with_options_and_else_stands_for_itself(
    tmp_path: Path,
) -> None:
    asked = ["model=mlp", "budget.macs=[0.7,0.5]"]
    assert listed(asked) == ["model=mlp", "budget.macs.limit=[0.7,0.5]"]
    assert compose(listed(asked))["budget"]["macs"]["limit"] == [0.7, 0.5]
    (tmp_path / "budget").mkdir()
    (tmp_path / "budget" / "mine.yaml").write_text("macs: 0.123\n")
    own = ["--config-dir", str(tmp_path), "budget=mine", "budget.macs=[0.7,0.5]"]
    assert listed(own) == own
    assert compose(own[2:], tmp_path)["budget"] == {"macs": [0.7, 0.5]}
    others = ["budget.macs=0.5", "+budget.params=[0.7,0.5]", "budget.macs.limit=[0.7]", "-m"]
    assert listed(others) == others
    sweep = ["-m", "budget=macs_50,macs_30", "budget.macs=[0.7,0.5]"]
    assert listed(sweep)[2] == "budget.macs.limit=[0.7,0.5]"


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (["budget.macs.limit=[0.7,0.3]"], "budget.macs.limit='30%'"),
        (["budget=custom", "+budget.macs=[0.7,0.3]"], "+budget.macs='30%'"),
    ],
)
def test_every_limits_folder_gets_the_command_line_of_a_run_of_its_own(
    tmp_path: Path, recorded: list[str], expected: str
) -> None:
    from rlprune.budgets import sets

    (tmp_path / ".hydra").mkdir()
    lines = "".join(f"- {json.dumps(item)}\n" for item in [*recorded, "seed=3"])
    (tmp_path / ".hydra" / "overrides.yaml").write_text(lines)
    (tmp_path / ".hydra" / "hydra.yaml").write_text("hydra: {}\n")
    config = compose([*recorded, "seed=3"])
    record_parts(tmp_path, config, sets(config["budget"]))
    from omegaconf import OmegaConf

    own = [str(x) for x in OmegaConf.load(tmp_path / "macs_30" / ".hydra" / "overrides.yaml")]
    assert expected in own
    assert own[-1] == "evaluations=120"
    budget = compose(own)["budget"]["macs"]
    assert (budget["limit"] if isinstance(budget, dict) else budget) == "30%"
    assert (tmp_path / "macs_30" / ".hydra" / "hydra.yaml").is_file()


@pytest.mark.long
def test_a_front_its_report_one_of_its_limits_alone_and_going_on(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "front"
    done = cli("budget.macs=[0.7,0.5]", f"hydra.run.dir={run}")
    assert done.returncode == 0, done.stderr
    assert "7 unique evaluations in all" in done.stdout
    front = json.loads((run / "front.json").read_text())
    assert [point["folder"] for point in front["points"]] == ["macs_70", "macs_50"]

    alone = cli(f"run={run}/macs_50", "finetune.epochs=2", tiny=False)
    assert alone.returncode == 0, alone.stderr
    assert "search: done before, kept" in alone.stderr
    gathered = cli("report", "outputs", tiny=False)
    assert gathered.returncode == 0, gathered.stderr
    assert "front.html" in gathered.stdout
    assert "unfinished" not in gathered.stdout
    again = json.loads((run / "macs_50" / "report.json").read_text())
    points = json.loads((run / "front.json").read_text())["points"]
    assert points[1]["after"] == again["pruned"]["accuracy"]

    further = cli(f"run={run}", "budget.macs.limit=[0.7,0.5,0.4]", tiny=False)
    assert further.returncode == 0, further.stderr
    assert (run / "macs_40" / "report.json").is_file()
    assert len(json.loads((run / "front.json").read_text())["points"]) == 3

    wrong = cli("budget.macs=[0.7,0.7]")
    assert wrong.returncode == 1
    assert "ConfigError: budget 'macs': the limits 70%, 70% repeat one" in wrong.stderr
