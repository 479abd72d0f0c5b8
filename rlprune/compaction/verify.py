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
from rlprune.errors import StructureError
from rlprune.inputs import to_device
from rlprune.plan import Plan
from rlprune.structure.groups import Groups
from rlprune.structure.twin import copied

logger = logging.getLogger(__name__)


def masked_copy(groups: Groups, plan: Plan) -> nn.Module:
    """A dense copy of the network in which the removed units are silenced."""
    plan.check(groups)
    model = copied(groups.model, {})
    mask_in_place(groups, model, plan)
    return model


def probe(groups: Groups) -> float:
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
    return "no op has an unexpected shape" if found is None else f"{found.message}; {CURE}"
