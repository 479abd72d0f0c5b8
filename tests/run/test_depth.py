"""A plan without some branches goes through a whole run: chosen, saved, resumed, loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

import rlprune
from rlprune import Budget, Data, Plan
from rlprune.inputs import ExampleInputs


def layers(model: nn.Module, example_inputs: ExampleInputs) -> int:
    """Convolutions that run: width alone cannot lower it."""
    return sum(isinstance(module, nn.Conv2d) for module in model.modules())


def test_a_run_drops_branches_resumes_and_loads(
    dense: nn.Module, digits: Data, settings: dict[str, Any], tmp_path: Path
) -> None:
    budgets = {"macs": 0.4, "layers": Budget(layers, layers(dense, None) - 2)}
    asked = {**settings, "budgets": budgets, "depth": True, "evaluations": 8}
    result = rlprune.prune(dense, digits.example_inputs, **asked, out_dir=tmp_path)
    assert result.costs["layers"] == layers(result.model, None) <= layers(dense, None) - 2
    empty = [name for name, units in result.plan.keep.items() if not units]
    assert empty

    plan = Plan.from_json((tmp_path / "plan.json").read_text())
    assert plan == result.plan
    masks = load_file(tmp_path / "masks.safetensors")
    assert not any(masks[name].any() for name in empty)
    found = json.loads((tmp_path / "stages" / "search.json").read_text())["result"]
    assert found["dropped"]
    assert found["stats"]["calls"]["layers"] > 0

    record = tmp_path / "stages" / "search.json"
    record.unlink()
    again = rlprune.prune(dense, digits.example_inputs, **asked, out_dir=tmp_path)
    assert again.plan == plan
    replayed = json.loads(record.read_text())["result"]["stats"]
    assert replayed["replayed"] == replayed["unique"] == 8

    loaded = rlprune.load(tmp_path)
    x = digits.example_inputs
    torch.testing.assert_close(loaded(x), result.model(x))


def test_tied_groups_of_a_run_share_one_ratio(
    dense: nn.Module, digits: Data, settings: dict[str, Any]
) -> None:
    result = rlprune.prune(
        dense, digits.example_inputs, **{**settings, "finetune": None}, tie=["block*"]
    )
    ratios = [ratio for name, ratio in result.plan.ratios.items() if name.startswith("block")]
    assert len(ratios) == 2
    assert max(ratios) - min(ratios) <= 1 / 8
