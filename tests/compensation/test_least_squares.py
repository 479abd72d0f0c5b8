"""Least squares solves the normal equations, and is exact where removed inputs are redundant."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import rlprune
from rlprune.compaction import build
from rlprune.compensation import Context, LeastSquares, compensate
from rlprune.errors import ConfigError, DataError
from rlprune.linear.moments import InputMoments
from rlprune.linear.patches import patch_corners, patches
from rlprune.linear.solve import GRID, solve
from rlprune.plan import Plan
from tests.compensation.planted import generator, inputs, randomise, without

REMOVED = {1, 4}


def combine(layer: nn.Module) -> None:
    """Units 1 and 4 become linear combinations of the others, before a linear path."""
    mix = torch.randn(2, 4, generator=generator(5), dtype=torch.float64)
    kept, gone = [0, 2, 3, 5], [1, 4]
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias):
            rows = mix @ tensor[kept].reshape(4, -1)
            tensor[gone] = rows.reshape(tensor[gone].shape)


def recovered(model: nn.Module, x: Tensor, group: str, method: LeastSquares) -> tuple[float, float]:
    groups = rlprune.discover(model, x[:1])
    plan = without(groups, {group: REMOVED})
    with torch.no_grad():
        dense = model(x)
        plain = build(groups, plan).eval()
        fitted = compensate(groups, plan, build(groups, plan), method, x).eval()
        scale = float(dense.abs().max())
        errors = [float((dense - m(x)).abs().max()) / scale for m in (plain, fitted)]
    return errors[0], errors[1]


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.other = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 5, 1)
        self.head = nn.Conv2d(11, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.other(x).relu(), self.stem(x)], 1))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.block(x))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(7, 6), nn.Linear(6, 3)), (64, 7)),
    "tokens": (lambda: nn.Sequential(nn.Linear(7, 6), nn.Linear(6, 3)), (16, 5, 7)),
    "flattened": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(6 * 4, 3)),
        (96, 3, 4, 4),
    ),
    "conv 1x1": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)), (8, 3, 7, 7)),
    "conv 3x3": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3, padding=1)),
        (8, 3, 9, 9),
    ),
    "strided, dilated": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.Conv2d(6, 4, (3, 2), stride=(2, 1), dilation=(1, 2), padding=(2, 1)),
        ),
        (16, 3, 9, 9),
    ),
    "reflected": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3, padding="same", padding_mode="reflect")
        ),
        (8, 3, 9, 9),
    ),
    "conv1d": (
        lambda: nn.Sequential(nn.Conv1d(3, 6, 3), nn.Conv1d(6, 4, 3, padding=1)),
        (16, 3, 12),
    ),
    "conv3d": (
        lambda: nn.Sequential(nn.Conv3d(3, 6, 2), nn.Conv3d(6, 4, 2)),
        (8, 3, 4, 4, 4),
    ),
    "concat": (Concatenated, (8, 3, 8, 8)),
    "residual": (Residual, (8, 3, 8, 8)),
}


@pytest.mark.parametrize("patch_limit", [1200, 0], ids=["patches", "positions"])
@pytest.mark.parametrize("name", NETWORKS)
def test_redundant_inputs_are_made_up_for_exactly(name: str, patch_limit: int):
    make, shape = NETWORKS[name]
    model = randomise(make())
    stem = model.stem if hasattr(model, "stem") else model[0]
    combine(stem)
    group = "stem" if hasattr(model, "stem") else "0"
    if name == "residual":
        combine(model.block)
    method = LeastSquares(ridge=1e-12, patch_limit=patch_limit)
    plain, fitted = recovered(model, inputs(*shape), group, method)
    assert fitted < 1e-6 < 1e-2 < plain


def relu_net(bias: bool = True) -> nn.Sequential:
    return randomise(nn.Sequential(nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3, bias=bias)))


@pytest.mark.parametrize("bias", [True, False])
def test_the_fit_is_the_normal_equation(bias: bool):
    model, x, ridge = relu_net(bias), inputs(40, 7), 0.03
    groups = rlprune.discover(model, x[:1])
    plan = without(groups, {"0": REMOVED})
    fitted = compensate(groups, plan, build(groups, plan), LeastSquares(ridge=ridge), x)
    with torch.no_grad():
        hidden = model[:2](x)
        hidden = torch.cat([hidden, torch.ones(40, 1)], 1).double() if bias else hidden
        weight = (
            torch.cat([model[2].weight, model[2].bias[:, None]], 1) if bias else model[2].weight
        )
        kept = [0, 2, 3, 5, *([6] if bias else [])]
        moments = hidden.T @ hidden / 40
        pull = torch.eye(len(kept), dtype=torch.float64) * ridge * moments.diagonal().mean()
        if bias:
            pull[-1, -1] = 0
        left = moments[kept][:, kept] + pull
        right = moments[kept] @ weight.T + pull @ weight[:, kept].T
        expected = torch.linalg.inv(left) @ right
    torch.testing.assert_close(fitted[2].weight, expected.T[:, :4])
    if bias:
        torch.testing.assert_close(fitted[2].bias, expected.T[:, 4])


def test_it_starts_from_what_earlier_methods_left():
    model, x = relu_net(), inputs(20, 7)
    groups = rlprune.discover(model, x[:1])
    plan = without(groups, {"0": REMOVED})
    merged = compensate(groups, plan, build(groups, plan), "merge")
    pulled = compensate(groups, plan, build(groups, plan), ["merge", LeastSquares(ridge=1e9)], x)
    torch.testing.assert_close(pulled[2].weight, merged[2].weight, rtol=1e-6, atol=1e-6)
    assert not torch.equal(merged[2].weight, build(groups, plan)[2].weight)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular", "replicate"])
def test_patches_are_those_of_unfold(mode: str):
    module = nn.Conv2d(
        3, 4, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(1, 2), padding_mode=mode
    ).double()
    x = inputs(2, 3, 7, 8)
    corners = patch_corners(module, x.shape)
    rows = patches(module, x, corners)
    around = module._reversed_padding_repeated_twice
    padded = functional.pad(x, around, "constant" if mode == "zeros" else mode)
    unfolded = functional.unfold(padded, module.kernel_size, module.dilation, 0, module.stride)
    assert torch.equal(rows.transpose(1, 2), unfolded)
    expected = module(x).flatten(2).transpose(1, 2)
    torch.testing.assert_close(rows @ module.weight.flatten(1).T + module.bias, expected)


def test_moments_of_all_positions_are_exact_whatever_the_batches():
    model = randomise(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3)))
    x = inputs(9, 3, 8, 8)
    groups = rlprune.discover(model, x[:1])
    batches = [(x[:4], None), (x[4:5], None), (x[5:], None)]
    found = InputMoments(groups, batches, rows=10**6).found["2.weight"]
    rows = functional.unfold(model[:2](x), 3).transpose(1, 2)
    rows = torch.cat([rows, torch.ones_like(rows[..., :1])], 2).detach()
    for half in (0, 1):
        part = rows[half::2].flatten(0, 1)
        torch.testing.assert_close(found.mean(half), part.T @ part / len(part))


class Mixed(nn.Module):
    """Consumers that cannot be refitted beside one that can."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.up, self.point = nn.ConvTranspose2d(8, 4, 2), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.up(self.grouped(x)).mean((2, 3)) + self.point(x).mean((2, 3))


