"""Bytes of the file that holds a network's weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor, nn

from rlprune.budgets.base import Estimate
from rlprune.budgets.metric import METRICS, Metric
from rlprune.budgets.units import BYTES
from rlprune.inputs import ExampleInputs

if TYPE_CHECKING:
    from rlprune.structure import Groups

_LENGTH = 8
"""A safetensors file begins with the length of its header, which is a multiple of eight."""
_METADATA = '"__metadata__":{"format":"pt"}'
_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip


def disk_bytes(model: nn.Module, example_inputs: ExampleInputs | None = None) -> float:
    """Size of ``model.safetensors`` with every tensor of the state dict, shared ones once.

    To the byte that of the file `rlprune.hf.save` writes, as long as it is one file.
    """
    tensors = stored_once(model.state_dict())
    shapes = {name: [np.asarray([n]) for n in tensor.shape] for name, tensor in tensors.items()}
    return float(_sizes(tensors, shapes, {}, 1)[0])


def stored_once(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with one name for each tensor, the first."""
    seen: set[tuple[int, tuple[int, ...]]] = set()
    out = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr() if tensor.numel() else id(tensor), tuple(tensor.shape))
        if tensor.is_meta or key not in seen:
            seen.add(key)
            out[name] = tensor
    return out


def _digits(numbers: np.ndarray) -> np.ndarray:
    """How many digits whole numbers [P] have."""
    found: np.ndarray = np.char.str_len(numbers.astype(np.int64).astype(str))
    return found


def _sizes(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, Sequence[np.ndarray]],
    absent: Mapping[str, np.ndarray],
    plans: int,
) -> np.ndarray:
    """Sizes of files [P] of tensors whose dimensions are arrays [P] or [1] each.

    Args:
        tensors: by name, for names and types.
        shapes: their dimensions.
        absent: where a tensor is not in the file, [P]; by name.
        plans: P.
    """
    header: np.ndarray = np.full(plans, 2 + len(_METADATA))
    offset: np.ndarray = np.zeros(plans, dtype=np.int64)
    for name in sorted(tensors, key=lambda n: (-tensors[n].element_size(), n)):
        tensor = tensors[name]
        dims = shapes[name]
        here = 1 - absent.get(name, np.zeros(plans, dtype=np.int64))
        bytes_ = np.full(plans, tensor.element_size(), dtype=np.int64)
        for dim in dims:
            bytes_ = bytes_ * dim
        kind = str(tensor.dtype).removeprefix("torch.")
        fixed = f',{json.dumps(name, ensure_ascii=False)}:{{"dtype":"{_NAMES.get(kind, kind)}",'
        fixed += '"shape":[],"data_offsets":[,]}'
        text = len(fixed.encode()) + max(len(dims) - 1, 0) + sum(_digits(dim) for dim in dims)
        header = header + here * (text + _digits(offset) + _digits(offset + bytes_))
        offset = offset + here * bytes_
    return _LENGTH + -(-header // _LENGTH) * _LENGTH + offset


def _estimate(groups: Groups) -> Estimate:
    """File sizes from the widths of prunable groups, dropped branches included."""
    tensors = stored_once(groups.model.state_dict())
    column = {group.name: at for at, group in enumerate(groups.prunable)}
    steps: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
    for group in groups.prunable:
        for part in groups.slices(group):
            for name in groups.aliases.get(part.tensor, (part.tensor,)):
                step = (column[group.name], group.width, part.index.shape[1])
                steps.setdefault((name, part.dim), []).append(step)
    inside = {
        name: column[branch.groups[0]]
        for branch in groups.branches.values()
        for first in branch.tensors
        for name in groups.aliases.get(first, (first,))
    }

    def sizes(widths: np.ndarray) -> np.ndarray:
        table = np.asarray(widths, dtype=np.int64)
        shapes = {
            name: [
                size - sum((dense - table[:, at]) * n for at, dense, n in steps.get((name, d), ()))
                for d, size in enumerate(tensor.shape)
            ]
            for name, tensor in tensors.items()
        }
        arrays = {name: [np.atleast_1d(dim) for dim in dims] for name, dims in shapes.items()}
        absent = {
            name: (table[:, at] == 0).astype(np.int64)
            for name, at in inside.items()
            if name in tensors
        }
        return _sizes(tensors, arrays, absent, len(table)).astype(np.float64)

    return Estimate(one=lambda widths: float(sizes(np.asarray([widths]))[0]), many=sizes)


@METRICS.register("disk_bytes")
class DiskBytes(Metric):
    """Bytes of the file of weights.

    Args:
        limit: Share of the dense value (``0.5``, ``"50%"``) or an absolute size (``"20 MB"``).
        name: Shown in reports.
    """

    unit: ClassVar[str] = BYTES.name
    key: ClassVar[str] = "disk_bytes"
    title: ClassVar[str] = "size on disk"
    function = staticmethod(disk_bytes)

    def _estimate(self, groups: Groups) -> Estimate | None:
        return _estimate(groups)
