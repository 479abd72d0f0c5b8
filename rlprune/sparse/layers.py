"""The weights that can be made sparse, each seen as a matrix of outputs by inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

import torch
from torch import Tensor, nn

from rlprune.errors import ConfigError

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Layer:
    """A layer whose output is a product with its weight.

    Attributes:
        path: Where it is in the network.
        module: The layer.
        transposed: Whether the weight is stored inputs first, as GPT-2's ``Conv1D`` does.
    """

    path: str
    module: nn.Module
    transposed: bool = False

    @property
    def weight(self) -> Tensor:
        """The stored weight."""
        found = self.module.weight
        assert isinstance(found, Tensor)
        return found

    def matrix(self, tensor: Tensor) -> Tensor:
        """A tensor of the weight's shape as ``[outputs, inputs]``.

        The inputs of a convolution are ordered by tap, then channel, so that runs and blocks of
        inputs lie along the channels, where kernels for n:m sparsity want them.
        """
        if self.transposed:
            return tensor.T
        return tensor.movedim(1, -1).reshape(tensor.shape[0], -1)

    def stored(self, matrix: Tensor) -> Tensor:
        """The inverse of :meth:`matrix`."""
        if self.transposed:
            return matrix.T
        out, inside, *taps = self.weight.shape
        return matrix.reshape(out, *taps, inside).movedim(-1, 1)

    def runs(self) -> int:
        """Length along which runs of an n:m pattern must fit: the input channels."""
        return int(self.weight.shape[0 if self.transposed else 1])

    def rows(self, x: Tensor) -> Tensor:
        """What the weight is multiplied with, one row per output position.

        Args:
            x: The layer's input.

        Returns:
            ``[positions, inputs]`` in the order of :meth:`matrix`.
        """
        found = self.windows(x)
        return found.reshape(-1, found.shape[-1])

    def windows(self, x: Tensor) -> Tensor:
        """The rows of :meth:`rows` where they are: ``[batch, *positions, inputs]``."""
        module = self.module
        if not isinstance(module, _CONVOLUTIONS):
            return x
        spatial = len(module.kernel_size)
        if x.ndim == spatial + 1:
            x = x[None]
        if module.padding != "valid" and any(module._reversed_padding_repeated_twice):
            kind = "constant" if module.padding_mode == "zeros" else module.padding_mode
            x = nn.functional.pad(x, module._reversed_padding_repeated_twice, mode=kind)
        for dim in range(spatial):
            reach = module.dilation[dim] * (module.kernel_size[dim] - 1) + 1
            x = x.unfold(2 + dim, reach, module.stride[dim])[..., :: module.dilation[dim]]
        # [batch, channels, *positions, *taps] -> [batch, *positions, *taps, channels]
        return x.movedim(1, -1).flatten(spatial + 1)


def layers(
    model: nn.Module, exclude: Sequence[str] = ()
) -> tuple[dict[str, Layer], dict[str, str]]:
    """Every layer that can be made sparse.

    Args:
        model: The network.
        exclude: Module-name globs of layers to leave dense.

    Returns:
        Layers by path, each weight once, and by path the reason why others are left dense.

    Raises:
        ConfigError: A glob matches no layer with a weight.
    """
    found: dict[str, Layer] = {}
    left: dict[str, str] = {}
    owners = {id(m.weight): p for p, m in model.named_modules() if isinstance(m, nn.Embedding)}
    used: set[str] = set()
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim < 2:
            continue
        glob = next((g for g in exclude if fnmatch(path, g)), None)
        convolution = isinstance(module, _CONVOLUTIONS)
        if glob is not None:
            used.add(glob)
            left[path] = f"excluded by '{glob}'"
        elif owners.get(id(weight), path) != path:
            left[path] = f"shares its weight with {owners[id(weight)]}"
        elif convolution and module.groups > 1:
            left[path] = "a grouped convolution"
        elif not weight.is_floating_point():
            left[path] = f"its weight is {weight.dtype}"
        elif convolution or isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
            owners[id(weight)] = path
            found[path] = Layer(path, module, type(module).__name__ == "Conv1D")
        else:
            left[path] = f"a {type(module).__name__}"
    for glob in exclude:
        if glob not in used:
            raise ConfigError(f"exclude: the glob {glob!r} matches no layer with a weight")
    return found, left


def zeros(model: nn.Module) -> tuple[int, int]:
    """Number of zeros among the weights of all parameters, and number of parameters."""
    with torch.no_grad():
        counts = [(int((p == 0).sum()), p.numel()) for p in model.parameters()]
    return sum(zero for zero, _ in counts), sum(total for _, total in counts)
