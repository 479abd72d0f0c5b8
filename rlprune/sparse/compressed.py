"""Networks that multiply with their non-zeros alone, to see what that is worth."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.sparse.layers import Layer, layers
from rlprune.sparse.masks import release

FEWEST_ZEROS = 0.5
"""Share of zeros from which on a weight is compressed."""


class CompressedLayer(nn.Module):
    """A linear layer or convolution whose weight is held as compressed sparse rows.

    Convolutions gather their input windows first, as there is no sparse convolution in PyTorch.

    Args:
        layer: The layer, with zeros in its weight.
    """

    ends: Tensor
    columns: Tensor
    values: Tensor

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        weight = layer.matrix(layer.weight.detach()).contiguous()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
            rows = weight.to_sparse_csr()
        self.shape = tuple(weight.shape)
        self.register_buffer("ends", rows.crow_indices().to(torch.int32))
        self.register_buffer("columns", rows.col_indices().to(torch.int32))
        self.register_buffer("values", rows.values())
        bias: Any = getattr(layer.module, "bias", None)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        # The layer knows the geometry; its weight is not needed any more.
        empty = copy.copy(layer.module)
        empty._parameters = {}
        self._layer = Layer(layer.path, empty, layer.transposed)
        self._channels_last = isinstance(layer.module, nn.Linear) or layer.transposed

    def forward(self, x: Tensor) -> Tensor:
        """What the layer answers."""
        windows = self._layer.windows(x)
        weight = torch.sparse_csr_tensor(
            self.ends, self.columns, self.values, self.shape, check_invariants=False
        )
        found = (weight @ windows.reshape(-1, windows.shape[-1]).T).T
        if self.bias is not None:
            found = found + self.bias
        found = found.reshape(*windows.shape[:-1], self.shape[0])
        return found if self._channels_last else found.movedim(-1, 1)


def compressed(model: nn.Module, fewest: float = FEWEST_ZEROS) -> nn.Module:
    """A network that computes the same with its sparse weights held as compressed rows.

    For measurements: kernels for dense tensors are hard to beat, and for convolutions there is no
    sparse one.

    Args:
        model: The network, with zeros in its weights; not changed.
        fewest: Share of zeros from which on a weight is compressed.

    Returns:
        A copy for inference.
    """
    network = release(copy.deepcopy(model)).eval()
    for path, layer in layers(network)[0].items():
        zeros = float((layer.weight == 0).float().mean())
        if zeros < fewest:
            continue
        if not path:
            return CompressedLayer(layer)
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, CompressedLayer(layer))
    return network
