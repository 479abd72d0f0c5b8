"""Gates around blocks without a shortcut of their own: ``d F(x) + (1 - d) A(x)``."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlprune.errors import ConfigError
from rlprune.modes import evaluating
from rlprune.observe import Observation, Site, stream


class Shortcut(nn.Module):
    """What stands in for a block: average pooling to its resolution, its number of channels.

    Missing channels are zeros, surplus ones are left out; a block that changes neither is left
    out as it is. The zeros are a buffer, so that pruning slices them like any other tensor.

    Args:
        before: Shape of the block's input, ``[batch, channels, *positions]``.
        after: Shape of its output.

    Raises:
        ConfigError: The positions of the input are no multiple of those of the output.
    """

    zeros: Tensor

    def __init__(self, before: Sequence[int], after: Sequence[int]) -> None:
        super().__init__()
        if len(before) != len(after) or len(before) not in (2, 3, 4, 5):
            raise ConfigError(f"no shortcut leads from shape {list(before)} to {list(after)}")
        pairs = list(zip(before[2:], after[2:], strict=True))
        if any(a % b for a, b in pairs):
            raise ConfigError(
                f"no pooling leads from {list(before[2:])} positions to {list(after[2:])}"
            )
        self.window = tuple(a // b for a, b in pairs)
        self.channels = min(before[1], after[1])
        self.cut = before[1] > after[1]
        missing = max(after[1] - before[1], 0)
        self.register_buffer(
            "zeros", torch.zeros(1, missing, *[1] * len(pairs)) if missing else None,
            persistent=False,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """The input at the output's size."""
        if any(size > 1 for size in self.window):
            pool = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
            x = pool[len(self.window) - 1](x, self.window)
        if self.cut:
            x = x[:, : self.channels]
        if self.zeros is None:
            return x
        zeros = self.zeros.to(x.dtype).expand(x.shape[0], -1, *x.shape[2:])
        return torch.cat([x, zeros], dim=1)


class Bypass(nn.Module):
    """A block beside its shortcut, ``d F(x) + (1 - d) A(x)``.

    Args:
        block: ``F``, which takes a tensor and returns one.
        shortcut: ``A``.

    Attributes:
        gate: ``d``; a tensor, differentiable, or None for 1.
    """

    def __init__(self, block: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.block, self.shortcut = block, shortcut
        self.gate: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Both ways, weighted."""
        if self.gate is None:
            return self.block(x)
        # A block may change its input in place.
        around = self.shortcut(x.clone())
        gate = self.gate.to(x.dtype)
        return gate * self.block(x) + (1 - gate) * around


def bypassed(
    model: nn.Module, example_inputs: Any, blocks: Sequence[str]
) -> tuple[nn.Module, dict[str, Bypass]]:
    """A copy of a network whose blocks have a way around them.

    Until a gate is set it computes what the network does.

    Args:
        model: The network; not changed.
        example_inputs: What it is called with.
        blocks: Paths of modules that take a tensor and return one, each called once.

    Returns:
        The copy, and its bypasses by path.

    Raises:
        ConfigError: There is no such module, or no shortcut has its shapes.
    """
    network = copy.deepcopy(model)
    shapes = _shapes(network, example_inputs, blocks)
    made: dict[str, Bypass] = {}
    for path in blocks:
        try:
            shortcut = Shortcut(*shapes[path])
        except ConfigError as error:
            raise ConfigError(f"block {path!r} cannot be gone around: {error}") from None
        parameter = next(network.parameters())
        made[path] = Bypass(network.get_submodule(path), shortcut.to(parameter.device))
        _put(network, path, made[path])
    return network, made


def folded(network: nn.Module) -> nn.Module:
    """A copy without gates: blocks where ``d`` is above a half, shortcuts elsewhere.

    Exact where every gate is 0 or 1.
    """
    result = copy.deepcopy(_without_graph(network))
    for path, module in list(result.named_modules()):
        if isinstance(module, Bypass):
            kept = module.gate is None or float(module.gate) > 0.5
            _put(result, path, module.block if kept else module.shortcut)
    return result


def _without_graph(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, Bypass) and module.gate is not None:
            module.gate = module.gate.detach()
    return network


def _shapes(
    network: nn.Module, example_inputs: Any, blocks: Sequence[str]
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    known = dict(network.named_modules())
    wrong = [path for path in blocks if path not in known or not path]
    if wrong:
        raise ConfigError(f"block {wrong[0]!r}: the network has no module of this path")
    inside = [a for a in blocks for b in blocks if a != b and a.startswith(f"{b}.")]
    if inside:
        raise ConfigError(f"block {inside[0]!r} lies in another block")
    seen: dict[tuple[str, str], list[tuple[int, ...]]] = {}

    def note(observation: Observation) -> None:
        place = observation.site.path, observation.site.where
        seen.setdefault(place, []).append(tuple(observation.value.shape))

    sinks = {Site(path, side): note for path in blocks for side in ("input", "output")}
    with evaluating(network), torch.no_grad():
        stream(network, [(example_inputs, None)], sinks)
    for path in blocks:
        if len(seen.get((path, "input"), ())) != 1:
            raise ConfigError(f"block {path!r} has to be called once, with a tensor")
    return {path: (seen[path, "input"][0], seen[path, "output"][0]) for path in blocks}


def _put(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)
