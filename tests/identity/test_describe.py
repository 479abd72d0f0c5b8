"""Equal descriptions for equal values, others for others: functions above all."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rlprune
from rlprune.identity import changes, describe, digest

SCALE = 2.0


def counted(model: nn.Module) -> float:
    return SCALE * sum(p.numel() for p in model.parameters())


def through_a_helper(model: nn.Module, x: Any) -> float:
    return counted(model)


def made(factor: float, table: Tensor | None = None) -> Callable[..., float]:
    def cost(model: nn.Module, x: Any, power: float = 1.0) -> float:
        return factor * float(table.sum()) if table is not None else factor**power

    return cost


class Meter:
    """A callable with an option, a counter and a cache."""

    def __init__(self, volts: float) -> None:
        self._set(volts)
        self.calls = 0
        self.cache: dict[int, float] = {}

    def _set(self, volts: float) -> None:
        self.volts = volts

    def __call__(self, model: nn.Module, x: Any) -> float:
        self.calls += 1
        self.cache[id(model)] = self.volts
        return self.volts * counted(model)

    def energy(self, model: nn.Module, x: Any) -> float:
        return self(model, x)


@dataclass(frozen=True)
class Options:
    rate: float = 0.1
    names: tuple[str, ...] = ("a",)


def compiled(text: str) -> Callable[..., Any]:
    space: dict[str, Any] = {"__name__": "users_own"}
    exec(compile(text, "file.py", "exec"), space)
    return space["f"]


def different(*values: Any) -> None:
    digests = [digest(value) for value in values]
    assert len(set(digests)) == len(digests), digests


def test_tensors_by_type_shape_and_content() -> None:
    x = torch.arange(6, dtype=torch.float32)
    different(
        x, x.view(2, 3), x.view(3, 2), x.double(), x + 1, x.bfloat16(), x.int(), x.numpy(), x[:0]
    )
    assert describe(x.view(2, 3).T.contiguous().T) == describe(x.view(2, 3))
    assert describe(nn.Parameter(x)) == describe(x)
    assert describe({"a": x, "b": 1}) == describe({"b": 1, "a": x.clone()})
    different(torch.eye(3), torch.eye(3).to_sparse(), torch.empty(3, 3, device="meta"))


def test_values_types_and_names_apart() -> None:
    different(
        1, 1.5, "1", None, True, [1], {"a": 1}, {"b": 1}, {1}, b"1", 1j, {1: "a"}, float("nan")
    )
    different(Options(), Options(0.2), Options(names=("a", "b")), {"rate": 0.1, "names": ["a"]})
    assert describe((1, 2)) == describe([1, 2])
    assert describe(np.float32(0.5)) == 0.5
    assert json.loads(json.dumps(describe(Options()))) == describe(Options())


def test_a_list_that_holds_itself_ends() -> None:
    endless: list[Any] = [1]
    endless.append(endless)
    assert describe(endless)[1] == {"@": "itself", "type": "builtins.list"}
    long = list(range(30_000))
    assert len(json.dumps(describe(long))) < 200


def test_a_function_is_its_code_not_its_layout() -> None:
    one = compiled("def f(m):\n    return 3 * m.x\n")
    same = compiled("# a comment\n\n\ndef f(m):\n\n    # another\n    return 3 * m.x\n")
    assert describe(one) == describe(same)
    different(
        one,
        compiled("def f(m):\n    return 4 * m.x\n"),
        compiled("def f(m):\n    return 3 * m.y\n"),
        compiled("def f(m):\n    return 3 - m.x\n"),
        compiled("def f(m, k=1):\n    return 3 * m.x\n"),
        compiled("def f(m, k=2):\n    return 3 * m.x\n"),
        compiled("def f(m):\n    return [3 * x for x in m.x]\n"),
        compiled("def f(m):\n    return [4 * x for x in m.x]\n"),
    )


def test_a_function_is_what_its_closure_holds() -> None:
    assert describe(made(1.0)) == describe(made(1.0))
    different(made(1.0), made(2.0), made(1.0, torch.ones(2)), made(1.0, torch.zeros(2)))
    said = changes(describe(made(1.0)), describe(made(2.0)), "budgets.e.fn")
    assert said == ["budgets.e.fn.closure.factor 1.0 -> 2.0"]


def test_a_function_is_what_it_refers_to(monkeypatch: pytest.MonkeyPatch) -> None:
    before = describe(through_a_helper), describe(counted), describe(Meter(1.0))
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    after = describe(through_a_helper), describe(counted), describe(Meter(1.0))
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert "calls" in changes(before[0], after[0])[0]
    assert changes(before[1], after[1]) == ["globals.SCALE 2.0 -> 3.0"]


def test_partials_methods_and_instances() -> None:
    different(
        made,
        functools.partial(made, 1.0),
        functools.partial(made, 2.0),
        functools.partial(made, factor=2.0),
        Meter(1.0),
        Meter(2.0),
        Meter(1.0).energy,
        Meter(2.0).energy,
        Meter,
        len,
        torch.add,
        nn.functional.cross_entropy,
        torch.no_grad()(counted),
    )


def test_what_a_function_keeps_for_itself_does_not_count() -> None:
    calls: list[int] = []
    seen: dict[str, int] = {"n": 0}
    count = 0

    def score(model: nn.Module) -> float:
        nonlocal count
        count += 1
        calls.append(1)
        seen["n"] += 1
        seen[str(model)] = 2
        return float(len(calls))

    meter = Meter(1.0)
    before = describe(score), describe(meter)
    score(nn.Identity())
    meter(nn.Identity(), None)
    assert (calls, count, seen, meter.calls) == ([1], 1, {"n": 1, "Identity()": 2}, 1)
    assert (describe(score), describe(meter)) == before


LOW, HIGH, TABLE = 0.2, 0.8, {"a": 1}


def test_what_a_function_only_reads_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def score(model: nn.Module) -> float:
        found = {}
        found["x"] = TABLE["a"]
        return found["x"] if LOW < 0.5 < HIGH else 0.0

    seen = [digest(score)]
    for name, value in (("LOW", 0.6), ("HIGH", 0.4), ("TABLE", {"a": 2})):
        monkeypatch.setitem(globals(), name, value)
        seen.append(digest(score))
    assert len(set(seen)) == 4


def test_a_network_is_its_classes_options_and_weights() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.ReLU())
    same = copy.deepcopy(network).train()
    assert describe(same) == describe(network.eval())
    other = copy.deepcopy(network)
    other[1].eps = 1e-3
    swapped = copy.deepcopy(network)
    swapped[2] = nn.GELU()
    heavier = copy.deepcopy(network)
    with torch.no_grad():
        heavier[0].bias += 1
    different(network, other, swapped, heavier, copy.deepcopy(network).double())
    assert changes(describe(network), describe(heavier)) == ["weights changed"]


def test_budgets_speak_for_themselves() -> None:
    budget = rlprune.Budget
    different(
        budget(made(1.0), limit=3),
        budget(made(2.0), limit=3),
        budget(made(1.0), limit=4),
        budget(made(1.0), limit="3%"),
        budget(made(1.0), limit=3, version="b"),
        rlprune.budgets.PeakMemory(0.5),
        rlprune.budgets.PeakMemory(0.5, batch_size=2),
        rlprune.budgets.Macs(0.5),
        rlprune.budgets.Latency(0.5),
        rlprune.budgets.Latency(0.5, threads=1),
    )
    assert describe(budget(made(1.0), limit=3)) == describe(budget(made(1.0), limit=3, name="x"))
    assert str(budget(made(1.0), limit=12345678).limit) == "12345678"


def test_what_changed_is_told_in_words() -> None:
    before = {"a": {"rate": 1, "sha": "0" * 32}, "b": [1, 2], "c": None}
    now = {"a": {"rate": 2, "sha": "1" * 32}, "b": [1, 2, 3], "c": describe(counted)}
    assert changes(before, now) == [
        "a.rate 1 -> 2",
        "a.sha changed",
        "b [1, 2] -> [1, 2, 3]",
        f"c None -> function {__name__}.counted",
    ]
    assert changes(now, now) == []
