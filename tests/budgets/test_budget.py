"""Limits, user functions, mappings and configuration nodes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from rlprune.budgets import Budget, Latency, Macs, Params, from_config, parse, resolve
from rlprune.errors import BudgetError, ConfigError
from rlprune.inputs import ExampleInputs

NET = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
INPUTS = torch.zeros(2, 8)
DENSE = 8 * 16 + 16 * 4


def tiles(model: nn.Module, example_inputs: ExampleInputs, side: int = 8) -> int:
    """Number of ``side`` wide tiles the outputs of all linear layers fill."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    return sum(math.ceil(layer.out_features / side) for layer in layers)


@pytest.mark.parametrize(
    ("limit", "absolute"),
    [
        (0.25, DENSE / 4),
        (1, DENSE),
        ("25%", DENSE / 4),
        ("25 %", DENSE / 4),
        ("0.25", DENSE / 4),
        (96, 96),
        ("0.1k", 100),
        (np.float64(0.5), DENSE / 2),
    ],
)
def test_limits_of_a_built_in_metric(limit: float | str, absolute: float) -> None:
    assert Macs(limit).resolve(NET, INPUTS).limit == pytest.approx(absolute)


def test_a_users_number_is_absolute_and_a_percentage_relative() -> None:
    assert Budget(tiles, 0.5).resolve(NET, INPUTS).limit == 0.5
    assert Budget(tiles, "50%").resolve(NET, INPUTS).limit == 1.5


def test_latency_limit_with_a_unit_is_absolute() -> None:
    assert Latency("0.8 ms").limit.value == pytest.approx(0.8)
    assert Latency("800us").limit.value == pytest.approx(0.8)
    assert not Latency("0.8 ms").limit.relative


@pytest.mark.parametrize("limit", [0, -1, -0.5, math.nan, math.inf, "0%", "-5%", "nan%", "-3"])
def test_a_limit_that_is_not_positive_and_finite_is_refused(limit: float | str) -> None:
    with pytest.raises(BudgetError, match=r"'macs': limit must be a positive finite number"):
        Macs(limit)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("120%", "more than the dense network's value"),
        ("half", "cannot read the limit 'half'"),
        ("3 parsecs", "unknown unit 'parsecs'"),
        (True, "must be a number or a string"),
        (None, "must be a number or a string"),
        ([0.5], "must be a number or a string"),
    ],
)
def test_an_unreadable_limit_is_refused(limit: object, message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        Macs(limit)  # type: ignore[arg-type]


def test_violation_is_the_relative_excess() -> None:
    resolved = Macs(0.5).resolve(NET, INPUTS)
    assert resolved.violation(resolved.limit) == 0
    assert resolved.violation(resolved.dense) == pytest.approx(1.0)


@pytest.mark.parametrize("value", [3, 3.0, np.float32(3), np.int64(3), torch.tensor(3.0)])
def test_every_kind_of_number_is_accepted(value: object) -> None:
    assert Budget(lambda model, x: value, 4).resolve(NET, INPUTS).dense == 3.0


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "3", True, torch.zeros(2), 1j])
def test_a_function_that_returns_no_finite_number_names_itself(value: object) -> None:
    with pytest.raises(BudgetError, match=r"budget 'energy'.*returned .* for the dense network"):
        Budget(lambda model, x: value, 4, "energy").resolve(NET, INPUTS)


def test_a_function_that_raises_names_itself_and_the_candidate() -> None:
    def energy(model: nn.Module, example_inputs: ExampleInputs) -> float:
        return 1.0 / (model[0].out_features - 5)  # type: ignore[operator]

    resolved = Budget(energy, 3.2).resolve(NET, INPUTS)
    candidate = nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 4))
    with pytest.raises(BudgetError, match=r"'energy'.*ZeroDivisionError.*widths \[5\]") as caught:
        resolved.value(candidate, INPUTS, widths=(5,))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_function_that_converts_its_model_does_not_touch_the_candidate() -> None:
    def half_bytes(model: nn.Module, example_inputs: ExampleInputs) -> int:
        model.half()
        return sum(item.numel() * item.element_size() for item in model.parameters())

    network = nn.Linear(3, 3)
    Budget(half_bytes, "50%").resolve(network, INPUTS)
    assert network.weight.dtype == torch.float32
    assert network.training


def test_a_relative_limit_needs_a_positive_dense_value() -> None:
    with pytest.raises(BudgetError, match="give an absolute limit"):
        Budget(lambda model, x: 0.0, "50%", "zero").resolve(NET, INPUTS)


def test_parse_reads_every_form_and_keeps_the_order() -> None:
    parsed = parse({"macs": 0.5, "params": "20%", "speed": Latency(0.7), "e": Budget(tiles, 3.2)})
    assert [budget.name for budget in parsed] == ["macs", "params", "speed", "e"]
    assert [type(budget) for budget in parsed] == [Macs, Params, Latency, Budget]


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ({}, "no budget given"),
        ({"joules": 3.2}, "'joules': not a built-in metric .*macs, params"),
        ({"energy": tiles}, "a function needs a limit; write Budget.fn=tiles"),
        ([Macs(0.5), Macs(0.3)], "used twice: macs"),
        ({"energy": Budget.__new__}, "a function needs a limit"),
        ({"joules": {"limit": 3}}, "needs _target_"),
        ({"energy": {"_target_": f"{__name__}.tiles"}}, "give a limit"),
        ({"macs": {"_target_": "rlprune.budgets.Macs", "speed": 3}}, "Macs refuses"),
    ],
)
def test_malformed_budgets_are_refused(budgets: object, message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        parse(budgets)  # type: ignore[arg-type]


def test_a_users_function_from_a_configuration() -> None:
    node = {"_target_": f"{__name__}.tiles", "limit": 2, "side": 4}
    budget = from_config({"tiles": node, "macs": None})["tiles"]
    assert budget.resolve(NET, INPUTS).dense == 5
    node = {"_target_": "rlprune.budgets.Budget", "fn": f"{__name__}.tiles", "limit": "50%"}
    assert from_config({"tiles": node})["tiles"].resolve(NET, INPUTS).limit == 1.5


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_package.energy", "no module 'no_such_package'"),
        ("math.no_such_function", "'math' has no attribute 'no_such_function'"),
        ("energy", "not a dotted path"),
        ("rlprune.no_such_module.energy", "'rlprune' has no attribute 'no_such_module'"),
    ],
)
def test_a_target_that_cannot_be_imported_is_named(target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"budget 'energy'.*{message}"):
        from_config({"energy": {"_target_": target, "limit": 1}})


def test_every_shipped_configuration_resolves() -> None:
    folder = Path(__file__).parents[2] / "configs" / "budget"
    files = sorted(file for file in folder.glob("*.yaml") if file.stem != "custom")
    assert files
    for file in files:
        budgets = from_config(yaml.safe_load(file.read_text()))
        named = file.stem.split("_")
        assert all(part.isdigit() or any(part in name for name in budgets) for part in named)
    resolved = resolve({"macs": 0.5, "params": 0.5}, NET, INPUTS)
    assert [item.dense for item in resolved] == [DENSE, DENSE + 20]
