"""Running a network under the tracer: in eval mode and, for parts it leaves out, in train mode."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rlprune.attention import adapted
from rlprune.errors import RlpruneError, StructureError
from rlprune.inputs import batch_of, batch_size, call
from rlprune.modes import attention_spelled_out
from rlprune.ops.labels import Labels, compress, varying
from rlprune.ops.notes import Meeting
from rlprune.structure.calls import calls_noted
from rlprune.structure.records import Trace
from rlprune.structure.trace import Tracer, ValuesNeededError, module_path
from rlprune.structure.twin import twin

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What tracing a network gave.

    Attributes:
        trace: labels, ops and contractions.
        aliases: every state-dict name of a tensor, by its index in ``trace.tensors``.
        batch: samples in the example inputs.
        unused: parameters that neither an eval-mode nor a train-mode forward pass touches.
    """

    trace: Trace
    aliases: dict[int, list[str]]
    batch: int
    unused: tuple[str, ...] = ()


def run_trace(model: nn.Module, example_inputs: Any, *, train: bool = True) -> Run:
    """Trace a forward pass in eval mode on a copy of the network that shares its parameters.

    Products are not computed. Where the forward pass looks at values (data-dependent control
    flow), it is traced again with real ones. Where it leaves parameters out and ``train`` is set, a
    train-mode pass follows, so that auxiliary heads shrink with what they read.

    Raises:
        StructureError: the forward pass failed; names the module. Its ``steps`` are the ops until
            then.
    """
    if not any(isinstance(x, Tensor) for x in tree_leaves(example_inputs)):
        raise StructureError(
            "example_inputs hold no tensor: give what the network is called with, as a tensor, a "
            "tuple of positional or a dict of keyword arguments"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise StructureError(
            f"{type(model).__name__} is compiled by torch.jit.script or trace and cannot be cut: "
            "give the network it was made from"
        )
    batch = batch_size(example_inputs)
    tracer, copied = _traced(model, example_inputs)
    unused: tuple[str, ...] = ()
    if train and tracer.untouched():
        _train_pass(tracer, copied, example_inputs)
        unused = tuple(tracer.untouched())
    _settle_rectangles(tracer)
    return Run(tracer.trace, tracer.aliases, batch, unused)


def _traced(model: nn.Module, example_inputs: Any) -> tuple[Tracer, nn.Module]:
    meta = any(p.device.type == "meta" for p in model.parameters())
    for compute in (False, True):
        copied = twin(model).eval()
        with module_path(copied) as current:
            tracer = Tracer(copied, current, compute=compute)
            try:
                with calls_noted(copied, tracer):
                    _forward(tracer, copied, example_inputs)
                return tracer, copied
            except Exception as error:
                if compute or meta or not tracer.skipped:
                    raise _failure(model, tracer, error) from error
    raise AssertionError("unreachable")


def _forward(tracer: Tracer, copied: nn.Module, example_inputs: Any) -> None:
    devices = {p.device.index for p in copied.parameters() if p.device.type == "cuda"}
    with (
        torch.random.fork_rng(devices=sorted(d for d in devices if d is not None)),
        adapted(copied),
        attention_spelled_out(),
        torch.no_grad(),
        tracer,
    ):
        output = call(copied, example_inputs)
    for tensor in tensor_leaves(output):
        tracer.freeze(tracer.planes(tensor), "it is an output of the network")
        tracer.pending.use(tensor)
        tracer.trace.outputs.add(tracer.source(tensor).step)


def _failure(model: nn.Module, tracer: Tracer, error: Exception) -> Exception:
    if isinstance(error, RlpruneError) and not isinstance(error, ValuesNeededError):
        return error
    failure = StructureError(
        f"the forward pass of {type(model).__name__} failed on the example inputs in "
        f"{tracer.where()}: {type(error).__name__}: {error}"
    )
    failure.steps = tracer.trace.steps
    return failure


def _train_pass(tracer: Tracer, copied: nn.Module, example_inputs: Any) -> None:
    """Carry the labels on through a train-mode pass, for what eval mode does not run."""
    names = ", ".join(tracer.untouched()[:4])
    inputs = batch_of(example_inputs, 2) if batch_size(example_inputs) == 1 else example_inputs
    with module_path(copied.train()) as current:
        tracer.continue_quietly(current)
        try:
            _forward(tracer, copied, inputs)
        except Exception as error:
            logger.info(
                "parameters that eval mode does not use (%s, ...) keep their size: the train-mode "
                "pass failed in %s: %s: %s",
                names,
                tracer.where(),
                type(error).__name__,
                error,
            )


def tensor_leaves(output: Any) -> list[Tensor]:
    """Tensors in a model's output: nested tuples, dicts and dataclass-like objects.

    A Hugging Face key-value cache is state for the next call, not an output.
    """
    found: list[Tensor] = []
    for leaf in tree_leaves(output, is_leaf=_is_cache):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__") and not _is_cache(leaf):
            found += tensor_leaves(list(vars(leaf).values()))
    return found


def _is_cache(value: Any) -> bool:
    return any(
        kind.__module__ == "transformers.cache_utils" and kind.__name__ == "Cache"
        for kind in type(value).__mro__
    )


def _settle_rectangles(tracer: Tracer) -> None:
    """Where a split dimension lost no axis by itself, tie its shorter axes (the finest choice).

    Of equal axes the last one stays: ``view(b, groups, c // groups)`` names the others.
    """
    labels = tracer.trace.labels
    pending = list(tracer.trace.rectangles)
    while True:
        before = labels.roots().copy()
        for meeting in tracer.trace.meetings:
            _settle_meeting(labels, meeting)
        for rectangle in pending:
            plane = compress(labels, rectangle.labels)
            if plane is None or len(varying(plane)) < 2:
                continue
            unit = max(reversed(varying(plane)), key=plane.shape.__getitem__)
            for dim in varying(plane):
                if dim != unit:
                    first = plane.narrow(dim, 0, 1)
                    labels.union(
                        first.expand(plane.shape).contiguous().numpy(),
                        plane.contiguous().numpy(),
                        rectangle.where,
                    )
                    plane = first
        if np.array_equal(before, labels.roots()):
            return


def _settle_meeting(labels: Labels, meeting: Meeting) -> None:
    """Join what met element-wise, unless units no longer vary along the common dimensions."""
    plane, partner = compress(labels, meeting.plane), compress(labels, meeting.partner)
    if partner is None:
        return
    if plane is None or not set(varying(plane)) & set(varying(partner)):
        labels.freeze(partner.reshape(-1).numpy(), meeting.reason)
        return
    fixed = labels.frozen()[labels.find(partner.reshape(-1).numpy())] >= 0
    rest = [d for d in varying(plane) if d not in varying(partner)]
    if fixed.any() and rest:
        for dim in set(varying(plane)) & set(varying(partner)):
            first = plane.narrow(dim, 0, 1)
            labels.union(first.numpy(), plane.contiguous().numpy(), meeting.reason)
            plane = first
        return
    labels.union(plane.numpy(), partner.numpy(), meeting.reason)
