"""Whatever is wrong with an argument is told by an rlprune error, before anything is trained."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import rlprune
from rlprune import Data
from rlprune.errors import DataError, RlpruneError, ScoreError

ODD: dict[str, Any] = {
    "object": object(), "negative": -1, "zero": 0, "empty text": "", "text": "abc", "list": [],
    "mapping": {}, "nan": math.nan, "inf": math.inf, "huge": 10**12, "true": True,
    "function": lambda network: 1.0, "texts": ["x"], "odd key": {"x": 1}, "tuple": (1,),
    "half": 0.5, "bytes": b"x", "tensor": torch.ones(3), "set": set(), "complex": 3 + 1j,
}  # fmt: skip

SENSIBLE = {
    "score": {"function"},
    "evaluations": {"huge"},
    "front_later": {"half"},
    "compensation": {"list"},
    "evaluator": {"mapping"},
    "finetune": {"mapping"},
    "schedule": {"mapping"},
    "protect": {"mapping"},
    "quality": {"mapping"},
    "callbacks": {"list"},
    "exclude": {"list"},
    "round_to": {"mapping"},
    "bounds": {"mapping"},
    "tie": {"list"},
    "depth": {"true"},
    "executor": {"mapping", "empty text"},
    "seed": {"zero", "huge"},
    "out_dir": {"text", "empty text"},
    "factory": {"mapping", "odd key"},
    "exports": {"list"},
    "latency": {"mapping"},
    "redo": {"true"},
    "progress": {"true"},
}
"""Odd values that mean something: an empty mapping of options is the defaults, and so on."""


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()


X, Y = torch.rand(64, 1, 8, 8), torch.arange(64) % 4
INPUTS = torch.rand(2, 1, 8, 8)


def prune(**options: Any) -> Any:
    given = {
        "model": network(), "example_inputs": INPUTS, "budgets": {"macs": 0.5}, "data": (X, Y),
        "evaluations": 2, "agent": "random", "finetune": None, "exports": [],
        "latency": {"repeats": 1, "warmup": 0}, "stages": ["search"], **options,
    }  # fmt: skip
    return rlprune.prune(**given)


def _accepted(what: str, result: Any) -> None:
    pytest.fail(f"{what} was accepted: {result!r}")


@pytest.mark.parametrize("option", inspect.signature(rlprune.prune).parameters)
def test_an_odd_value_of_any_option_is_a_clear_error(option: str) -> None:
    for label, value in ODD.items():
        if label not in SENSIBLE.get(option, set()):
            with pytest.raises(RlpruneError):
                _accepted(f"{option}={label}", prune(**{option: value}))


DATA: dict[str, Callable[[], Any]] = {
    "a label beyond the outputs": lambda: Data((X, Y + 10)),
    "a negative label": lambda: Data((X, Y - 1)),
    "fewer labels": lambda: Data((X, Y[:10])),
    "nothing": lambda: Data((X[:0], Y[:0])),
    "one sample": lambda: Data((X[:1], Y[:1])),
    "other channels": lambda: Data((torch.rand(64, 3, 8, 8), Y)),
    "no image": lambda: Data((torch.rand(64, 8), Y)),
    "another type": lambda: Data((X.half(), Y)),
    "text": lambda: Data(("a", "b")),
    "a factory that fails": lambda: Data(lambda: 1 / 0),
    "a generator held out as NaN": lambda: Data((X, Y), holdout=math.nan),
    "all held out": lambda: Data((X, Y), holdout=64),
    "held-out images of another size": lambda: Data((X, Y), holdout=(X[:, :, :4], Y)),
    "half a class": lambda: Data((X, Y), num_classes=2.5),  # type: ignore[arg-type]
    "too few classes": lambda: Data((X, Y), num_classes=2),
    "a mean of text": lambda: Data((X, Y), mean="x", std="y"),
    "a mean of NaN": lambda: Data((X, Y), mean=[math.nan], std=[1.0]),
    "a deviation of zero": lambda: Data((X, Y), mean=[0.5], std=[0.0]),
    "a seed of text": lambda: Data((X, Y), seed="x"),  # type: ignore[arg-type]
    "an unknown augmentation": lambda: Data((X, Y), augmentation="flop"),
    "an unknown option": lambda: {"train": (X, Y), "tset": (X, Y)},
    "a number": lambda: 3,
}


@pytest.mark.parametrize("label", DATA)
def test_wrong_data_is_told_before_anything_else(label: str) -> None:
    with pytest.raises(RlpruneError):
        prune(data=DATA[label]())


def test_a_network_of_another_type_than_the_data_is_told_with_both() -> None:
    with pytest.raises(DataError, match=r"a sample of the data \(\[1, 1, 8, 8\] torch.float32\)"):
        prune(model=network().double(), example_inputs=INPUTS.double())


def test_samples_alone_are_taken_as_training_data() -> None:
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=16)
    for given in ((X, Y), {"train": (X, Y), "seed": 0}, (X.numpy(), Y.numpy())):
        assert Data.of(given).train_size + Data.of(given).holdout_size == 64
    assert prune(data=loader).costs["macs"] > 0


def test_a_criterion_that_fails_names_itself_and_the_group() -> None:
    def mine(model: nn.Module) -> float:
        return 1.0

    with pytest.raises(ScoreError, match="importance 'mine' raised TypeError for group '0'"):
        prune(importance=mine)


def test_a_budget_that_costs_nothing_is_met_by_any_network() -> None:
    free = rlprune.Budget(fn=lambda network, inputs: 0.0, limit=0.5, name="free")
    assert prune(budgets=[free]).costs == {"free": 0.0}
