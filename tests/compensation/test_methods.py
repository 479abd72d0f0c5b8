"""Methods are chosen by name, by dotted path, as objects, or as a list of these."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import rlprune
from rlprune.compensation import (
    METHODS,
    BatchNormRecalibration,
    Context,
    LeastSquares,
    Merge,
    methods,
    recalibrate,
)
from rlprune.errors import ConfigError, DataError
from rlprune.plan import Plan
from tests.compensation.planted import generator, randomise


class Halve:
    """A method of one's own."""

    def apply(self, context: Context) -> None:
        with torch.no_grad():
            context.module[3].weight.mul_(0.5)


def network() -> nn.Sequential:
    return randomise(
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3))
    )


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=generator(1), dtype=torch.float64)


@pytest.mark.parametrize(
    ("chosen", "kinds"),
    [
        (None, ()),
        ("merge", (Merge,)),
        ("least_squares", (LeastSquares,)),
        ("bn", (BatchNormRecalibration,)),
        (["merge", "least_squares", "bn"], (Merge, LeastSquares, BatchNormRecalibration)),
        ((LeastSquares(ridge=0.1), "bn"), (LeastSquares, BatchNormRecalibration)),
        ("rlprune.compensation.Merge", (Merge,)),
        (Merge, (Merge,)),
        (Halve(), (Halve,)),
    ],
)
def test_every_spelling(chosen, kinds):
    assert tuple(type(m) for m in methods(chosen)) == kinds


def test_unknown_names_and_objects():
    with pytest.raises(ConfigError, match="'merg' is unknown; did you mean 'merge'"):
        methods("merg")
    with pytest.raises(ConfigError, match="no method apply"):
        methods(3)


@pytest.mark.parametrize("name", [n for n in METHODS if n != "merge"])
def test_missing_data_are_named(name: str):
    model, x = network(), images(2)
    plan = Plan.uniform(rlprune.discover(model, x), 0.5)
    with pytest.raises(DataError, match=f"'{name}' needs calibration data"):
        rlprune.compact(model, x, plan, compensation=name)


def test_compact_applies_them_in_order():
    model, x = network(), images(40)
    recalibrate(model, x)
    plan = Plan.uniform(rlprune.discover(model, x[:1]), 0.5)
    errors = []
    with torch.no_grad():
        for chosen in (None, "merge", ["merge", "least_squares", "bn"]):
            small = rlprune.compact(model, x[:1], plan, compensation=chosen, calibration=x).eval()
            errors.append(float((small(x) - model(x)).square().mean()))
    assert errors[2] < min(errors[:2])
    small = rlprune.compact(model, x[:1], plan, compensation=["merge", Halve()])
    merged = rlprune.compact(model, x[:1], plan, compensation="merge")
    assert torch.equal(small[3].weight, merged[3].weight / 2)
