"""Sequential least squares answers for the inputs that really arrive, not for the dense ones."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlprune
from rlprune.compaction import build
from rlprune.compensation import (
    Context,
    LeastSquares,
    SequentialLeastSquares,
    compensate,
    recalibrate,
)
from rlprune.compensation.sequential import fitting
from rlprune.compensation.sequential.samples import joined, largest_activations
from rlprune.compensation.sequential.sums import Sums
from rlprune.errors import ConfigError, DataError
from rlprune.plan import Plan
from tests.compensation.planted import generator, randomise


class Block(nn.Module):
    """Convolutions with and without batch norm, a shortcut, a linear layer with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.one, self.two = nn.Conv2d(12, 16, 3, padding=1), nn.Conv2d(16, 12, 3, padding=1)
        self.point = nn.Conv2d(12, 8, 1, bias=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.two(self.one(x).relu())
        return self.head(self.point(x).relu().mean((2, 3)))


def images(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=generator(seed))


def cut(model: nn.Module, x: Any, keep: float = 0.5) -> tuple[rlprune.Groups, Plan]:
    groups = rlprune.discover(model, x)
    return groups, Plan.uniform(groups, keep)


def network() -> nn.Module:
    """A network whose running statistics are those of its data."""
    return recalibrate(randomise(Block()).float().eval(), images(256))


def distance(model: nn.Module, other: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((model(x) - other(x)).square().mean() / model(x).var())


def refitted(method: Any, model: nn.Module, x: Tensor, keep: float = 0.5) -> nn.Module:
    groups, plan = cut(model, x[:1], keep)
    return compensate(groups, plan, build(groups, plan).eval(), method, x).eval()


def test_nearer_to_the_dense_network_than_fits_to_its_own_inputs():
    model, x, unseen = network(), images(256), images(256, seed=2)
    plain, squares, one_by_one = (
        distance(model, refitted([method, "bn"] if method else ["bn"], model, x), unseen)
        for method in (None, "least_squares", "sequential")
    )
    assert squares < 0.9 * plain
    assert one_by_one < 0.9 * squares


def test_every_layer_solves_its_normal_equations():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))
    model.eval()
    x = torch.randn(4000, 6, generator=generator(3))
    groups, plan = cut(model, x[:1])
    method = SequentialLeastSquares(samples=4000, rows=1)
    small = compensate(groups, plan, build(groups, plan), method, x)
    with torch.no_grad():
        hidden = small[3](small[2](small[1](small[0](x))))
        wanted = model(x)
        ones = torch.ones(len(x), 1)
        best = torch.linalg.lstsq(torch.cat([hidden, ones], 1).double(), wanted.double()).solution
        left = (hidden @ best[:-1].float() + best[-1].float() - wanted).square().sum()
        lost = float((small(x) - wanted).square().sum())
        power = float((wanted - wanted.mean(0)).square().sum())
        assert lost < 1.001 * float(left)
    before, after = method.errors["4"]
    assert after <= before
    assert after == pytest.approx(lost / power, rel=1e-3)


def test_a_network_that_lost_nothing_is_left_alone():
    model, x = network(), images(256)
    groups = rlprune.discover(model, x[:1])
    plan = Plan.dense_plan(groups)
    small = compensate(groups, plan, build(groups, plan).eval(), "sequential", x)
    for name, tensor in small.named_parameters():
        assert torch.allclose(tensor, model.get_parameter(name), atol=1e-3), name


def test_the_dense_network_is_not_changed_and_hooks_are_gone():
    model, x = network(), images(64)
    before = copy.deepcopy(model.state_dict())
    small = refitted("sequential", model, x)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    modules = [*model.modules(), *small.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)


