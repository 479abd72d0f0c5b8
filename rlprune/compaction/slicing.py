"""Which positions of which tensors a plan keeps, and the smaller tensors."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd

import torch
from torch import Tensor

from rlprune.plan import Plan
from rlprune.structure.groups import Groups


class Slicer:
    """Cuts the tensors of a network as plans say; set up once, then milliseconds per plan.

    Dimensions that the same units index in the same way (a convolution's outputs and its batch
    norm's four vectors) share one index. Positions that only come and go together (the 49 inputs
    of a linear layer that one channel feeds) are moved as one block.
    """

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        axes: dict[tuple[str, int], list[tuple[str, Tensor]]] = {}
        for group in groups.prunable:
            for s in groups.slices(group):
                axes.setdefault((s.tensor, s.dim), []).append((group.name, s.index))
        self._axes: list[tuple[int, int, list[tuple[str, Tensor]]]] = []
        self._cuts: dict[str, list[tuple[int, int]]] = {}
        known: dict[tuple[object, ...], int] = {}
        for (tensor, dim), parts in axes.items():
            size = groups.tensors[tensor].shape[dim]
            key = (size, *((name, index.numpy().tobytes()) for name, index in parts))
            if key not in known:
                known[key] = len(self._axes)
                block = gcd(size, *(_block(index) for _, index in parts))
                blocks = [(name, index[:, ::block] // block) for name, index in parts]
                self._axes.append((size // block, block, blocks))
            self._cuts.setdefault(tensor, []).append((dim, known[key]))
        for cuts in self._cuts.values():
            cuts.sort()

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all tensors that some plan may cut."""
        return tuple(self._cuts)

    def kept(self, plan: Plan) -> list[Tensor | None]:
        """Kept blocks of every distinct axis; None where all are kept."""
        gone: dict[str, Tensor] = {}
        for name, units in plan.keep.items():
            if len(units) < plan.dense[name]:
                mask = torch.ones(plan.dense[name], dtype=torch.bool, device="cpu")
                mask[list(units)] = False
                gone[name] = mask
        out: list[Tensor | None] = []
        for size, _, parts in self._axes:
            keep = None
            for name, index in parts:
                if name in gone:
                    if keep is None:
                        keep = torch.ones(size, dtype=torch.bool, device="cpu")
                    keep[index[gone[name]].reshape(-1)] = False
            out.append(None if keep is None else keep.nonzero().reshape(-1))
        return out

    def kept_by_tensor(self, plan: Plan) -> dict[str, dict[int, Tensor | None]]:
        """Kept positions by tensor name and dimension; None where all are kept.

        Tensors of dropped branches are not among them.
        """
        kept = self.kept(plan)
        gone = self._gone(plan)
        return {
            name: {dim: self._positions(kept[axis], axis) for dim, axis in cuts}
            for name, cuts in self._cuts.items()
            if name not in gone
        }

    def _gone(self, plan: Plan) -> frozenset[str]:
        return frozenset().union(*(b.tensors for b in self.groups.dropped(plan.widths)))

    def _positions(self, blocks: Tensor | None, axis: int) -> Tensor | None:
        block = self._axes[axis][1]
        if blocks is None or block == 1:
            return blocks
        return (blocks[:, None] * block + torch.arange(block, device="cpu")).reshape(-1)

    def cut(self, plan: Plan, source: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The smaller tensors, detached copies, for every tensor the plan shrinks.

        Tensors of dropped branches are not among them.

        Args:
            plan: what to keep.
            source: tensors to cut by name, in place of the network's own.
        """
        source = source or self.groups.tensors
        kept = self.kept(plan)
        gone = self._gone(plan)
        out = {}
        for name, cuts in self._cuts.items():
            if name in gone:
                continue
            tensor = source[name].detach()
            small = tensor
            for dim, axis in cuts:
                index = kept[axis]
                if index is None:
                    continue
                block = self._axes[axis][1]
                index = index.to(small.device)
                if block == 1:
                    small = small.index_select(dim, index)
                else:
                    blocks = small.unflatten(dim, (-1, block)).index_select(dim, index)
                    small = blocks.flatten(dim, dim + 1)
            if small is not tensor:
                out[name] = _like(small, tensor)
        return out

    def positions(self, plan: Plan, role: str) -> list[tuple[str, int, Tensor]]:
        """Removed (tensor, dimension, positions) of one role."""
        out = []
        for name, units in plan.keep.items():
            if len(units) == plan.dense[name]:
                continue
            mask = torch.ones(plan.dense[name], dtype=torch.bool, device="cpu")
            mask[list(units)] = False
            for s in self.groups.slices(name):
                if s.role == role:
                    out.append((s.tensor, s.dim, s.index[mask].reshape(-1)))
        return out


def _like(small: Tensor, dense: Tensor) -> Tensor:
    """The same values in the dense tensor's memory format."""
    for rank, layout in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        if (
            dense.ndim == rank
            and dense.is_contiguous(memory_format=layout)
            and not dense.is_contiguous()
        ):
            return small.contiguous(memory_format=layout)
    return small


def _block(index: Tensor) -> int:
    """How many neighbouring positions of a unit always move together, for units [width, n]."""
    n = index.shape[1]
    steps = index[:, 1:] - index[:, :-1]
    breaks = (steps != 1).any(0).nonzero().reshape(-1) + 1
    length = gcd(n, *breaks.tolist())
    starts = index[:, ::length]
    return gcd(length, *starts.unique().tolist()) if length > 1 else 1
