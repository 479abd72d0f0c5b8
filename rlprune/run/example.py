"""Example inputs in a run folder: tensors as safetensors, their arrangement as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from rlprune.errors import CheckpointError
from rlprune.files import read_json, write_json, write_tensors

TENSORS = "example_inputs.safetensors"
LAYOUT = "example_inputs.json"


def save_example(folder: Path, example_inputs: Any) -> bool:
    """Write example inputs into a run folder.

    Args:
        folder: The run folder.
        example_inputs: Nested sequences and mappings of tensors and plain values.

    Returns:
        Whether they could be written; False when they hold an object of another kind.
    """
    tensors: dict[str, Tensor] = {}
    try:
        layout = _encode(example_inputs, tensors)
    except TypeError:
        return False
    write_tensors(folder / TENSORS, tensors)
    write_json(folder / LAYOUT, layout)
    return True


def load_example(folder: Path) -> Any:
    """Read the example inputs of a run folder.

    Raises:
        CheckpointError: There are none, or they are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    layout = read_json(folder / LAYOUT)
    try:
        if layout is None:
            raise OSError(f"no readable {LAYOUT}")
        return _decode(layout, load_file(folder / TENSORS))
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(
            f"{folder} holds no readable example inputs ({error}); give example_inputs="
        ) from error


def _encode(value: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": {str(key): _encode(item, tensors) for key, item in value.items()}}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_encode(item, tensors) for item in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(f"example inputs hold a {type(value).__name__}")


def _decode(layout: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    ((kind, content),) = layout.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _decode(item, tensors) for key, item in content.items()}
    if kind in ("list", "tuple"):
        items = [_decode(item, tensors) for item in content]
        return tuple(items) if kind == "tuple" else items
    return content
