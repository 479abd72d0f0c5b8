"""Candidates the AMC way: the dense network with the weights that read removed units at zero."""

from __future__ import annotations

import copy

import torch
from torch import nn

from rlprune.compaction.build import owner
from rlprune.compaction.slicing import Slicer
from rlprune.plan import Plan
from rlprune.structure.groups import Groups


class MaskedWorkspace:
    """One reusable dense copy of a network, masked anew for every candidate.

    It computes what :class:`Workspace` does (law 1) and saves nothing; benchmarks compare the two.

    Args:
        groups: The network's groups.
    """

    def __init__(self, groups: Groups) -> None:
        self._slicer = Slicer(groups)
        self._model = copy.deepcopy(groups.model).eval().requires_grad_(False)
        self._tensors = dict(groups.tensors)

    def build(self, plan: Plan) -> nn.Module:
        """The masked network of a plan, valid until the next call."""
        cut = list(self._slicer.positions(plan, "in"))
        with torch.no_grad():
            for name in self._slicer.tensors:
                self._own(name).copy_(self._tensors[name])
            for name, dim, positions in cut:
                tensor = self._own(name)
                tensor.index_fill_(dim, positions.to(tensor.device), 0)
        return self._model

    def _own(self, name: str) -> torch.Tensor:
        module, attribute = owner(self._model, name)
        found: torch.Tensor = getattr(module, attribute)
        return found
