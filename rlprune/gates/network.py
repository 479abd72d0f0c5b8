"""A network with a gate on every unit and every branch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rlprune.errors import PlanError
from rlprune.plan import Plan
from rlprune.structure import Groups
from rlprune.structure.groups import Slice
from rlprune.structure.twin import copied

PLACES = ("reads", "writes")


class GatedNetwork(nn.Module):
    """A copy of a network whose units are scaled where they are read.

    A gate multiplies the slice of every weight that reads its unit, so what normalises the unit's
    own output cannot cancel it, and the forward stays as it was written. The gate of a branch
    multiplies the parameters that silence it: ``x + d F(x)``. All gates at 1 are the dense network,
    gates in {0, 1} the masked one, up to the order of summation.

    Args:
        groups: of the network, which is never changed.
        depth: whether droppable branches have gates too.
        trained: whether the copy's weights can be trained along; they share the network's memory
            otherwise.
        place: ``reads``, or, as a control, ``writes``: gates then scale what makes a unit, in
            front of any normalisation, and closed ones are not the masked network.

    Attributes:
        units: number of unit gates, those of ``groups.prunable`` one after the other.
        branches: names of the gated branches, whose gates come after them.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        depth: bool = False,
        trained: bool = False,
        place: str = "reads",
    ) -> None:
        super().__init__()
        memo: dict[int, Any] = {}
        for parameter in groups.model.parameters():
            own = parameter.detach().clone() if trained else parameter.detach()
            memo[id(parameter)] = nn.Parameter(own, trained and parameter.requires_grad)
        self.network = copied(groups.model, memo)
        self.units = sum(group.width for group in groups.prunable)
        self.branches = tuple(groups.branches) if depth else ()
        self._groups = groups
        self._first = {id(t): name for name, t in reversed(groups.tensors.items())}
        self._reads: dict[str, list[tuple[int, Tensor]]] = {}
        self._silences: dict[str, list[int]] = {}
        start = 0
        for group in groups.prunable:
            numbers = torch.arange(start, start + group.width)
            for part in _gated(groups.slices(group), place):
                self._place(part.tensor, part.dim, part.index, numbers)
            start += group.width
        for at, name in enumerate(self.branches):
            for tensor in groups.branches[name].silence:
                self._silences.setdefault(self._name(tensor), []).append(self.units + at)
        self._now: dict[str, Tensor] = {}

    @property
    def gates(self) -> int:
        """Number of all gates."""
        return self.units + len(self.branches)

    def set(self, values: Tensor) -> GatedNetwork:
        """Let the next calls run with gates ``[gates]``, differentiable in them.

        Returns:
            The gated network itself.
        """
        if tuple(values.shape) != (self.gates,):
            raise PlanError(f"gates have shape {tuple(values.shape)}, need ({self.gates},)")
        whole = torch.cat([values, values.new_ones(1)])
        tensors: dict[str, Tensor] = dict(self.network.named_parameters(remove_duplicate=False))
        tensors.update(self.network.named_buffers(remove_duplicate=False))
        found: dict[str, Tensor] = {}
        for name, reads in self._reads.items():
            tensor = tensors[name]
            for dim, index in reads:
                shape = [1] * tensor.ndim
                shape[dim] = -1
                factor = whole[index.to(whole.device)].to(tensor.device, tensor.dtype)
                tensor = tensor * factor.view(shape)
            found[name] = tensor
        for name, numbers in self._silences.items():
            factor = whole[numbers].prod()
            tensor = found.get(name, tensors[name])
            found[name] = tensor * factor.to(tensor.device, tensor.dtype)
        self._now = found
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network answers behind its gates."""
        return functional_call(self.network, self._now, args, kwargs)

    def folded(self) -> dict[str, Tensor]:
        """State dict of a network without gates that computes what this one does now."""
        state = self.network.state_dict()
        firsts = {name: self._name(name) for name in state if name in self._groups.tensors}
        return {
            name: self._now.get(firsts.get(name, name), tensor).detach().clone()
            for name, tensor in state.items()
        }

    def values(self, plan: Plan) -> Tensor:
        """Gates ``[gates]`` in {0, 1} that stand for a plan."""
        masks = [mask.float() for mask in plan.masks().values()]
        gone = {branch.name for branch in self._groups.dropped(plan.widths)}
        left = torch.tensor([float(name not in gone) for name in self.branches])
        return torch.cat([*masks, left])

    def _name(self, tensor: str) -> str:
        """The first of the names that a tensor goes by."""
        return self._first[id(self._groups.tensors[tensor])]

    def _place(self, tensor: str, dim: int, index: Tensor, numbers: Tensor) -> None:
        """Let gates ``numbers`` scale positions ``index`` ``[units, positions]`` of a tensor."""
        name = self._name(tensor)
        size = self._groups.tensors[tensor].shape[dim]
        nothing = self.units + len(self.branches)
        fresh = torch.full((size,), nothing)
        fresh[index.reshape(-1)] = numbers.repeat_interleave(index.shape[1])
        reads = self._reads.setdefault(name, [])
        for at, (known_dim, known) in enumerate(reads):
            both = (known != nothing) & (fresh != nothing) if known_dim == dim else None
            if both is None:
                continue
            if (known[both] == fresh[both]).all():
                reads[at] = (dim, torch.where(fresh != nothing, fresh, known))
                return
        reads.append((dim, fresh))


def _gated(parts: Sequence[Slice], place: str) -> list[Slice]:
    """The slices of a group's units that gates scale."""
    if place == "reads":
        return [part for part in parts if part.role == "in"]
    made = [part for part in parts if part.role == "out"]
    biases = {part.tensor.rpartition(".")[0] + ".bias" for part in made}
    return [*made, *(part for part in parts if part.role == "tied" and part.tensor in biases)]
