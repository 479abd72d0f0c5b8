"""Tracing a network: one recorded pass, and quiet ones for what that pass does not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rlprune.errors import RlpruneError, StructureError
from rlprune.inputs import batch_size
from rlprune.structure.calls import calls_noted
from rlprune.structure.passes import forward, other_ways, size_pass, train_pass, value_passes
from rlprune.structure.recording import ValuesNeededError, module_path
from rlprune.structure.records import Trace
from rlprune.structure.settling import settle_conditions
from rlprune.structure.trace import Tracer
from rlprune.structure.twin import twin
from rlprune.structure.untaken import leave_readable_whole


@dataclass(frozen=True)
class Run:
    """What tracing a network gave.

    Attributes:
        trace: labels, ops and contractions.
        aliases: every state-dict name of a tensor, by its index in ``trace.tensors``.
        batch: samples in the example inputs.
        unused: parameters that neither an eval-mode nor a train-mode forward pass touches.
        other_inputs: inputs of another size or batch that the network takes too; None without.
        other_values: inputs that make the network run otherwise, by their values or their size.
    """

    trace: Trace
    aliases: dict[int, list[str]]
    batch: int
    unused: tuple[str, ...] = ()
    other_inputs: Any = None
    other_values: Sequence[Any] = ()


def run_trace(model: nn.Module, example_inputs: Any, *, more: bool = True) -> Run:
    """Trace a forward pass in eval mode on a copy of the network that shares its parameters.

    Products are not computed. Where the forward pass looks at values (data-dependent control
    flow), it is traced again with real ones. With ``more``, further passes carry the same labels
    on: in train mode and with other values where parameters are left out (auxiliary heads, branches
    not taken), and with inputs of another size.

    Raises:
        StructureError: the forward pass failed; names the module. Its ``steps`` are the ops until
            then.
    """
    if not any(isinstance(x, Tensor) for x in tree_leaves(example_inputs)):
        raise StructureError(
            "example_inputs hold no tensor: give what the network is called with, as a tensor, a "
            "tuple of positional or a dict of keyword arguments"
        )
    batch = batch_size(example_inputs)
    tracer, copied = _traced(model, example_inputs)
    unused: tuple[str, ...] = ()
    other, values = None, []
    if more:
        if tracer.untouched():
            train_pass(tracer, copied, example_inputs)
        values = value_passes(tracer, copied, example_inputs)
        if not tracer.compute:
            values += other_ways(tracer, model, copied, example_inputs)
        other = size_pass(tracer, copied, example_inputs)
        unused = tuple(tracer.untouched())
    if unused:
        leave_readable_whole(tracer, copied, unused, example_inputs)
    settle_conditions(tracer.trace)
    return Run(tracer.trace, tracer.aliases, batch, unused, other, values)


def _traced(model: nn.Module, example_inputs: Any) -> tuple[Tracer, nn.Module]:
    meta = any(p.device.type == "meta" for p in model.parameters())
    for compute in (False, True):
        copied = twin(model).eval()
        with module_path(copied) as current:
            tracer = Tracer(copied, current, compute=compute)
            try:
                with calls_noted(copied, tracer):
                    output, tensors = forward(tracer, copied, example_inputs)
                if not tensors:
                    raise _no_tensor(model, output)
                return tracer, copied
            except Exception as error:
                if compute or meta or not tracer.skipped:
                    raise _failure(model, tracer, error) from error
    raise AssertionError("unreachable")


def _no_tensor(model: nn.Module, output: Any) -> StructureError:
    return StructureError(
        f"no tensor is found in what {type(model).__name__} returns, a {type(output).__name__}: "
        "nothing tells whether a smaller network answers alike. Return the tensors it computes, "
        "for example from a subclass whose forward does"
    )


def _failure(model: nn.Module, tracer: Tracer, error: Exception) -> Exception:
    if isinstance(error, RlpruneError) and not isinstance(error, ValuesNeededError):
        return error
    failure = StructureError(
        f"the forward pass of {type(model).__name__} failed on the example inputs in "
        f"{tracer.where()}: {type(error).__name__}: {error}"
    )
    failure.steps = tracer.trace.steps
    return failure
