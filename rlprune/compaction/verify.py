"""Law 1 on the example inputs: the masked and the compacted network must agree."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rlprune.compaction.build import build, mask_in_place
from rlprune.compaction.departure import CURE, first_departure
from rlprune.compaction.difference import Difference, between, difference, outputs, tolerance
from rlprune.compaction.plans import uneven_plan
from rlprune.compaction.slicing import Slicer
from rlprune.errors import StructureError
from rlprune.inputs import batch_of, tensors_in, to_device
from rlprune.modes import evaluating
from rlprune.ops.nested import leaves
from rlprune.plan import Plan
from rlprune.structure.groups import Groups
from rlprune.structure.twin import copied
from rlprune.structure.variations import smaller_pictures

logger = logging.getLogger(__name__)

CHEAP, EXACT = 1e9, 3e9
"""Multiply-accumulates of a trial on inputs of another size, and of one in float64."""


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
        for value in leaves(result):
            if isinstance(value, Tensor) and value.is_floating_point():
                self.tolerance = max(self.tolerance, tolerance(value.dtype))
        return result


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _place(groups: Groups, small: nn.Module, plan: Plan) -> str:
    found = first_departure(groups, copied(small, {}), plan)
    return "no op has an unexpected shape" if found is None else f"{found.reason}; {CURE}"


def values_agree(groups: Groups, plan: Plan, slicer: Slicer) -> bool:
    """Whether a plan's network computes what its mask does, on stirred weights and other inputs.

    In float64 where that is cheap. Parameters of zeros, which would hide what they multiply, are
    given small values first. The inputs are of another size than the traced ones, if the network
    takes any and that is cheap; where it looks at values, others follow that make it run otherwise.
    """
    for inputs, work in _affordable(groups):
        for dtype in (torch.float64, None) if work <= EXACT else (None,):
            found = _agree(groups, plan, slicer, inputs, dtype)
            if found is not None:
                return found
    raise StructureError("the masked network does not run on the example inputs")


def _affordable(groups: Groups) -> list[tuple[Any, float]]:
    """Inputs to compare on, to be tried in turn until the network takes one, with their MACs."""
    dense, example = groups.macs(), groups.example_inputs
    size = _elements(batch_of(example, 1))
    found = []
    for inputs in (groups.other_inputs, *smaller_pictures(batch_of(example, 1))):
        work = 0.0 if inputs is None else dense * _elements(inputs) / size
        if inputs is not None and work <= CHEAP:
            found.append((inputs, work))
            break
    return [*found, (batch_of(example, 1) if dense > EXACT else example, dense)]


def _elements(inputs: Any) -> int:
    return max((x.numel() for x in tensors_in(inputs)), default=1)


def _agree(
    groups: Groups, plan: Plan, slicer: Slicer, inputs: Any, dtype: torch.dtype | None
) -> bool | None:
    """Whether masked and compacted network agree; None where the masked one does not run so.

    A forward may cast, call what float64 has no kernel of, or refuse a size.
    """
    masked = copied(groups.model, _converted(groups, dtype))
    _stir(masked)
    small = build(groups, plan, slicer, source=masked)
    mask_in_place(groups, masked, plan)
    for given in (inputs, *groups.other_values):
        if dtype is not None:
            given = to_device(given, _device(masked), dtype)
        with _Coarsest() as coarsest:
            try:
                expected = outputs(masked, given)
            except Exception as error:  # whatever a user's forward raises
                logger.debug("a trial's masked network fails: %s", error)
                return None
            found = between(expected, outputs(small, given), masked)
        if found.relative > max(found.allowed, coarsest.tolerance):
            return False
    return True


def _converted(groups: Groups, dtype: torch.dtype | None) -> dict[int, Any]:
    """The network's floating-point tensors in another type, by their ids."""
    found: dict[int, Any] = {}
    for tensor in groups.tensors.values() if dtype is not None else ():
        if tensor.is_floating_point() and tensor.dtype is not dtype:
            made = tensor.detach().to(dtype)
            parameter = isinstance(tensor, nn.Parameter)
            found[id(tensor)] = nn.Parameter(made, False) if parameter else made
    return found


def _stir(model: nn.Module) -> None:
    """Give parameters that are zero throughout small values."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.numel() > 1 and tensor.is_floating_point() and not bool(tensor.any()):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.2 - 0.1)
