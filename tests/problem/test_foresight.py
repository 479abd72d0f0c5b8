"""Order and curves are computed once, and again when anything they depend on changes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlprune
from rlprune.importance import CRITERIA, l2
from rlprune.problem import EvaluatorConfig, create
from rlprune.problem.create import CURVES, ORDER
from rlprune.problem.foresight import cause_of, remembered


class Samples:
    """Random images with labels."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.holdout = torch.randn(32, 3, 8, 8, generator=generator), torch.arange(32) % 4
        self.calibration = torch.randn(32, 3, 8, 8, generator=generator), torch.arange(32) % 4


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)
    ).eval()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was computed, in order."""
    module = import_module("rlprune.problem.create")
    calls: list[str] = []
    curves = module.sensitivity

    def order(*args: Any) -> Tensor:
        calls.append("order")
        return l2(*args)

    def predict(*args: Any, **kwargs: Any) -> Any:
        calls.append("curves")
        return curves(*args, **kwargs)

    monkeypatch.setitem(CRITERIA._entries, "l2", order)
    monkeypatch.setattr(module, "sensitivity", predict)
    return calls


def opened(folder: Path, seed: int = 0, data: int = 0, **options: Any) -> Any:
    x = torch.zeros(1, 3, 8, 8)
    groups = rlprune.discover(network(seed), x)
    options = {"importance": "l2", "config": EvaluatorConfig(images=16), **options}
    return create(groups, {"macs": 0.5}, data=Samples(data), foresight=folder, **options)


def test_computed_once(tmp_path: Path, counted: list[str]) -> None:
    first = opened(tmp_path)
    curves = first.sensitivity
    assert counted == ["order", "order", "curves"]
    again = opened(tmp_path)
    assert all((a == b).all() for a, b in zip(curves, again.sensitivity, strict=True))
    assert first.space.plan(first.space.smallest) == again.space.plan(again.space.smallest)
    assert counted == ["order", "order", "curves"]
    assert {ORDER, CURVES} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("changed", "anew"),
    [
        ({"seed": 1}, ["order", "order", "curves"]),
        ({"data": 1}, ["order", "order", "curves"]),
        ({"importance": "l1"}, ["curves"]),
        ({"config": EvaluatorConfig(images=16, compensation=("least_squares",))}, ["curves"]),
        ({"importance": l2}, []),
    ],
    ids=["weights", "calibration", "criterion", "compensation", "own function, same order"],
)
def test_computed_again_when_its_causes_change(
    tmp_path: Path, counted: list[str], changed: dict[str, Any], anew: list[str]
) -> None:
    assert opened(tmp_path).sensitivity is not None
    counted.clear()
    assert opened(tmp_path, **changed).sensitivity is not None
    assert counted == anew


def test_a_function_of_the_users_own_is_called_each_time(tmp_path: Path) -> None:
    calls = []

    def own(groups: Any, group: Any, data: Any) -> Tensor:
        calls.append(group.name)
        return l2(groups, group, data)

    for _ in range(2):
        opened(tmp_path, importance=own)
    assert len(calls) == 4
    assert not (tmp_path / ORDER).exists()


def test_a_damaged_file_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"not tensors")
    made = remembered(path, "cause", lambda: {"a": torch.arange(3)})
    assert torch.equal(made["a"], torch.arange(3))
    kept = remembered(path, "cause", lambda: pytest.fail("computed twice"))
    assert torch.equal(kept["a"], made["a"])


def test_causes_tell_values_types_and_names_apart() -> None:
    x = torch.zeros(2)
    causes = [
        cause_of({"a": x}),
        cause_of({"b": x}),
        cause_of({"a": x + 1}),
        cause_of({"a": x.double()}),
        cause_of({"a": x.bfloat16()}),
        cause_of({"a": x[None]}),
        cause_of("a"),
        cause_of("a", "b"),
    ]
    assert len(set(causes)) == len(causes)