def test_what_is_not_refitted_is_listed_and_logged(caplog):
    model, x = randomise(Mixed()), inputs(4, 3, 6, 6)
    groups = rlprune.discover(model, x[:1])
    method = LeastSquares()
    with caplog.at_level(logging.INFO, "rlprune.linear"):
        method.prepare(Context(groups, Plan.dense_plan(groups), model, [(x, None)]))
    assert method.left_out["up.weight"] == "it belongs to a ConvTranspose2d"
    assert "point.weight" not in method.left_out
    assert "up.weight" in caplog.text


def test_a_singular_matrix_still_gives_a_solution():
    rows = inputs(3, 8)
    gram, weight = rows.T @ rows, inputs(8, 2)
    found = solve(
        gram, gram @ weight, torch.zeros(8, dtype=torch.float64), torch.zeros(8, 2).double()
    )
    torch.testing.assert_close(rows @ found, rows @ weight, rtol=1e-3, atol=1e-3)
    prior = inputs(8, 2)
    zero = torch.zeros(8, 8, dtype=torch.float64)
    assert torch.equal(solve(zero, prior * 0, torch.zeros(8).double(), prior), prior)


def test_scarce_data_is_pulled_harder():
    model = randomise(nn.Sequential(nn.Linear(20, 60), nn.ReLU(), nn.Linear(60, 10)))
    x = inputs(4000, 20)
    groups = rlprune.discover(model, x[:1])
    ridges = []
    for count in (40, 4000):
        context = Context(groups, Plan.dense_plan(groups), model, [(x[:count], None)])
        ridges.append(LeastSquares().prepare(context).fits["2.weight"].ridge)
    assert ridges[0] > 3 * ridges[1]
    assert GRID[0] < 1e-5


