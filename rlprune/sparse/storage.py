"""Files in which zeros take no space."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rlprune.budgets.stored import smallest_layout
from rlprune.errors import CheckpointError
from rlprune.sparse.masks import release, tensors

FORMAT = "rlprune-sparse"
VERSION = 1
_SHORT = 2**16


def save_sparse(model: nn.Module, path: str | Path) -> None:
    """Write a network's weights, each in the layout that takes the fewest bytes.

    The file is a safetensors file: dense tensors as they are, the others as a bitmap and their
    non-zeros, or as compressed sparse rows; its header says which. Nothing is lost: values are
    stored in their own type, shared tensors once.

    Args:
        model: The network; masks held during fine-tuning are applied. Not changed.
        path: The file; replaced whole or not at all.
    """
    from safetensors.torch import save

    from rlprune.files import write_atomically

    parts: dict[str, Tensor] = {}
    layouts: dict[str, Any] = {}
    first: dict[tuple[int, int, torch.Size, tuple[int, ...]], str] = {}
    for name, tensor in tensors(model).items():
        key = (tensor.data_ptr(), id(tensor.untyped_storage()), tensor.shape, tensor.stride())
        owner = first.setdefault(key, name) if tensor.numel() else name
        if owner != name:
            layouts[name] = {"same_as": owner}
            continue
        value = tensor.detach().cpu().contiguous()
        layout = smallest_layout(value)
        layouts[name] = {"layout": layout, "shape": list(value.shape)}
        parts.update({f"{name}:{key}": part for key, part in _encode(value, layout).items()})
    header = {"format": FORMAT, "version": str(VERSION), "layouts": json.dumps(layouts)}
    write_atomically(Path(path), lambda target: target.write_bytes(save(parts, header)))


def load_sparse(model: nn.Module, path: str | Path) -> nn.Module:
    """The network with the weights of a file written by :func:`save_sparse`.

    Args:
        model: A network of the same shapes; not changed.
        path: The file.

    Returns:
        A copy of ``model`` without masks; its ordinary, dense weights equal those stored bit by
        bit.

    Raises:
        CheckpointError: The file is no such file, or does not fit the network; names the tensor.
    """
    stored = read_sparse(path)
    loaded = release(copy.deepcopy(model))
    own = loaded.state_dict()
    for name in [*(n for n in own if n not in stored), *(n for n in stored if n not in own)]:
        where = "the file" if name in own else "the network"
        raise CheckpointError(f"{path}: {where} has no tensor {name!r}")
    for name, tensor in stored.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f"{path}: {name!r} has shape {tuple(tensor.shape)}, the network's "
                f"{tuple(own[name].shape)}"
            )
    loaded.load_state_dict({n: t.to(own[n].device) for n, t in stored.items()})
    return loaded


def read_sparse(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file written by :func:`save_sparse`, dense, by name.

    Raises:
        CheckpointError: The file is not there, damaged, or of another format.
    """
    try:
        with safe_open(str(path), "pt") as file:
            header: Mapping[str, str] = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise CheckpointError(f"{path}: not written by rlprune.save_sparse")
            if header.get("version") != str(VERSION):
                raise CheckpointError(
                    f"{path}: version {header.get('version')}; this rlprune reads {VERSION}"
                )
            found: dict[str, Tensor] = {}
            for name, entry in json.loads(header["layouts"]).items():
                if "same_as" in entry:
                    found[name] = found[entry["same_as"]]
                else:
                    found[name] = _decode(file, name, entry["layout"], entry["shape"])
            return found
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error


def _encode(tensor: Tensor, layout: str) -> dict[str, Tensor]:
    if layout == "dense":
        return {"values": tensor}
    kept = tensor != 0
    values = tensor[kept]
    if layout == "bitmap":
        bits = np.packbits(kept.reshape(-1).numpy(), bitorder="little")
        return {"values": values, "bitmap": torch.from_numpy(bits)}
    rows = kept.reshape(tensor.shape[0], -1)
    columns = rows.nonzero()[:, 1].to(torch.int32)
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), rows.sum(1).cumsum(0)]).to(torch.int32)
    if rows.shape[1] <= _SHORT:
        columns = columns.to(torch.uint16)
    return {"values": values, "columns": columns, "rows": ends}


def _decode(file: Any, name: str, layout: str, shape: list[int]) -> Tensor:
    values: Tensor = file.get_tensor(f"{name}:values")
    if layout == "dense":
        return values.reshape(shape)
    if layout == "bitmap":
        bits = file.get_tensor(f"{name}:bitmap").numpy()
        total = int(np.prod(shape))
        kept = torch.from_numpy(np.unpackbits(bits, count=total, bitorder="little").astype(bool))
    else:
        ends = file.get_tensor(f"{name}:rows").to(torch.int64)
        columns = file.get_tensor(f"{name}:columns").to(torch.int64)
        dense = torch.zeros(len(ends) - 1, int(np.prod(shape[1:])), dtype=torch.bool)
        dense[torch.arange(len(ends) - 1).repeat_interleave(ends.diff()), columns] = True
        kept = dense.reshape(-1)
    out = torch.zeros(kept.shape, dtype=values.dtype)
    out[kept] = values
    return out.reshape(shape)
