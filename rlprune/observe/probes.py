"""What layers read and how the network's answer depends on what they return."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlprune.batches import Batch, answer
from rlprune.inputs import batch_size, map_tensors
from rlprune.modes import attention_spelled_out, evaluating

if TYPE_CHECKING:
    from rlprune.inputs import ExampleInputs


@dataclass
class Call:
    """One call of a layer in the dense network.

    Attributes:
        args: what it was called with.
        kwargs: likewise.
        output: what it returned; the first of several tensors.
        gradient: of a random projection of the network's answer with respect to ``output``.
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
) -> Iterator[tuple[int, dict[str, list[Call]]]]:
    r"""Run a network on calibration samples and differentiate random projections of its answer.

    With ``v ~ N(0, I)`` over the entries of a sample's answer ``z``, less its mean over the
    classes (which a softmax does not see), a small change ``d`` of a layer's output changes the
    answer by about ``J d``, and ``(v . J d)^2`` is an unbiased estimate of ``||J d||^2``: one
    backward pass for all layers tells how much any change of any of them matters (Hutchinson,
    1990; the Gauss-Newton form of the curvature, Schraudolph, 2002).

    Args:
        model: The network; run in eval mode, never changed.
        batches: Calibration batches.
        layers: Paths of the modules to look at; those that return no tensor, or several
            in something else than a tuple, are left out.
        samples: Samples to use, from the first on.
        chunk: Samples per pass.
        seed: Seed of the projections.

    Yields:
        Number of samples, and by path the calls of each layer that the answer depends on.
    """
    generator = torch.Generator().manual_seed(seed)
    for inputs in _chunks(batches, samples, chunk):
        calls: dict[str, list[Call]] = {}
        with ExitStack() as stack:
            stack.enter_context(evaluating(model))
            stack.enter_context(attention_spelled_out())
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for path in layers:
                hook = _hook(calls.setdefault(path, []))
                handle = model.get_submodule(path).register_forward_hook(hook, with_kwargs=True)
                stack.callback(handle.remove)
            weights = [p for p in model.parameters() if p.requires_grad]
            for weight in weights:
                stack.callback(weight.requires_grad_, True)
                weight.requires_grad_(False)
            result = answer(model, inputs).float()
            if not result.requires_grad:
                return
            direction = torch.randn(result.shape, generator=generator).to(result.device)
            classes = 1 if result.ndim > 3 else -1
            if result.ndim > 1 and result.shape[classes] > 1:
                direction -= direction.mean(classes, keepdim=True)
            (result * direction).sum().backward()
        seen = {path: [c for c in found if c.gradient.numel()] for path, found in calls.items()}
        yield batch_size(inputs), seen


def first(output: Any) -> Tensor | None:
    """The floating-point tensor a layer returned, alone or first in a tuple."""
    lead = output[0] if type(output) is tuple and output else output
    return lead if isinstance(lead, Tensor) and lead.is_floating_point() else None


def _hook(calls: list[Call]) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        lead = first(output)
        if lead is None or not torch.is_grad_enabled():
            return None
        plain = lead.detach()
        call = Call(_copied(args), _copied(kwargs), plain, plain.new_empty(0))
        calls.append(call)
        # A copy, so that an activation working in place changes neither the record nor a leaf.
        passed = (lead if lead.requires_grad else plain.clone().requires_grad_()).clone()

        def keep(gradient: Tensor) -> None:
            call.gradient = gradient.detach()

        passed.register_hook(keep)
        return (passed, *output[1:]) if lead is not output else passed

    return hook


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
