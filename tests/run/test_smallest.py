"""As small as possible while quality holds, measured on the network that is handed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import rlprune
from rlprune.budgets import count_macs, count_params
from rlprune.errors import BudgetError, ConfigError
from rlprune.run import QualitySpec, RunSpec, compose
from rlprune.tasks import Metric


def accuracy(network: nn.Module, data: rlprune.Data) -> float:
    x, y = data.holdout
    return float((network(x).argmax(1) == y).float().mean())


def test_the_smallest_network_within_a_drop_of_accuracy(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    data, x = settings["data"], settings["data"].example_inputs
    asked = {**settings, "budgets": {"params": 0.9}, "evaluations": 4, "objective": "macs"}
    asked |= {"quality": {"max_drop": "3%", "tries": 3}}
    result = rlprune.prune(dense, x, out_dir=tmp_path, **asked)
    assert result.model is not None
    told = json.loads((tmp_path / "smallest.json").read_text())
    assert accuracy(result.model, data) >= accuracy(dense, data) - 0.03
    assert result.costs["macs"] == count_macs(result.model, x) < count_macs(dense, x)
    assert count_params(result.model) <= 0.9 * count_params(dense)
    kept = [found for found in told["tries"] if found["met"]]
    assert result.costs["macs"] == min(found["value"] for found in kept)
    assert told["chosen"] == result.out_dir.name  # type: ignore[union-attr]
    shares = [found["share"] for found in told["tries"]]
    for before, after, found in zip(shares, shares[1:], told["tries"], strict=False):
        assert (after < before) == found["met"]

    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/model.safetensors")}
    again = rlprune.prune(dense, x, out_dir=tmp_path, **asked)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert again.costs == result.costs
    wanting = {**asked, "quality": {"max_drop": 0.0, "tries": 1}, "finetune": None}
    with pytest.raises(BudgetError, match=r"'macs': at .*held-out accuracy still changes by -"):
        rlprune.prune(dense, x, **wanting)


def test_the_command_line_says_it_the_same_way() -> None:
    spec = RunSpec.from_config(compose(["objective=params", "quality.max_drop=1%"]))
    assert spec.objective == "params"
    budgets = {budget.name: str(budget.limit) for budget in spec.asked().sets[0]}
    assert budgets == {"macs": "50%", "params": "100%"}
    same = RunSpec.of(budgets={"macs": 0.5}, objective="macs", quality={"max_drop": 0.01})
    assert [str(budget.limit) for budget in same.asked().sets[0]] == ["100%"]


def test_drops_are_points_shares_or_numbers() -> None:
    share, other = Metric("accuracy", "accuracy", unit="%"), Metric("perplexity", "perplexity")
    assert QualitySpec("1%").drop(share, 0.9) == pytest.approx(0.01)
    assert QualitySpec("5%").drop(other, 20.0) == pytest.approx(1.0)
    assert QualitySpec(0.5).drop(other, 20.0) == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "macs"}, "belong together"),
        ({"quality": {"max_drop": "1%"}, "budgets": {"macs": 0.5}}, "belong together"),
        ({"objective": "macs", "quality": {"max_drop": "much"}}, "'much': give a number"),
        ({"objective": "macs", "quality": {"max_drop": -1}}, "give a number from 0 on"),
        (
            {"objective": "macs", "quality": {"max_drop": "1%"}, "budgets": {"params": [0.5, 0.3]}},
            "one limit each",
        ),
    ],
)
def test_wrong_objectives_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunSpec.of(**options)
    with pytest.raises(BudgetError, match="'joules': not a built-in metric"):
        RunSpec.of(objective="joules", quality={"max_drop": "1%"})
