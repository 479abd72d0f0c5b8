"""Which layers hold what a network costs: how a budget explains that it cannot be met."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from rlprune.budgets.tracing import ShapeRun
from rlprune.budgets.units import MACS, PARAMETERS, Unit
from rlprune.inputs import ExampleInputs, call
from rlprune.modes import attention_spelled_out, evaluating
from rlprune.observe import Call, Watch

_SELF = "the network itself"


@dataclass(frozen=True)
class Holders:
    """A cost by layer.

    Attributes:
        unit: What is counted.
        by_layer: ``(network, example inputs) -> {module path: count}``; what a module's children
            hold is theirs alone.
    """

    unit: Unit
    by_layer: Callable[[nn.Module, ExampleInputs], dict[str, float]]


def params_by_layer(network: nn.Module, example_inputs: ExampleInputs) -> dict[str, float]:
    """Parameters of every module, those of its children taken out."""
    return {
        name or _SELF: float(sum(item.numel() for item in module.parameters(recurse=False)))
        for name, module in network.named_modules()
    }


def macs_by_layer(network: nn.Module, example_inputs: ExampleInputs) -> dict[str, float]:
    """MACs of every module's own forward, those of its children taken out."""
    run = ShapeRun()
    starts: list[float] = []
    inside: list[float] = []
    own: dict[str, float] = {}

    def enter(module: Call) -> None:
        starts.append(run.macs)
        inside.append(0.0)

    def leave(module: Call) -> None:
        spent = run.macs - starts.pop()
        children = inside.pop()
        own[module.name or _SELF] = own.get(module.name or _SELF, 0.0) + spent - children
        if inside:
            inside[-1] += spent

    watch = Watch(network)
    for path, _ in network.named_modules():
        watch.module(path, before=enter, after=leave)
    with evaluating(network), attention_spelled_out(), torch.no_grad(), watch, run:
        call(network, example_inputs)
    return {name: value for name, value in own.items() if math.isfinite(value)}


BY_PARAMETERS = Holders(PARAMETERS, params_by_layer)
BY_MACS = Holders(MACS, macs_by_layer)
