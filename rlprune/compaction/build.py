"""Building the smaller dense network that a plan describes, and its masked twin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rlprune.compaction.adapters.attributes import attributes_of
from rlprune.compaction.caches import number_caches
from rlprune.compaction.slicing import Slicer
from rlprune.modes import evaluating
from rlprune.plan import Plan
from rlprune.structure.branches import without
from rlprune.structure.groups import Groups
from rlprune.structure.twin import copied


def owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Module and attribute that a state-dict name stands for."""
    path, _, attribute = name.rpartition(".")
    return model.get_submodule(path), attribute


def tensors_by_name(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by state-dict name (every alias)."""
    found: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    found.update(model.named_buffers(remove_duplicate=False))
    return found


def build(
    groups: Groups,
    plan: Plan,
    slicer: Slicer | None = None,
    *,
    share: bool = False,
    source: nn.Module | None = None,
) -> nn.Module:
    """Build an independent compacted network.

    Args:
        groups: from `rlprune.discover`.
        plan: what to keep.
        slicer: reuse one over several plans of the same groups.
        share: whether parameters that the plan does not cut are the original's own, and the module
            is in eval mode: for networks that are only looked at.
        source: a copy of the network with other values or of another type, whose parameters and
            buffers are taken; parameters that the plan does not cut are shared with it.

    Returns:
        A module of the same class with sliced tensors; training mode, ``requires_grad`` flags,
        dtype, hooks and state-dict names are those of the original. Its weights are copies. In
        place of what a dropped branch runs stand modules without parameters.

    Raises:
        PlanError: the plan does not fit the network.
    """
    plan.check(groups)
    memo: dict[int, Any] = {id(p): p for p in groups.model.parameters()} if share else {}
    given = None if source is None else tensors_by_name(source)
    for name, tensor in (given or {}).items():
        shared = isinstance(tensor, nn.Parameter)
        memo.setdefault(id(groups.tensors[name]), tensor if shared else tensor.clone())
    cut = (slicer or Slicer(groups)).cut(plan, given)
    for name, small in cut.items():
        dense = groups.tensors[name]
        if isinstance(dense, nn.Parameter):
            memo[id(dense)] = nn.Parameter(small, requires_grad=dense.requires_grad)
        else:
            memo[id(dense)] = small
    dropped = groups.dropped(plan.widths)
    model = without(groups.model, dropped, memo)
    attributes_of(groups).apply(model, plan, dropped)
    if dropped:
        number_caches(model)
    if share:
        return model.eval()
    with evaluating(model):  # what a module has cached from its weights is not the copy's
        return model


def mask_in_place(groups: Groups, model: nn.Module, plan: Plan) -> None:
    """Zero every weight that reads a removed unit, and those that end a dropped branch."""
    with torch.no_grad():
        for branch in groups.dropped(plan.widths):
            for name in branch.silence:
                module, attribute = owner(model, name)
                getattr(module, attribute).zero_()
        for name, dim, positions in Slicer(groups).positions(plan, "in"):
            module, attribute = owner(model, name)
            tensor: Tensor = getattr(module, attribute)
            tensor.index_fill_(dim, positions.to(tensor.device), 0)


class Workspace:
    """One reusable copy of a network, re-cut for each candidate in milliseconds.

    The module that `build` returns is in eval mode, shares nothing with the user's network, and is
    valid until the next `build`. Plans that drop branches are built anew, which takes longer.
    """

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self._slicer = Slicer(groups)
        self._model = copied(groups.model, {}).eval()
        for parameter in self._model.parameters():
            parameter.requires_grad_(False)
        self._owners = {
            name: [owner(self._model, a) for a in groups.aliases.get(name, (name,))]
            for name in self._slicer.tensors
        }
        self._pristine = [
            (
                name,
                tensor.detach().clone(),
                [owner(self._model, alias) for alias in groups.aliases.get(name, (name,))],
            )
            for name, tensor in self._model.named_buffers()
        ]
        self._parameters = [
            (parameter, parameter.detach().clone(), places)
            for parameter, places in self._places().items()
        ]
        self._versions = [_version(parameter) for parameter, *_ in self._parameters]
        self._set_attributes = attributes_of(groups).bind(self._model)

    def build(self, plan: Plan) -> nn.Module:
        """Cut the copy to a plan and return it."""
        if self.groups.dropped(plan.widths):
            return build(self.groups, plan, self._slicer).eval().requires_grad_(False)
        plan.check(self.groups)
        cut = self._slicer.cut(plan)
        self._restore()
        for name, tensor, places in self._pristine:
            if name not in cut:
                fresh = tensor.clone()
                for module, attribute in places:
                    module._buffers[attribute] = fresh
        for name, small in cut.items():
            for module, attribute in self._owners[name]:
                if attribute in module._parameters:
                    module._parameters[attribute] = nn.Parameter(small, requires_grad=False)
                else:
                    module._buffers[attribute] = small
        self._set_attributes(plan)
        return self._model.eval()

    def _places(self) -> dict[nn.Parameter, list[tuple[nn.Module, str]]]:
        """Where every parameter of the copy is registered."""
        found: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
        for module in self._model.modules():
            for attribute, parameter in module._parameters.items():
                if parameter is not None:
                    found.setdefault(parameter, []).append((module, attribute))
        return found

    def _restore(self) -> None:
        """Undo what compensation did to parameters that no plan or not every plan cuts.

        A refitted layer's bias is not cut with its inputs: left as it is, it would reach the next
        candidate.
        """
        for at, (parameter, pristine, places) in enumerate(self._parameters):
            for module, attribute in places:
                module._parameters[attribute] = parameter
            if self._versions[at] is None or self._versions[at] != _version(parameter):
                with torch.no_grad():
                    parameter.copy_(pristine)
                self._versions[at] = _version(parameter)


def _version(tensor: Tensor) -> int | None:
    """How often a tensor was written to; None where nothing counts."""
    return None if tensor.is_inference() else tensor._version
