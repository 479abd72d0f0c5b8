"""Passes of a network under the tracer.

The first pass records ops and costs. Quiet passes carry the same labels on, and so add what the
first one cannot show: what only train mode or other values run, ties that hold at one size only.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune.attention import adapted
from rlprune.inputs import batch_of, batch_size, call
from rlprune.modes import attention_spelled_out
from rlprune.ops import named
from rlprune.structure.outputs import tensors_of
from rlprune.structure.settling import settle_conditions
from rlprune.structure.trace import Leaving, Tracer, module_path
from rlprune.structure.variations import resized, revalued

logger = logging.getLogger(__name__)


def forward(tracer: Tracer, copied: nn.Module, example_inputs: Any) -> Any:
    """One pass under the tracer; what leaves the network keeps its size. Returns the output."""
    devices = {p.device.index for p in copied.parameters() if p.device.type == "cuda"}
    with (
        torch.random.fork_rng(devices=sorted(d for d in devices if d is not None)),
        adapted(copied),
        attention_spelled_out(),
        torch.no_grad(),
        tracer,
        Leaving(tracer),
    ):
        output = call(copied, example_inputs)
    for tensor in tensors_of(output):
        tracer.freeze(tracer.planes(tensor), "it is an output of the network")
        tracer.pending.use(tensor)
        tracer.trace.outputs.add(tracer.source(tensor).step)
    return output


def train_pass(tracer: Tracer, copied: nn.Module, example_inputs: Any) -> None:
    """Carry the labels on through a train-mode pass, for what eval mode does not run."""
    names = ", ".join(tracer.untouched()[:4])
    inputs = batch_of(example_inputs, 2) if batch_size(example_inputs) == 1 else example_inputs
    failure = _quiet_pass(tracer, copied.train(), inputs)
    copied.eval()
    if failure is not None:
        logger.info(
            "the train-mode pass, for parameters that eval mode does not use (%s, ...), failed "
            "in %s: %s: %s",
            names,
            tracer.where(),
            type(failure).__name__,
            failure,
        )


def value_passes(tracer: Tracer, copied: nn.Module, example_inputs: Any) -> None:
    """Carry the labels on through passes with other values, where the forward looks at values."""
    if not any(named(step.op).looks is True for step in tracer.trace.steps):
        return
    for inputs in revalued(example_inputs):
        if tracer.untouched():
            _quiet_pass(tracer, copied, inputs, compute=True)


def size_pass(tracer: Tracer, copied: nn.Module, example_inputs: Any) -> Any:
    """Carry the labels on through a pass at another size and batch, if the network takes one.

    A reshape that mixes positions with channels ties channels in a way that the size decides.
    Units that this pass ties and the first one did not are left whole: a third size would tie them
    differently again. Returns the inputs that were taken, None where none were.
    """
    labels = tracer.trace.labels
    before = labels.state()
    settle_conditions(tracer.trace)
    roots = labels.roots().copy()
    labels.restore(before)
    for inputs in resized(example_inputs):
        if _quiet_pass(tracer, copied, inputs, compute=tracer.compute) is None:
            break
    else:
        return None
    settle_conditions(tracer.trace)
    now = labels.roots()[: len(roots)]
    order = np.lexsort((roots, now))
    same = (now[order][1:] == now[order][:-1]) & (roots[order][1:] != roots[order][:-1])
    tied = np.unique(now[order][1:][same])
    labels.freeze(tied, "its ties to other units change with the size of the input")
    return inputs


def _quiet_pass(
    tracer: Tracer, model: nn.Module, inputs: Any, compute: bool = False
) -> Exception | None:
    """One more pass; if it fails it leaves no trace, and what it raised is returned."""
    before = tracer.state()
    with module_path(model) as current:
        tracer.continue_quietly(current, compute)
        try:
            forward(tracer, model, inputs)
        except Exception as error:
            tracer.restore(before)
            return error
    return None
