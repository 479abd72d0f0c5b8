"""Weights from files: safetensors, or torch files read with ``weights_only=True``."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from rlprune.errors import CheckpointError

_M = TypeVar("_M", bound=nn.Module)

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_SHOWN = 5


def load_checkpoint(model: _M, path: str | os.PathLike[str]) -> _M:
    """Copy weights from a file into ``model``, in place, after checking every one of them.

    Floating-point tensors are cast to the model's type; a missing ``num_batches_tracked`` is left
    as it is. Nothing is copied unless everything fits.

    Args:
        model: The network to fill.
        path: A ``.safetensors`` file, or a torch file that holds a state dict, bare or under
            ``state_dict``, with or without a ``module.`` prefix.

    Returns:
        The same ``model``.

    Raises:
        CheckpointError: The file is missing or unreadable, holds pickled objects, or its keys,
            shapes or values do not fit; the offending keys are named.
    """
    path = Path(path)
    loaded = _strip_prefix(read_weights(path), model.state_dict())
    own = model.state_dict()
    problems: list[str] = []
    missing = [k for k in own if k not in loaded and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in loaded if k not in own]
    shapes = [
        f"{k} {tuple(v.shape)}, the model's is {tuple(own[k].shape)}"
        for k, v in loaded.items()
        if k in own and v.shape != own[k].shape
    ]
    broken = [k for k, v in loaded.items() if v.is_floating_point() and not v.isfinite().all()]
    for label, found in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("of another shape", shapes),
        ("with NaN or infinite values", broken),
    ):
        if found:
            problems.append(f"{len(found)} keys {label}: {_some(found)}")
    if problems:
        raise CheckpointError(
            f"{path} does not fit {type(model).__name__}: {'; '.join(problems)}. Is it the right "
            "network, with the right num_classes?"
        )
    with torch.no_grad():
        for key, value in loaded.items():
            own[key].copy_(value)
    return model


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict from a file without running anything stored in it.

    Args:
        path: A ``.safetensors`` file or a torch file.

    Returns:
        Tensors on the CPU by their stored names.

    Raises:
        CheckpointError: The file is missing, unreadable, or holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} is not a file; give a .safetensors or torch file")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read with weights_only=True ({first}). Save weights alone, with "
            "torch.save(model.state_dict(), path), or as safetensors"
        ) from error
    return _state_dict(content, path)


def save_weights(model: nn.Module, path: str | os.PathLike[str]) -> Path:
    """Write the state dict as safetensors, through a temporary file that is renamed.

    Args:
        model: The network.
        path: Target, overwritten; its folder is made.

    Returns:
        The path.
    """
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().cpu().clone().contiguous() for k, v in model.state_dict().items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    save_file(weights, temporary)
    os.replace(temporary, path)
    return path


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for key in _WRAPPERS:
            inner = content.get(key)
            if isinstance(inner, Mapping):
                return _state_dict(inner, path)
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        others = [str(k) for k, v in content.items() if not isinstance(v, Tensor)]
        if tensors and not others:
            return tensors
        if others:
            raise CheckpointError(
                f"{path} holds entries that are no tensors: {_some(others)}; expected a state "
                f"dict, bare or under one of {', '.join(_WRAPPERS)}"
            )
    raise CheckpointError(f"{path} holds {type(content).__name__}, expected a state dict")


def _strip_prefix(loaded: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if not all(key.startswith(prefix) for key in loaded):
            continue
        if loaded and not any(key in own for key in loaded):
            return _strip_prefix({k[len(prefix) :]: v for k, v in loaded.items()}, own)
    return loaded


def _some(items: Sequence[str]) -> str:
    shown = ", ".join(items[:_SHOWN])
    return shown if len(items) <= _SHOWN else f"{shown}, and {len(items) - _SHOWN} more"
