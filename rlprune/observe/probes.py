"""How the network's answer depends on what layers return."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.batches import Batch, answer
from rlprune.inputs import ExampleInputs, batch_size, map_tensors
from rlprune.modes import attention_spelled_out, evaluating
from rlprune.observe.recorder import attention_mask, differentiable
from rlprune.observe.watch import Call, Watch, Watcher


@dataclass
class Probed:
    """One call of a layer in the dense network.

    Attributes:
        args: what it was called with.
        kwargs: likewise.
        output: what it returned; the first of several tensors.
        gradient: of a random projection of the network's answer with respect to ``output``; empty
            where the answer does not depend on it.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor
    gradient: Tensor


def probe(
    model: nn.Module,
    batches: Sequence[Batch],
    layers: Collection[str],
    *,
    samples: int = 256,
    chunk: int = 32,
    seed: int = 0,
    classes: bool = True,
) -> Iterator[tuple[int, dict[str, list[Probed]]]]:
    r"""Run a network on calibration samples and differentiate random projections of its answer.

    With ``v ~ N(0, I)`` over the entries of a sample's answer ``z``, less its mean over the
    classes (which a softmax does not see), a small change ``d`` of a layer's output changes the
    answer by about ``J d``, and ``(v . J d)^2`` is an unbiased estimate of ``||J d||^2``: one
    backward pass for all layers tells how much any change of any of them matters (Hutchinson,
    1990; the Gauss-Newton form of the curvature, Schraudolph, 2002). Answers at positions that are
    padding do not count.

    Args:
        model: The network; run in eval mode, never changed.
        batches: Calibration batches.
        layers: Paths of the modules to look at; those that return no tensor, or several
            in something else than a tuple, are left out.
        samples: Samples to use, from the first on.
        chunk: Samples per pass.
        seed: Seed of the projections.
        classes: Whether the answer is one score per class; else its mean counts as well.

    Yields:
        Number of samples, and by path the calls of each layer that the answer depends on.
    """
    generator = torch.Generator().manual_seed(seed)
    for inputs in _chunks(batches, samples, chunk):
        calls: dict[str, list[Probed]] = {path: [] for path in layers}
        watch = Watch(model)
        for path, found in calls.items():
            watch.module(path, after=_watcher(found))
        with ExitStack() as stack:
            stack.enter_context(evaluating(model))
            stack.enter_context(attention_spelled_out())
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(watch)
            weights = [p for p in model.parameters() if p.requires_grad]
            for weight in weights:
                stack.callback(weight.requires_grad_, True)
                weight.requires_grad_(False)
            result = answer(model, inputs).float()
            if not result.requires_grad:
                return
            direction = _direction(result, generator, attention_mask(inputs), classes)
            (result * direction).sum().backward()
        seen = {path: [c for c in found if c.gradient.numel()] for path, found in calls.items()}
        yield batch_size(inputs), seen


def first(output: Any) -> Tensor | None:
    """The floating-point tensor a layer returned, alone or first in a tuple."""
    lead = output[0] if type(output) is tuple and output else output
    return lead if isinstance(lead, Tensor) and lead.is_floating_point() else None


def _direction(
    result: Tensor, generator: torch.Generator, mask: Tensor | None, classes: bool
) -> Tensor:
    direction = torch.randn(result.shape, generator=generator).to(result.device)
    axis = 1 if result.ndim > 3 else -1
    if classes and result.ndim > 1 and result.shape[axis] > 1:
        direction -= direction.mean(axis, keepdim=True)
    if mask is not None and result.ndim == 3 and result.shape[:2] == mask.shape:
        direction *= mask[..., None]
    return direction


def _watcher(calls: list[Probed]) -> Watcher:
    def watcher(call: Call) -> None:
        lead = first(call.output)
        if lead is None or not torch.is_grad_enabled():
            return
        plain = lead.detach()
        found = Probed(_copied(call.args), _copied(call.kwargs), plain, plain.new_empty(0))
        calls.append(found)

        def keep(gradient: Tensor) -> None:
            found.gradient = gradient.detach()

        passed = differentiable(lead, keep)
        call.output = passed if lead is call.output else (passed, *call.output[1:])

    return watcher


def _copied(value: Any) -> Any:
    return map_tensors(value, lambda tensor: tensor.detach().clone())


def _chunks(batches: Sequence[Batch], samples: int, chunk: int) -> Iterator[ExampleInputs]:
    left = samples
    for inputs, _ in batches:
        size = batch_size(inputs)
        for start in range(0, min(size, left), chunk):
            part = slice(start, min(start + chunk, size, left))

            def cut(tensor: Tensor, part: slice = part, size: int = size) -> Tensor:
                whole = tensor.clone() if tensor.is_inference() else tensor.detach()
                return whole[part] if whole.ndim and whole.shape[0] == size else whole

            with torch.inference_mode(False):
                chunk_inputs = map_tensors(inputs, cut)
            yield chunk_inputs
        left -= size
        if left <= 0:
            return
