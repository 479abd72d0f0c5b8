"""Writing a network as ONNX and as a torch.export program, each checked after it is written."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.export.standalone import WEIGHTS, load_standalone, write_standalone
from rlprune.exporting import arguments, ready, save_onnx
from rlprune.inputs import batch_of, batch_size, call, map_tensors, to_device

log = logging.getLogger(__name__)

FILES = {"onnx": "model.onnx", "torch_export": "model.pt2", "standalone": "standalone.py"}
_EXPORT_BATCH = 4
_TOLERANCE = 1e-3


def export(network: nn.Module, example_inputs: Any, folder: Path, name: str) -> dict[str, Any]:
    """Write one export and check that it computes what the network computes.

    The batch dimension is dynamic where the network allows it, otherwise the export takes batches
    of the example's size. An export that PyTorch cannot make is no error of the run: the reason
    is returned, and stands in the report.

    Args:
        network: The network.
        example_inputs: What it is called with.
        folder: Where the file goes.
        name: ``onnx``, ``torch_export`` or ``standalone``.

    Returns:
        ``{"file", "dynamic_batch", "max_difference"}``, or ``{"error"}`` with the reason.
    """
    path = folder / FILES[name]
    inputs = to_device(example_inputs, "cpu")
    network = network.cpu().eval()
    reasons = []
    for dynamic in (True, False):
        temporary = path.with_name(f".{os.getpid()}-{path.name}")
        try:
            with ready(network):
                program = _program(network, inputs, dynamic)
                _WRITERS[name](program, temporary)
                difference = _CHECKS[name](temporary, network, inputs, dynamic)
            if difference > _TOLERANCE:
                raise ValueError(f"its output differs from the network's by {difference:.2g}")
            os.replace(temporary, path)
            found = {"file": path.name, "dynamic_batch": dynamic, "max_difference": difference}
            return {**found, "files": [path.name, WEIGHTS]} if name == "standalone" else found
        except Exception as error:  # exporters raise many kinds; the reason goes to the report
            first = str(error).strip().splitlines()[0] if str(error).strip() else ""
            reasons.append(f"{type(error).__name__}: {first}"[:300])
        finally:
            temporary.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    log.warning("%s was not written: %s", path.name, reasons[-1])
    return {"error": reasons[-1]}


def _program(network: nn.Module, inputs: Any, dynamic: bool) -> Any:
    """The network as a torch.export program."""
    sample = batch_of(inputs, _EXPORT_BATCH) if dynamic else inputs
    args, kwargs = arguments(sample)
    shapes = None
    if dynamic:
        batch = torch.export.Dim("batch")
        axes = map_tensors(
            sample,
            lambda t: {0: batch} if t.dim() and t.shape[0] == _EXPORT_BATCH else None,  # type: ignore
        )
        shapes = axes if kwargs else (tuple(axes) if isinstance(sample, (list, tuple)) else (axes,))
    return torch.export.export(network, args, kwargs, dynamic_shapes=shapes)


def _write_pt2(program: Any, path: Path) -> None:
    torch.export.save(program, path)


def _check_pt2(path: Path, network: nn.Module, inputs: Any, dynamic: bool) -> float:
    loaded = torch.export.load(path).module()
    return max(
        _difference(call(loaded, sample), call(network, sample))
        for sample in _samples(inputs, dynamic)
    )


def _check_onnx(path: Path, network: nn.Module, inputs: Any, dynamic: bool) -> float:
    """Largest difference by the ONNX reference evaluator, after ONNX's own checker."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    onnx.checker.check_model(str(path), full_check=True)
    evaluator = ReferenceEvaluator(str(path))
    tensors: list[Tensor] = []
    sample = next(iter(_samples(inputs, dynamic)))
    map_tensors(sample, lambda tensor: tensors.append(tensor) or tensor)  # type: ignore
    feeds = dict(zip(evaluator.input_names, (t.numpy() for t in tensors), strict=True))
    outputs = [torch.from_numpy(value) for value in evaluator.run(None, feeds)]
    return _difference(outputs, call(network, sample))


def _check_standalone(path: Path, network: nn.Module, inputs: Any, dynamic: bool) -> float:
    loaded = load_standalone(path)
    return max(
        _difference(call(loaded, sample), call(network, sample))
        for sample in _samples(inputs, dynamic)
    )


_WRITERS = {"onnx": save_onnx, "torch_export": _write_pt2, "standalone": write_standalone}
_CHECKS = {"onnx": _check_onnx, "torch_export": _check_pt2, "standalone": _check_standalone}


def _samples(inputs: Any, dynamic: bool) -> Iterator[Any]:
    yield inputs
    if dynamic:
        yield batch_of(inputs, batch_size(inputs) + 2)


def _difference(found: Any, expected: Any) -> float:
    from torch.utils._pytree import tree_leaves

    pairs = zip(tree_leaves(found), tree_leaves(expected), strict=False)
    return max(
        (float((a.double() - b.double()).abs().max()) for a, b in pairs if isinstance(b, Tensor)),
        default=0.0,
    )
