"""Networks in which some units are scaled copies of others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import rlprune
from rlprune.plan import Plan


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights and statistics in float64, normalisations far from the identity."""
    g = generator(seed)
    model.double().eval()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=g, dtype=tensor.dtype) * 0.5)
        if "running_var" in name:
            tensor.copy_(torch.rand(tensor.shape, generator=g, dtype=tensor.dtype) + 0.3)
    return model


def plant(
    layer: nn.Module, copies: Sequence[tuple[int, int, float]], norm: nn.Module | None = None
) -> None:
    """Make unit i t times unit j for every (i, j, t): what the layer and its norm give."""
    with torch.no_grad():
        for i, j, t in copies:
            if norm is None:
                layer.weight[i] = t * layer.weight[j]
                if layer.bias is not None:
                    layer.bias[i] = t * layer.bias[j]
                continue
            sigma = (norm.running_var + norm.eps).sqrt()
            gain = norm.weight / sigma
            layer.weight[i] = t * gain[j] / gain[i] * layer.weight[j]
            bias = layer.bias if layer.bias is not None else torch.zeros_like(gain)
            target = t * (norm.bias[j] + gain[j] * (bias[j] - norm.running_mean[j]))
            norm.bias[i] = target - gain[i] * (bias[i] - norm.running_mean[i])


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x**2


class SquaredReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x).square()


class SelfGate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.relu(x)


class Magnitude(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


HOMOGENEOUS = {
    "relu": nn.ReLU,
    "relu_inplace": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "prelu": nn.PReLU,
    "abs": Magnitude,
    "relu_squared": SquaredReLU,
    "square": Square,
    "self_gate": SelfGate,
    "identity": nn.Identity,
    "relu_square_root": lambda: nn.Sequential(SquaredReLU(), nn.ReLU()),
}

OTHERS = {
    "relu6": nn.ReLU6,
    "hardtanh": nn.Hardtanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "hardswish": nn.Hardswish,
    "prelu_per_unit": lambda: nn.PReLU(6),
}


def inputs(*shape: int) -> Tensor:
    """Reproducible random inputs, float64."""
    return torch.randn(*shape, generator=generator(7), dtype=torch.float64)


def without(groups: rlprune.Groups, removed: dict[str, set[int]]) -> Plan:
    """The plan that loses the given units of the given groups."""
    keep = {
        g.name: tuple(u for u in range(g.width) if u not in removed.get(g.name, ()))
        for g in groups.prunable
    }
    return Plan(keep, {g.name: g.width for g in groups.prunable})
