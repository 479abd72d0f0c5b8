"""Law 1 on the example inputs: the masked and the compacted network must agree."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rlprune.compaction.build import build, mask_in_place
from rlprune.compaction.departure import CURE, first_departure
from rlprune.compaction.difference import Difference, difference, tolerance
from rlprune.compaction.plans import uneven_plan
from rlprune.compaction.slicing import Slicer
from rlprune.errors import StructureError
from rlprune.inputs import batch_of, batch_size, to_device
from rlprune.modes import evaluating
from rlprune.plan import Plan
from rlprune.structure.groups import Groups
from rlprune.structure.twin import copied

logger = logging.getLogger(__name__)

CHEAP = 1e9
"""Multiply-accumulates of a trial on inputs of another size; ten times as many in float64."""


def masked_copy(groups: Groups, plan: Plan) -> nn.Module:
    """A dense copy of the network in which the removed units are silenced."""
    plan.check(groups)
    model = copied(groups.model, {})
    mask_in_place(groups, model, plan)
    with evaluating(model):  # what a module has cached from its weights is dropped
        return model


def try_out(groups: Groups) -> float:
    """Verify one plan that shrinks every group, each to another fraction.

    Returns:
        The largest difference relative to the output's scale.

    Raises:
        StructureError: as `verify`.
    """
    plan = uneven_plan(groups)
    return verify(groups, build(groups, plan), plan)


def verify(groups: Groups, small: nn.Module, plan: Plan) -> float:
    """Compare a compacted network with its masked twin on the example inputs.

    Where they differ by more than their type allows, copies in float64 tell rounding from error.

    Returns:
        The largest difference relative to the output's scale.

    Raises:
        StructureError: it does not run or does not agree; names the module and the op where it
            departs from what the plan predicts.
    """
    if any(p.device.type == "meta" for p in small.parameters()):
        return 0.0
    masked = masked_copy(groups, plan)
    try:
        found = difference(masked, small, groups.example_inputs)
        if not found.agrees:
            exact = exact_difference(masked, small, groups.example_inputs)
            if exact is not None and exact.agrees:
                logger.debug("differs by %.3g of its scale, by rounding alone", found.relative)
                return exact.relative
    except Exception as error:
        place = f"{_place(groups, small, plan)} ({type(error).__name__}: {error})"
        raise StructureError(f"the compacted network does not run: {place}") from error
    if not found.agrees:
        raise StructureError(
            f"output {found.output} of the compacted network differs from the masked one's by "
            f"{found.relative:.3g} of its scale (allowed {found.allowed:.3g}): "
            f"{_place(groups, small, plan)}"
        )
    return found.relative


def exact_difference(masked: nn.Module, small: nn.Module, example_inputs: Any) -> Difference | None:
    """`difference` of copies in float64; None where the network cannot run in it.

    Where a forward casts to a coarser type itself, that type's tolerance is allowed.
    """
    try:
        pair = [copied(m, {}).double() for m in (masked, small)]
        inputs = to_device(example_inputs, _device(masked), torch.float64)
        with _Coarsest() as coarsest:
            found = difference(pair[0], pair[1], inputs)
    except RuntimeError as error:
        logger.debug("no comparison in float64: %s", error)
        return None
    return Difference(found.relative, max(found.allowed, coarsest.tolerance), found.output)


class _Coarsest(TorchDispatchMode):
    """Notes the coarsest floating-point type that an op gives."""

    def __init__(self) -> None:
        super().__init__()
        self.tolerance = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and value.is_floating_point():
                self.tolerance = max(self.tolerance, tolerance(value.dtype))
        return result


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _place(groups: Groups, small: nn.Module, plan: Plan) -> str:
    found = first_departure(groups, small, plan)
    return "no op has an unexpected shape" if found is None else f"{found.reason}; {CURE}"


def values_agree(groups: Groups, plan: Plan, slicer: Slicer) -> bool:
    """Whether a plan's network computes what its mask does, on stirred weights and other inputs.

    In float64 where that is cheap. Parameters of zeros, which would hide what they multiply, are
    given small values first. The inputs are of another size than the traced ones, if the network
    takes any.
    """
    masked = copied(groups.model, {})
    small = build(groups, plan, slicer)
    _stir(masked, small, slicer.kept_by_tensor(plan))
    mask_in_place(groups, masked, plan)
    inputs = groups.example_inputs if groups.other_inputs is None else groups.other_inputs
    work = groups.macs() * batch_size(inputs)
    if work > CHEAP:
        inputs = batch_of(groups.example_inputs, 1)
    exact = exact_difference(masked, small, inputs) if work <= 10 * CHEAP else None
    found = difference(masked, small, inputs) if exact is None else exact
    if exact is None and not found.agrees:
        found = exact_difference(masked, small, inputs) or found
    return found.agrees


def _stir(masked: nn.Module, small: nn.Module, kept: dict[str, dict[int, Tensor | None]]) -> None:
    """Give parameters that are zero throughout small values, the same in both networks."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in masked.named_parameters():
            if tensor.numel() < 2 or not tensor.is_floating_point() or bool(tensor.any()):
                continue
            drawn = torch.rand(tensor.shape, generator=generator) * 0.2 - 0.1
            tensor.copy_(drawn)
            for dim, positions in kept.get(name, {}).items():
                if positions is not None:
                    drawn = drawn.index_select(dim, positions)
            small.get_parameter(name).copy_(drawn)
