"""Linear layers and convolutions as matrices [outputs, inputs], whatever their weights' layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from rlprune.structure import Groups

_Conv = nn.modules.conv._ConvNd
_PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Consumer:
    """A weight that reads prunable units, as a matrix [outputs, inputs].

    Attributes:
        name: state-dict name of the weight.
        module: the linear layer or convolution it belongs to.
        form: "linear", "transposed" (weight [inputs, outputs]), "patches" (a 2-D convolution whose
            inputs are whole patches) or "positions" (a convolution whose kernel positions are
            outputs of their own, all reading the same channels).
    """

    name: str
    module: nn.Module
    form: str

    @property
    def path(self) -> str:
        """Path of the module."""
        return self.name.rpartition(".")[0]

    @property
    def dim(self) -> int:
        """Dimension of the weight along which it reads units."""
        return 0 if self.form == "transposed" else 1

    @property
    def per_channel(self) -> int:
        """Inputs of the matrix per position along `dim`."""
        return self.weight[0, 0].numel() if self.form == "patches" else 1

    @property
    def inputs(self) -> int:
        """Columns of the matrix, without the bias."""
        return self.weight.shape[self.dim] * self.per_channel

    @property
    def weight(self) -> Tensor:
        """The dense weight."""
        return self.module.get_parameter("weight").detach()

    @property
    def intercept(self) -> bool:
        """Whether there is a bias that is refitted with the weight."""
        one = self.form != "positions" or self.weight[0, 0].numel() == 1
        return one and getattr(self.module, "bias", None) is not None

    def matrix(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """A weight of this form, dense or cut, as a float64 matrix with the bias as last column."""
        wide = weight.detach().cpu().double()
        if self.form == "transposed":
            wide = wide.T
        elif self.form == "patches":
            wide = wide.flatten(1)
        elif self.form == "positions":
            wide = wide.flatten(2).transpose(1, 2).flatten(0, 1)
        if self.intercept and bias is not None:
            wide = torch.cat([wide, bias.detach().cpu().double()[:, None]], 1)
        return wide

    def unpack(self, matrix: Tensor, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """The inverse of `matrix`, for a weight shaped like another."""
        bias = matrix[:, -1] if self.intercept else None
        wide = matrix[:, :-1] if self.intercept else matrix
        if self.form == "transposed":
            wide = wide.T
        elif self.form == "positions":
            wide = wide.reshape(like.shape[0], -1, wide.shape[1]).transpose(1, 2)
        return wide.reshape(like.shape), bias

    def write(self, module: nn.Module, matrix: Tensor) -> None:
        """Give a module, dense or cut, the weight and bias of a matrix, in place."""
        weight, bias = module.get_parameter("weight"), getattr(module, "bias", None)
        found, shift = self.unpack(matrix, weight)
        with torch.no_grad():
            weight.copy_(found)
            if shift is not None and bias is not None:
                bias.copy_(shift)


def consumers(
    groups: Groups, patch_limit: int, limit: int
) -> tuple[list[Consumer], dict[str, str]]:
    """Weights that read prunable units and can be refitted; the others with the reason.

    Args:
        groups: the dense network's groups.
        patch_limit: a 2-D convolution is described by whole patches up to this many inputs.
        limit: most inputs of a weight that is refitted.
    """
    found: dict[str, Consumer] = {}
    left: dict[str, str] = {}
    for group in groups.prunable:
        for part in groups.slices(group):
            name = part.tensor
            if part.role != "in" or name in found or name in left:
                continue
            path, _, attribute = name.rpartition(".")
            module = groups.model.get_submodule(path)
            form = form_of(module, patch_limit)
            if attribute != "weight" or form is None:
                left[name] = f"it belongs to a {type(module).__name__}"
            elif isinstance(module, _Conv) and module.groups > 1:
                left[name] = "it belongs to a grouped convolution"
            elif len(groups.aliases.get(name, (name,))) > 1:
                left[name] = "several modules share it"
            else:
                consumer = Consumer(name, module, form)
                if consumer.weight.shape[consumer.dim] > limit:
                    left[name] = f"it reads {consumer.weight.shape[consumer.dim]} > {limit} inputs"
                else:
                    found[name] = consumer
    return list(found.values()), left


def form_of(module: nn.Module, patch_limit: int) -> str | None:
    """How a layer is refitted; None for other modules, and for kinds with a forward of their own.

    Args:
        module: any module.
        patch_limit: see `consumers`.
    """
    kind = type(module)
    if kind is nn.Linear:
        return "linear"
    if kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers."):
        return "transposed"
    plain = next((base for base in _PLAIN if kind.forward is base.forward), None)
    if plain is None or "weight" not in module._parameters:
        return None
    if isinstance(module, nn.Conv2d):
        kernel = module.weight[0, 0].numel()
        return "patches" if 1 < kernel <= patch_limit / module.in_channels else "positions"
    return "positions"
