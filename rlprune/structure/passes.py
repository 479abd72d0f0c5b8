"""Passes of a network under the tracer.

The first pass records ops and costs. Quiet passes carry the same labels on, and so add what the
first one cannot show: what only train mode or other values run, ties that hold at one size only.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from rlprune.inputs import batch_of, batch_size, call
from rlprune.ops import named
from rlprune.structure.outputs import tensors_of
from rlprune.structure.recording import Recorder, ValuesNeededError, module_path, running
from rlprune.structure.records import Step
from rlprune.structure.settling import settle_conditions
from rlprune.structure.trace import Tracer
from rlprune.structure.twin import twin
from rlprune.structure.variations import enlarged, resized, revalued, unlike

logger = logging.getLogger(__name__)


def forward(tracer: Tracer, copied: nn.Module, example_inputs: Any) -> tuple[Any, list[Tensor]]:
    """One pass under the tracer; what leaves the network keeps its size.

    Returns the output, and the tensors in it.
    """
    with running(tracer, copied):
        output = call(copied, example_inputs)
        tensors = tensors_of(output)
    for tensor in tensors:
        tracer.freeze(tracer.planes(tensor), "it is an output of the network")
        tracer.pending.use(tensor)
        tracer.trace.outputs.add(tracer.source(tensor).step)
    return output, tensors


def train_pass(tracer: Tracer, copied: nn.Module, example_inputs: Any) -> None:
    """Carry the labels on through a train-mode pass, for what eval mode does not run.

    An auxiliary head may need larger pictures than the network does.
    """
    names = ", ".join(tracer.untouched()[:4])
    inputs = batch_of(example_inputs, 2) if batch_size(example_inputs) == 1 else example_inputs
    copied.train()
    failure = _quiet_pass(tracer, copied, inputs)
    for larger in enlarged(inputs) if failure is not None else ():
        if _quiet_pass(tracer, copied, larger) is None:
            failure = None
            break
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


def value_passes(tracer: Tracer, copied: nn.Module, example_inputs: Any) -> list[Any]:
    """Carry the labels on through passes with other values, where the forward looks at values.

    What other data run may use other parameters, or tie units that the first pass does not. Returns
    the inputs that were taken.
    """
    if not any(named(step.op).looks is True for step in tracer.trace.steps):
        return []
    taken = []
    for inputs in revalued(example_inputs):
        compute = tracer.trace.computed or bool(tracer.untouched())
        if _quiet_pass(tracer, copied, inputs, compute) is None:
            taken.append(inputs)
    return taken


def other_ways(
    tracer: Tracer, model: nn.Module, copied: nn.Module, example_inputs: Any
) -> list[Any]:
    """Inputs of another size for which a forward runs other ops: a single sample, a longer text.

    Labels are carried on through them too. ``model`` is the untouched network: what a copy keeps of
    earlier passes may make it run otherwise.
    """
    taken = []
    before = _way(tracer.trace.steps)
    for inputs in unlike(example_inputs):
        steps, failure = ops_of(twin(model).eval(), inputs)
        if failure is not None or before == _way(steps):
            continue
        if _quiet_pass(tracer, copied, inputs) is None:
            taken.append(inputs)
    return taken


def _way(steps: Sequence[Step]) -> list[str]:
    """The ops that a forward runs, but for those that depend on how tensors lie in memory."""
    ops = ("view" if s.op == "_unsafe_view" else s.op for s in steps)
    return [op for op in ops if op == "view" or not named(op).layout]


def ops_of(
    model: nn.Module, example_inputs: Any, *, compute: bool = False
) -> tuple[list[Step], Exception | None]:
    """The ops of one pass of a network that is thrown away afterwards, without labels.

    Args:
        model: in eval mode; it is run itself, so what it keeps of a pass is left in it.
        example_inputs: what it is called with.
        compute: whether products are computed; they are at last where the forward looks at values.

    Returns:
        The ops, and the error that ended the pass, if one did.
    """
    with module_path(model) as current:
        for with_values in (True,) if compute else (False, True):
            recorder = Recorder(current, with_values)
            try:
                with running(recorder, model):
                    tensors_of(call(model, example_inputs))
                return recorder.steps, None
            except Exception as error:  # whatever a forward raises at another width
                if with_values or not isinstance(error, ValuesNeededError):
                    return recorder.steps, error
    raise AssertionError("unreachable")


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
