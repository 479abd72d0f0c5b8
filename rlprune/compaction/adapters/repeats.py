"""Integers of a module that repeat a size: head counts, inner widths, channel numbers.

A size is an affine function of the kept widths. An integer follows it when its name says what it
counts and its value equals the dense size; an integer with only the value in common is *unsure*.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from rlprune.compaction.adapters._registry import follower_of
from rlprune.ops.labels import compress
from rlprune.structure.groups import Groups

HEAD_COUNTS = frozenset(
    [
        "num_heads",
        "n_heads",
        "n_head",
        "nhead",
        "heads",
        "num_attention_heads",
        "num_key_value_heads",
        "num_kv_heads",
        "n_kv_heads",
        "n_kv_head",
        "kv_heads",
        "num_query_heads",
        "num_q_heads",
        "n_local_heads",
        "n_local_kv_heads",
    ]
)
SIZES = frozenset(
    [
        "all_head_size",
        "inner_dim",
        "split_size",
        "attn_dim",
        "attention_dim",
        "inner_size",
        "d_inner",
        "kv_dim",
        "q_dim",
        "kv_size",
        "q_size",
        "intermediate_size",
        "intermediate_dim",
        "ffn_dim",
        "mlp_dim",
        "d_ff",
    ]
)
PARTS = (1, 2, 3)


@dataclass(frozen=True)
class Axis:
    """A size as a function of kept widths: ``fixed + sum(per_unit[g] * widths[g])``."""

    dense: int
    fixed: int
    per_unit: Mapping[str, int]

    def size(self, widths: Mapping[str, int], dense_widths: Mapping[str, int]) -> int:
        """The size at some kept widths; groups a plan does not name are dense."""
        return self.fixed + sum(
            n * widths.get(g, dense_widths[g]) for g, n in self.per_unit.items()
        )


@dataclass(frozen=True, eq=False)
class Repeat:
    """An integer attribute (or one element of a tuple attribute) proportional to an axis."""

    path: str
    kind: type[nn.Module]
    attribute: str
    value: int
    axis: Axis
    dense_widths: Mapping[str, int]
    element: int | None = None

    def apply(self, model: nn.Module, widths: Mapping[str, int]) -> None:
        """Set the attribute of a cut copy.

        It is left alone where the result is not a whole number, or nothing is left to count.
        """
        size = self.axis.size(widths, self.dense_widths)
        if size == 0:
            return
        new, rest = divmod(self.value * size, self.axis.dense)
        if rest:
            return
        module = model.get_submodule(self.path)
        if self.element is None:
            setattr(module, self.attribute, new)
            return
        values = list(getattr(module, self.attribute))
        values[self.element] = new
        setattr(module, self.attribute, tuple(values))


def find_repeats(groups: Groups, paths: Sequence[str]) -> tuple[list[Repeat], list[Repeat]]:
    """Integers that certainly repeat a size, and those that may."""
    dense_widths = {g.name: g.width for g in groups.prunable}
    nearby: dict[str, list[Axis]] = defaultdict(list)
    for (tensor, _), axis in tensor_axes(groups).items():
        for alias in groups.aliases.get(tensor, (tensor,)):
            owner = alias.rpartition(".")[0].split(".parametrizations")[0]
            nearby[owner].append(axis)
            if owner:
                nearby[owner.rpartition(".")[0]].append(axis)
    heads = {g.name for g in groups.prunable if g.kind == "heads"}
    sure: list[Repeat] = []
    unsure: list[Repeat] = []
    for path in paths:
        module = groups.model.get_submodule(path)
        if path not in nearby or follower_of(module) is not None:
            continue
        counted = [a for a in nearby[path] if not a.fixed and set(a.per_unit) <= heads]
        for name, value in vars(module).items():
            if type(value) is not int or value < 2:
                continue
            kind = type(module)
            if name in HEAD_COUNTS:
                if counted:
                    sure.append(Repeat(path, kind, name, value, counted[0], dense_widths))
                continue
            parts = PARTS if name in SIZES else (1,)
            match = next((a for k in parts for a in nearby[path] if a.dense == k * value), None)
            if match is not None:
                (sure if name in SIZES else unsure).append(
                    Repeat(path, kind, name, value, match, dense_widths)
                )
    return sure + _from_activations(groups, dense_widths), unsure


def tensor_axes(groups: Groups) -> dict[tuple[str, int], Axis]:
    """Every cut dimension of every tensor as an axis."""
    found: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    for group in groups.prunable:
        for s in groups.slices(group):
            found[s.tensor, s.dim][group.name] = s.index.shape[1]
    widths = {g.name: g.width for g in groups.prunable}
    axes = {}
    for (tensor, dim), per_unit in found.items():
        size = groups.tensors[tensor].shape[dim]
        covered = sum(n * widths[g] for g, n in per_unit.items())
        axes[tensor, dim] = Axis(size, size - covered, per_unit)
    return axes


def _from_activations(groups: Groups, dense_widths: Mapping[str, int]) -> list[Repeat]:
    """Modules without tensors of their own: the traced activation tells the size."""
    found = []
    wanted = {
        path: module
        for path, module in groups.model.named_modules()
        if isinstance(module, nn.Unflatten)
        or (isinstance(module, (nn.GroupNorm, _NormBase)) and not list(module.parameters()))
    }
    if not wanted:
        return []
    owner = np.full(len(groups.trace.labels), -1, dtype=np.int64)
    names = list(dense_widths)
    for k, name in enumerate(names):
        owner[groups.members[name]] = k
    last = {step.module: step for step in groups.trace.steps if step.module in wanted}
    for path, step in last.items():
        module = wanted[path]
        kind = type(module)
        if isinstance(module, nn.Unflatten):
            first = int(module.dim) % len(step.shapes[0])
            for element, value in enumerate(module.unflattened_size):
                axis = axis_along(
                    groups, step.shapes[0], step.planes[0], first + element, owner, names
                )
                if axis is not None and value == axis.dense:
                    found.append(
                        Repeat(path, kind, "unflattened_size", value, axis, dense_widths, element)
                    )
            continue
        axis = axis_along(groups, step.shapes[0], step.planes[0], 1, owner, names)
        attributes = (
            ("num_channels", "num_groups")
            if isinstance(module, nn.GroupNorm)
            else ("num_features",)
        )
        for name in attributes if axis is not None else ():
            assert axis is not None
            found.append(Repeat(path, kind, name, getattr(module, name), axis, dense_widths))
    return found


def axis_along(
    groups: Groups,
    shape: Sequence[int],
    planes: Sequence[object],
    dim: int,
    owner: np.ndarray,
    names: Sequence[str],
) -> Axis | None:
    """One dimension of an activation as an axis; None where no prunable unit lies along it."""
    labels = groups.trace.labels
    for raw in planes:
        plane = compress(labels, raw)  # type: ignore[arg-type]
        if plane is None or dim >= plane.ndim or plane.shape[dim] == 1:
            continue
        line = plane.movedim(dim, 0).reshape(plane.shape[dim], -1)[:, 0].numpy()
        owners = np.where(line > 0, owner[labels.find(line)], -1)
        per_unit = {}
        for k in np.unique(owners[owners >= 0]):
            name = names[k]
            per_unit[name] = int((owners == k).sum()) // groups[name].width
        if per_unit:
            return Axis(shape[dim], int((owners < 0).sum()), per_unit)
    return None
