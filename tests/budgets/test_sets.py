"""A list of limits: which sets of budgets it stands for, and what is refused."""

from __future__ import annotations

import pytest
from torch import nn

from rlprune.budgets import Budget, Latency, Macs, parse, sets
from rlprune.errors import BudgetError, ConfigError


def weights(model: nn.Module, example_inputs: object) -> int:
    return sum(p.numel() for p in model.parameters())


def limits(asked: object) -> list[str]:
    return [str(budget.limit) for budget in sets(asked).limits]


@pytest.mark.parametrize(
    "value",
    [
        [0.5, 0.7, 0.3],
        ["50%", 0.7, "30%"],
        {"limit": [0.3, 0.7, 0.5]},
        {"_target_": "rlprune.budgets.Macs", "limit": [0.7, 0.5, 0.3]},
        [Macs(0.7), Macs(0.3), Macs(0.5)],
    ],
    ids=["numbers", "texts", "node", "target", "budgets"],
)
def test_every_way_to_write_a_list_gives_one_set_per_limit_loosest_first(value: object) -> None:
    asked = sets({"macs": value, "params": 0.8})
    assert asked.varied == "macs"
    assert asked.labels == ("macs_70", "macs_50", "macs_30")
    assert [[b.name for b in chosen] for chosen in asked.sets] == [["macs", "params"]] * 3
    assert [str(chosen[1].limit) for chosen in asked.sets] == ["80%"] * 3


def test_absolute_limits_and_other_options_of_a_budget_are_kept() -> None:
    asked = sets({"latency": [Latency(0.5, batch_size=8), Latency(0.8, batch_size=8)]})
    assert asked.labels == ("latency_80", "latency_50")
    node = {"_target_": f"{__name__}.weights", "limit": [1000, 3000.5]}
    asked = sets({"weights": node})
    assert asked.labels == ("weights_3000.5", "weights_1000")
    assert [b.limit.value for b in asked.limits] == [3000.5, 1000.0]


@pytest.mark.parametrize("one", [{"macs": 0.5}, [Macs(0.5)], {"macs": {"limit": 0.5}}])
def test_without_a_list_there_is_one_set(one: object) -> None:
    asked = sets(one)
    assert asked.varied is None
    assert (len(asked.sets), asked.limits, asked.labels) == (1, (), ())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"macs": [0.7, 0.5], "params": [0.5, 0.2]}, "only one budget .* got macs, params"),
        ({"macs": []}, "'macs': its list of limits is empty"),
        ({"macs": [0.5, "50%"]}, "'macs': the limits 50%, 50% repeat one"),
        ({"macs": [0.5, 3e6]}, "mix shares .* with absolute numbers"),
    ],
)
def test_lists_that_make_no_front_are_refused(asked: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sets(asked)


def test_a_list_where_one_limit_is_expected_says_where_lists_are_taken() -> None:
    with pytest.raises(BudgetError, match=r"'macs': one limit is expected here.*rlprune.prune"):
        parse({"macs": [0.7, 0.5]})
    with pytest.raises(BudgetError, match="'macs': limit must be a number or a string"):
        sets({"macs": [True]})
    assert sets({"own": [Budget(weights, 10), Budget(weights, 20)]}).labels == ("own_20", "own_10")
