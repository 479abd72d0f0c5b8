"""From a traced forward pass to groups of units."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune.once import Once
from rlprune.structure.branches import find_branches
from rlprune.structure.costs import cost_polynomials
from rlprune.structure.groups import Group, Groups, Slice
from rlprune.structure.limits import Limits
from rlprune.structure.records import Branch, Whole
from rlprune.structure.run import run_trace


class Discovery:
    """A traced network, and the groups that its joined labels make.

    Args:
        model: any network; it is not changed and may be in train mode or on ``meta``.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.
        limits: the caller's wishes about widths.

    Raises:
        StructureError: the forward pass failed; names the module.
    """

    def __init__(self, model: nn.Module, example_inputs: Any, limits: Limits) -> None:
        self.start = time.perf_counter()
        self.model, self.inputs, self.limits = model, example_inputs, limits
        self.run = run_trace(model, example_inputs)
        self.trace = self.run.trace
        self.labels = self.run.trace.labels
        self.roots = self.labels.roots()
        self.frozen = self.labels.frozen()
        self.floors: list[tuple[np.ndarray, int]] = []

    def freeze(self, groups: Groups, reasons: Mapping[str, str]) -> None:
        """Leave some of the groups whole from now on, each for a reason."""
        for name, reason in reasons.items():
            self.labels.freeze(groups.members[name], reason)
        self.frozen = self.labels.frozen()

    def tie(self, groups: Groups, ties: Mapping[tuple[str, ...], str]) -> None:
        """Let groups of one width lose the same units from now on, for a reason."""
        for names, reason in ties.items():
            first, *others = (groups.members[n] for n in names)
            for other in others:
                self.labels.union(first, other, reason)
        self.roots = self.labels.roots()
        self.frozen = self.labels.frozen()

    def hold(self, groups: Groups, floors: Mapping[str, int]) -> None:
        """Let groups keep no fewer units than so many from now on."""
        self.floors += [(groups.members[name], floor) for name, floor in floors.items()]

    def renamed(self, before: Groups, groups: Groups) -> dict[str, str | None]:
        """Where the units of earlier groups are now: a group, or None where they are left whole."""
        owner = np.full(len(self.labels), -1, dtype=np.int64)
        for k, group in enumerate(groups.prunable):
            owner[groups.members[group.name]] = k
        names = [*(g.name for g in groups.prunable), None]
        return {
            g.name: names[owner[self.roots[before.members[g.name][0]]]] for g in before.prunable
        }

    def groups(self) -> Groups:
        """The groups in execution order, frozen ones with the reason.

        Raises:
            ConfigError: a glob matches nothing.
        """
        limits = self.limits
        signature = self._signatures()
        groups, members = self._collect(signature)
        limits.check([g.name for g in groups], [n for n, _ in self.model.named_modules() if n])
        slices = self._slices(groups, members)
        names = {g.name: _names(g, slices.get(g.name, ())) for g in groups}
        final = []
        for group in groups:
            out = [s for s in slices.get(group.name, ()) if s.role == "out"]
            per_unit = out[0].index.shape[1] if out else 1
            limited = limits.apply(group, names[group.name], per_unit)
            final.append(limits.above(limited, self._floor(members[group.name])))
        final = [self._with_modules(g, slices.get(g.name, ())) for g in final]
        kept = {g.name: slices[g.name] for g in final if g.prunable}
        branches = Once(partial(self._branches, final, kept, members, names, limits))
        prunable = [g for g in final if g.prunable]
        costs = cost_polynomials(
            self.model, self.trace, prunable, members, self.run.batch, branches
        )
        aliases = {self.trace.names[i]: tuple(a) for i, a in self.run.aliases.items()}
        return Groups(
            self.model,
            self.inputs,
            final,
            kept,
            aliases,
            dict(self.trace.grouped),
            costs,
            self.trace,
            members,
            self.run.unused,
            time.perf_counter() - self.start,
            branches,
            self.run.other_inputs,
            self.run.other_values,
        )

    def _floor(self, units: np.ndarray) -> int:
        """Fewest units that `hold` allows some units' group."""
        met = [floor for held, floor in self.floors if np.isin(self.roots[held], units).any()]
        return max(met, default=1)

    def _branches(
        self,
        groups: Sequence[Group],
        slices: dict[str, tuple[Slice, ...]],
        members: dict[str, np.ndarray],
        names: dict[str, list[str]],
        limits: Limits,
    ) -> tuple[Branch, ...]:
        removable = np.zeros(len(self.labels), dtype=bool)
        for name in slices:
            removable[members[name]] = True
        found = find_branches(self.model, self.inputs, self.run, slices, removable)
        known = {g.name: g for g in groups}
        subtrees = {
            b.name: [n for n, _ in self.model.named_modules() if n and b.holds(n)] for b in found
        }
        return tuple(
            b
            for b in found
            if all(limits.may_be_empty(known[g], names[g], subtrees[b.name]) for g in b.groups)
        )

    def _signatures(self) -> np.ndarray:
        """For every root a hash of the (tensor, dimension, count) triples of its positions."""
        out = np.zeros(len(self.labels), dtype=np.uint64)
        rng = np.random.default_rng(0)
        for origin in self.labels.origins:
            roots = self.roots[origin.start : origin.start + origin.size]
            unique, counts = np.unique(roots, return_counts=True)
            salt = rng.integers(1, 2**63, dtype=np.uint64) | np.uint64(1)
            with np.errstate(over="ignore"):
                mixed = (counts.astype(np.uint64) * salt) ^ (salt >> np.uint64(7))
                out[unique] += mixed * np.uint64(0x9E3779B97F4A7C15)
        return out

    def _collect(self, signature: np.ndarray) -> tuple[list[Group], dict[str, np.ndarray]]:
        """Groups in execution order and their units' roots, in order of position."""
        seen = np.zeros(len(self.labels), dtype=bool)
        groups: list[Group] = []
        members: dict[str, np.ndarray] = {}
        used: dict[str, int] = {}
        for index in dict.fromkeys(self.trace.producers):
            if isinstance(index, Whole):
                if index.module not in used:
                    used[index.module] = 1
                    groups.append(_whole(index))
                    members[index.module] = np.zeros(0, dtype=np.int64)
                continue
            origin = self.labels.origins[index]
            roots = self.roots[origin.start : origin.start + origin.size]
            roots = roots[np.sort(np.unique(roots, return_index=True)[1])]
            roots = roots[~seen[roots]]
            keys = list(zip(signature[roots].tolist(), self.frozen[roots].tolist(), strict=True))
            for key in dict.fromkeys(keys):
                units = roots[[k == key for k in keys]]
                seen[units] = True
                name = self._name(origin.tensor, used)
                members[name] = units
                groups.append(self._group(name, index, units, key[1]))
        return groups, members

    def _group(self, name: str, origin: int, units: np.ndarray, reason: int) -> Group:
        kind = self.trace.kinds.get(origin, "channels")
        width = len(units)
        if reason < 0 and width == 1:
            return Group(name, kind, 1, False, "a single unit", 1, 1)
        if reason < 0:
            return Group(name, kind, width, True, "", 1, width)
        return Group(name, kind, width, False, self.labels.reasons[reason], width, width)

    def _name(self, tensor: int, used: dict[str, int]) -> str:
        path = self.trace.names[tensor].split(".parametrizations.")[0]
        base = path.rsplit(".", 1)[0] if "." in path else path
        used[base] = used.get(base, 0) + 1
        return base if used[base] == 1 else f"{base}#{used[base]}"

    def _slices(
        self, groups: Sequence[Group], members: dict[str, np.ndarray]
    ) -> dict[str, tuple[Slice, ...]]:
        owner = np.full(len(self.labels), -1, dtype=np.int64)
        unit = np.zeros(len(self.labels), dtype=np.int64)
        for g, group in enumerate(groups):
            if group.prunable:
                owner[members[group.name]] = g
                unit[members[group.name]] = np.arange(group.width)
        found: dict[str, list[Slice]] = {}
        for k, origin in enumerate(self.labels.origins):
            roots = self.roots[origin.start : origin.start + origin.size]
            for g in np.unique(owner[roots]):
                if g < 0:
                    continue
                at = np.flatnonzero(owner[roots] == g)
                order = np.argsort(unit[roots[at]], kind="stable")
                index = torch.from_numpy(at[order].reshape(groups[g].width, -1))
                role = self.trace.roles.get(k, "tied")
                found.setdefault(groups[g].name, []).append(
                    Slice(self.trace.names[origin.tensor], origin.dim, role, index)
                )
        return {n: tuple(s) for n, s in found.items()}

    def _with_modules(self, group: Group, slices: Sequence[Slice]) -> Group:
        owners = dict.fromkeys(s.tensor.rsplit(".", 1)[0] for s in slices)
        modules = tuple(owners) or (group.name.split("#")[0],)
        return replace(group, modules=modules)


def _names(group: Group, slices: Sequence[Slice]) -> list[str]:
    """The group's name and the modules that hold its units (not those that only read them)."""
    owners = (s.tensor.split(".parametrizations.")[0] for s in slices if s.role != "in")
    return list(dict.fromkeys([group.name, *(o.rpartition(".")[0] or o for o in owners)]))


def _whole(whole: Whole) -> Group:
    width = whole.width
    return Group(whole.module or "(model)", "neurons", width, False, whole.reason, width, width)