def test_portions_of_the_dense_outputs_make_no_difference():
    convs = [nn.Conv2d(3 if k == 0 else 12, 12, 3, padding=1) for k in range(9)]
    model, x = randomise(nn.Sequential(*convs)).float().eval(), images(64)
    groups, plan = cut(model, x[:1])
    passes: list[int] = []
    model.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    states, runs = [], []
    for memory in (1 << 30, 64 * largest_activations(model, x)):
        passes.clear()
        method = SequentialLeastSquares(memory=memory)
        small = compensate(groups, plan, build(groups, plan).eval(), method, x)
        states.append(small.state_dict())
        runs.append(list(passes))
    # One sample to size the batch, two to see the order; the dense network, again where memory is
    # short, and the compacted copy on 48 samples; both on the other 16, before and after.
    assert [run.count(48) for run in runs] == [2, 3]
    assert [run.count(8) for run in runs] == [8, 8]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_undone_where_unseen_answers_move_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    layers = [nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 5)]
    model = randomise(nn.Sequential(*layers)).float().eval()
    x = torch.randn(40, 40, generator=generator(4))
    groups, plan = cut(model, x[:1])
    kept = build(groups, plan).eval()
    method = SequentialLeastSquares()
    compensate(groups, plan, kept, method, x)
    assert method.answers is not None
    assert method.answers[1] <= method.answers[0]
    monkeypatch.setattr(fitting, "choose", lambda halves, prior: 1e-9)
    undone = compensate(groups, plan, build(groups, plan).eval(), method, x)
    assert method.answers[1] > method.answers[0]
    assert "sequential is undone" in caplog.text
    for name, tensor in build(groups, plan).state_dict().items():
        assert torch.equal(tensor, undone.state_dict()[name]), name


def test_as_many_samples_as_there_is_memory_for():
    model, x = network(), images(64)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    groups, plan = cut(model, x[:1])
    widest = 2 * 4 * 64 * (12 + 16)
    assert largest_activations(model, x) == widest
    sizes.clear()
    method = SequentialLeastSquares(memory=10 * widest)
    compensate(groups, plan, build(groups, plan).eval(), method, x)
    assert sizes[:2] == [1, 2]
    assert set(sizes[2:]) == {10}


def test_what_is_left_out_is_named():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.deep = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.twice, self.wide = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 3)
            self.line = nn.Conv1d(4, 4, 3)
            self.bare = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.twice(self.twice(self.deep(self.stem(x))))
            x = self.line(self.wide(x).flatten(2)).mean(2)
            return nn.functional.linear(x, self.bare.weight, self.bare.bias)

    model, x = Odd().eval(), images(32)
    groups, plan = cut(model, x[:1], 0.75)
    small = build(groups, plan)
    method = SequentialLeastSquares(limit=40)
    method.apply(Context(groups, plan, small, [(x, None)]))
    reasons = {
        "deep": "grouped",
        "twice": "repeatedly",
        "wide": "54 > 40 inputs",
        "line": "Conv1d",
        "bare": "not called by itself",
    }
    assert method.left_out.keys() == reasons.keys()
    assert all(text in method.left_out[name] for name, text in reasons.items())
    assert set(method.errors) == {"stem"}


def test_batches_are_joined_as_one():
    x, y = torch.arange(6.0).reshape(3, 2), torch.arange(4.0).reshape(2, 2)
    table = torch.ones(5)
    tokens = [({"ids": x, "table": table}, None), ({"ids": y, "table": table}, None)]
    odd = ({"ids": torch.zeros(2, 7), "table": table}, None)
    found = joined([*tokens, odd], samples=4)
    assert torch.equal(found["ids"], torch.cat([x, y])[:4])
    assert torch.equal(found["table"], table)


def test_keyword_inputs():
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))

        def forward(self, *, features: Tensor, scale: float = 1.0) -> Tensor:
            return self.net(features * scale)

    model = Keyword().eval()
    batches = [
        {"features": torch.randn(16, 6, generator=generator(k)), "scale": 2.0} for k in (1, 2)
    ]
    groups, plan = cut(model, {"features": torch.zeros(1, 6), "scale": 2.0})
    method = SequentialLeastSquares()
    compensate(groups, plan, build(groups, plan), [LeastSquares(), method], batches)
    before, after = method.errors["net.2"]
    assert after <= before


def test_bad_input():
    model, x = network(), images(4)
    groups, plan = cut(model, x[:1])
    with pytest.raises(DataError, match=r"sequential.*calibration"):
        compensate(groups, plan, build(groups, plan), "sequential", None)
    with pytest.raises(ConfigError, match="rows is 0"):
        SequentialLeastSquares(rows=0)


