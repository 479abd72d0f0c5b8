"""How many bytes weights take when their zeros are not stored."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from rlprune.budgets.metric import METRICS, Metric
from rlprune.budgets.units import BYTES, PARAMETERS
from rlprune.inputs import ExampleInputs

LAYOUTS = ("dense", "bitmap", "csr")
"""Ways to store a tensor: as it is; one bit a value and the non-zeros; compressed sparse rows."""


def layout_bytes(shape: tuple[int, ...], nonzeros: int, itemsize: int) -> dict[str, int]:
    """Bytes of a tensor in every layout.

    ``csr`` sees the tensor as ``[first dimension, rest]`` and stores column numbers in two bytes
    where they fit, in four elsewhere, and row ends in four.
    """
    total = 1
    for size in shape:
        total *= size
    rows = shape[0] if shape else 1
    columns = total // rows if rows else 0
    index = 2 if columns <= 2**16 else 4
    return {
        "dense": total * itemsize,
        "bitmap": -(-total // 8) + nonzeros * itemsize,
        "csr": nonzeros * (itemsize + index) + 4 * (rows + 1),
    }


def smallest_layout(tensor: Tensor) -> str:
    """The layout in which a tensor takes the fewest bytes; dense on a tie."""
    nonzeros = int(torch.count_nonzero(tensor))
    sizes = layout_bytes(tuple(tensor.shape), nonzeros, tensor.element_size())
    return min(LAYOUTS, key=lambda layout: sizes[layout])


def stored_bytes(model: nn.Module, example_inputs: ExampleInputs | None = None) -> float:
    """Bytes of parameters and buffers, each in its smallest layout, shared ones once.

    What `rlprune.save_sparse` writes, without the file's header.
    """
    tensors = {id(item): item for item in (*model.parameters(), *model.buffers())}
    total = 0
    for tensor in tensors.values():
        nonzeros = int(torch.count_nonzero(tensor))
        sizes = layout_bytes(tuple(tensor.shape), nonzeros, tensor.element_size())
        total += min(sizes.values())
    return float(total)


def count_nonzeros(model: nn.Module, example_inputs: ExampleInputs | None = None) -> float:
    """Number of parameters that are not zero; a shared one counts once."""
    return float(sum(int(torch.count_nonzero(parameter)) for parameter in model.parameters()))


@METRICS.register("stored_bytes")
class StoredBytes(Metric):
    """Bytes of parameters and buffers when zeros are not stored.

    Args:
        limit: Share of the dense value (``0.2``, ``"20%"``) or an absolute size (``"2 MB"``).
        name: Shown in reports.
    """

    unit: ClassVar[str] = BYTES.name
    key: ClassVar[str] = "stored_bytes"
    title: ClassVar[str] = "stored size"
    function = staticmethod(stored_bytes)


@METRICS.register("nonzeros")
class Nonzeros(Metric):
    """Number of parameters that are not zero.

    Args:
        limit: Share of the dense value (``0.2``, ``"20%"``) or an absolute count (``"1M"``).
        name: Shown in reports.
    """

    unit: ClassVar[str] = PARAMETERS.name
    key: ClassVar[str] = "nonzeros"
    title: ClassVar[str] = "non-zero parameters"
    function = staticmethod(count_nonzeros)