def test_fifty_images_are_no_worse_than_merging_alone():
    model = randomise(nn.Sequential(nn.Linear(20, 60), nn.ReLU(), nn.Linear(60, 10)), seed=2)
    x = inputs(2050, 20)
    groups = rlprune.discover(model, x[:1])
    plan = Plan.uniform(groups, 0.5, "l1")
    errors = []
    with torch.no_grad():
        for chosen in ("merge", ["merge", "least_squares"]):
            small = compensate(groups, plan, build(groups, plan), chosen, x[:50])
            errors.append(float((small(x[50:]) - model(x[50:])).square().mean()))
    assert errors[1] < errors[0]


def test_new_calibration_data_are_noticed():
    model, x = relu_net(), inputs(40, 7)
    groups = rlprune.discover(model, x[:1])
    plan = without(groups, {"0": REMOVED})
    method = LeastSquares(ridge=1e-3)
    results = [
        compensate(groups, plan, build(groups, plan), method, part)[2].weight
        for part in (x[:20], x[20:], x[:20])
    ]
    assert not torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_the_dense_network_is_left_as_it_was():
    model, x = relu_net().train(), inputs(40, 7)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    groups = rlprune.discover(model, x[:1])
    plan = without(groups, {"0": REMOVED})
    compensate(groups, plan, build(groups, plan), ["merge", "least_squares"], x)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert model.training
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_clear_errors():
    model = relu_net()
    groups = rlprune.discover(model, inputs(1, 7))
    plan = without(groups, {"0": REMOVED})
    with pytest.raises(DataError, match="'least_squares' needs calibration data"):
        compensate(groups, plan, build(groups, plan), "least_squares")
    with pytest.raises(ConfigError, match="ridge is -1"):
        LeastSquares(ridge=-1)
    with pytest.raises(ConfigError, match="rows is 0"):
        LeastSquares(rows=0)


def test_every_kernel_size_and_stride_matches_the_convolution():
    for kernel, stride, dilation in product((1, 2, 3), (1, 2), (1, 2)):
        module = nn.Conv2d(2, 3, kernel, stride=stride, dilation=dilation, padding=1).double()
        x = inputs(1, 2, 9, 8)
        assert len(patch_corners(module, x.shape)) == module(x)[0, 0].numel()


def test_transposed_linear_layers_are_refitted():
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(n_layer=1, n_embd=8, n_head=2, n_inner=6, vocab_size=11, n_positions=8)
    model = GPT2Model(config).double().eval()
    stem = model.h[0].mlp.c_fc
    with torch.no_grad():
        for name, parameter in model.h[0].mlp.named_parameters():
            g = generator(len(name))
            parameter.copy_(torch.randn(parameter.shape, generator=g, dtype=torch.float64))
        for tensor in (stem.weight, stem.bias):
            tensor[..., [1, 4]] = tensor[..., [0, 3]]
    tokens = torch.randint(11, (40, 8), generator=generator())
    groups = rlprune.discover(model, tokens[:1])
    plan = without(groups, {"h.0.mlp.c_fc": REMOVED})
    with torch.no_grad():
        dense = model(tokens).last_hidden_state
        small = compensate(groups, plan, build(groups, plan), LeastSquares(ridge=1e-12), tokens)
        plain = build(groups, plan)
        assert (small(tokens).last_hidden_state - dense).abs().max() < 1e-6
        assert (plain(tokens).last_hidden_state - dense).abs().max() > 1e-2


class Equalised(nn.Conv2d):
    """Multiplies by another weight than the one it holds (Karras et al., ICLR 2018, 4.1)."""

    scale = (2 / 54) ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight * self.scale, self.bias, self.stride, self.padding)


class Renamed(nn.Conv2d):
    """Another name, the same forward."""


@pytest.mark.parametrize(("kind", "refitted"), [(Equalised, False), (Renamed, True)])
def test_a_layer_with_a_forward_of_its_own_keeps_its_weight(
    kind: type[nn.Conv2d], refitted: bool
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), kind(6, 4, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * 25, 3),
    ).eval()  # fmt: skip
    x = torch.randn(64, 3, 5, 5)
    groups = rlprune.discover(model, x[:1])
    plan = without(groups, {"0": REMOVED})
    plain = build(groups, plan)
    fitted = compensate(groups, plan, build(groups, plan), LeastSquares(), x)
    assert torch.equal(plain[2].weight, fitted[2].weight) is not refitted
    assert ("2.weight" in InputMoments(groups, [(x, None)]).left_out) is not refitted