class Shortcuts(nn.Module):
    """Blocks that add in the ways common libraries do."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self.style = style
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.one = nn.ModuleList(nn.Conv2d(12, 16, 3, padding=1) for _ in range(5))
        self.two = nn.ModuleList(nn.Conv2d(16, 12, 3, padding=1, bias=False) for _ in range(5))
        self.norm = nn.ModuleList(nn.BatchNorm2d(12) for _ in range(5))
        self.side = nn.ModuleList(nn.Conv2d(12, 12, 1) for _ in range(5))
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for one, two, norm, side in zip(self.one, self.two, self.norm, self.side, strict=True):
            y = norm(two(one(x).relu()))
            if self.style == "plain":
                x = x + y
            elif self.style == "torchvision":
                y += side(x)
                x = y
            elif self.style == "swapped":
                x = torch.add(x, y)
            else:  # what is added is no longer what the normalisation returned
                x = x + y.relu_()
        return self.head(x.relu().mean((2, 3)))


@pytest.mark.parametrize("style", ["plain", "torchvision", "swapped", "relu"])
def test_errors_on_shortcuts_are_mended(style: str, monkeypatch: pytest.MonkeyPatch):
    model = recalibrate(randomise(Shortcuts(style)).float().eval(), images(256))
    x, unseen = images(256), images(256, seed=2)
    groups, plan = cut(model, x[:1])
    method = SequentialLeastSquares()
    blind = compensate(groups, plan, build(groups, plan).eval(), ["bn"], x)
    mended = compensate(groups, plan, build(groups, plan).eval(), [method, "bn"], x)
    assert method.answers is not None
    assert method.answers[1] < 0.9 * method.answers[0]
    changed = [
        not torch.equal(a.weight, b.weight) for a, b in zip(blind.norm, mended.norm, strict=True)
    ]
    if style == "relu":
        assert not any(changed)
        return
    assert all(changed)
    monkeypatch.setattr(Sums, "_term", lambda self, args: None)
    own = compensate(groups, plan, build(groups, plan).eval(), ["sequential", "bn"], x)
    lost = [distance(model, network.eval(), unseen) for network in (mended, own, blind)]
    assert lost[0] < 0.95 * lost[1] < lost[2]


def test_the_sum_is_right_beside_what_is_really_added():
    """With as many inputs as it needs, one layer makes up for all that its shortcut lost."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.lossy = nn.Linear(6, 30), nn.Linear(30, 4)
            self.whole = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.whole(x) + self.lossy(self.wide(x))

    torch.manual_seed(0)
    model, x = Sum().eval(), torch.randn(600, 6, generator=generator(3))
    groups, plan = cut(model, x[:1], 0.1)
    method = SequentialLeastSquares()
    small = compensate(groups, plan, build(groups, plan).eval(), method, x)
    with torch.no_grad():
        assert torch.allclose(small(x), model(x), atol=1e-3)


def test_portions_make_no_difference_to_sums():
    model = recalibrate(randomise(Shortcuts("torchvision")).float().eval(), images(64))
    x = images(64)
    groups, plan = cut(model, x[:1])
    states: list[dict[str, Tensor]] = []
    passes: list[int] = []
    model.register_forward_pre_hook(lambda module, args: passes.append(len(states)))
    for memory in (1 << 30, 64 * largest_activations(model, x)):
        method = SequentialLeastSquares(memory=memory, rows=200_000)
        small = compensate(groups, plan, build(groups, plan).eval(), method, x)
        states.append(small.state_dict())
    assert passes.count(1) > passes.count(0) + 2
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_a_normalisation_that_serves_two_layers_keeps_its_scale():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.mid = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 1)
            self.one, self.two = nn.Conv2d(12, 8, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1)
            self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = x + self.norm(self.one(self.mid(x).relu()))
            x = x + self.norm(self.two(self.mid(x).relu()))
            return self.head(x.relu().mean((2, 3)))

    model, x = randomise(Shared()).float().eval(), images(128)
    groups, plan = cut(model, x[:1], 0.75)
    small = build(groups, plan).eval()
    before = small.norm.weight.detach().clone()
    compensate(groups, plan, small, "sequential", x)
    assert torch.equal(small.norm.weight, before)


def test_works_in_inference_mode():
    model = recalibrate(randomise(Shortcuts("plain")).float().eval(), images(64))
    x = images(64)
    groups, plan = cut(model, x[:1])
    outside = compensate(groups, plan, build(groups, plan).eval(), "sequential", x)
    with torch.inference_mode():
        inside = compensate(groups, plan, build(groups, plan).eval(), "sequential", images(64))
    for name, tensor in outside.state_dict().items():
        assert torch.equal(tensor, inside.state_dict()[name]), name
