"""Which parameters, set to zero, make an operand of an addition exactly zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from rlprune.structure.records import Source, Step

aten = torch.ops.aten
KEEPING = frozenset(
    """view _unsafe_view reshape permute transpose t clone contiguous alias detach expand slice
    select squeeze unsqueeze roll _to_copy native_dropout dropout relu gelu silu tanh neg
    hardswish leaky_relu elu sin sqrt abs div mul mean sum avg_pool2d adaptive_avg_pool2d
    _adaptive_avg_pool2d pixel_shuffle upsample_nearest2d upsample_bilinear2d flip""".split()
)
"""Ops that make zeros of zeros; of several operands only the first counts, in a product any."""
TRANSPOSING = frozenset(["t", "transpose", "permute"])
NORMS = frozenset(
    """native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit_no_training
    native_group_norm""".split()
)


def sources(step: Step) -> list[Source]:
    """Every tensor operand of a step."""
    return [x for x in tree_leaves((step.args, dict(step.kwargs))) if isinstance(x, Source)]


def keeps_zero(step: Step) -> tuple[Source, ...]:
    """Operands any of which, being zero, makes the result zero."""
    op = step.op.removesuffix("_") if step.op != "_to_copy" else step.op
    operands = [a for a in step.args if isinstance(a, Source)]
    if op == "constant_pad_nd" and len(step.args) > 2 and step.args[2] != 0:
        return ()
    if op not in KEEPING and op != "constant_pad_nd":
        return ()
    return tuple(operands) if op == "mul" else tuple(operands[:1])


def elementwise(step: Step) -> bool:
    """Whether a step changes one tensor value by value."""
    packet = getattr(aten, step.op.removesuffix("_"), None)
    if step.op in ("clone", "_to_copy"):
        return True
    if packet is None or len(sources(step)) != 1:
        return False
    return torch.Tag.pointwise in getattr(packet, packet.overloads()[0]).tags


def silencing(
    steps: Sequence[Step], operand: Source, inside: Callable[[Source], bool]
) -> tuple[int, tuple[int, ...]] | None:
    """The op whose parameters decide about an operand, and those parameters.

    Args:
        steps: of the trace.
        operand: of an addition.
        inside: whether a tensor is made in the branch.

    Returns:
        Number of the step and numbers of the tensors that must be zero; None where there is none.
    """
    step = steps[operand.step]
    found = _parameters(steps, step)
    if found is not None:
        return operand.step, found
    for source in keeps_zero(step):
        if inside(source):
            deeper = silencing(steps, source, inside)
            if deeper is not None:
                return deeper
    return None


def _parameters(steps: Sequence[Step], step: Step) -> tuple[int, ...] | None:
    """Weight and bias of a convolution, linear layer or normalisation."""
    weight: Any
    bias: Any
    args = (*step.args, *[None] * 4)
    if step.op in ("convolution", "linear") or step.op in NORMS:
        weight, bias = args[1], args[2]
    elif step.op == "native_layer_norm":
        weight, bias = args[2], args[3]
    elif step.op == "addmm":
        weight, bias = args[2], args[0]
    elif step.op == "mm":
        weight, bias = args[1], None
    else:
        return None
    found = [_tensor(steps, x) for x in (weight, bias) if x is not None]
    return None if weight is None or None in found else tuple(x for x in found if x is not None)


def _tensor(steps: Sequence[Step], value: Any) -> int | None:
    """The stored tensor an operand is, possibly transposed."""
    while isinstance(value, Source) and value.step >= 0 and steps[value.step].op in TRANSPOSING:
        value = steps[value.step].args[0]
    return value.tensor if isinstance(value, Source) and value.tensor >= 0 else None
