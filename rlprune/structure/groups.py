"""Groups of units: what one keep-ratio decision covers, and where its units live."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn

from rlprune.errors import PlanError
from rlprune.structure.records import Branch, Trace


@dataclass(frozen=True)
class Group:
    """The units that one decision covers.

    Attributes:
        name: path of the module that produces the units.
        kind: "channels", "neurons", "heads" or "embedding".
        width: number of units in the dense network.
        prunable: whether units may be removed.
        reason: why not, in plain words; empty for a prunable group.
        min_width: fewest units that may be kept.
        max_width: most units that may be kept.
        divisor: kept widths are multiples of it (the dense width is always legal).
        modules: modules whose parameters the units index, in execution order.
    """

    name: str
    kind: str
    width: int
    prunable: bool
    reason: str = ""
    min_width: int = 1
    max_width: int = 0
    divisor: int = 1
    modules: tuple[str, ...] = ()

    def legal_widths(self) -> tuple[int, ...]:
        """Widths a search may choose, ascending; a frozen group has only its dense width.

        Width 0, which drops a branch, is not among them: see `Groups.branch_of`.
        """
        if not self.prunable:
            return (self.width,)
        first = -(-self.min_width // self.divisor) * self.divisor
        widths = list(range(first, self.max_width + 1, self.divisor))
        if self.max_width == self.width and self.width not in widths:
            widths.append(self.width)
        return tuple(widths)


@dataclass(frozen=True)
class Slice:
    """One dimension of one tensor that the units of a group index.

    Attributes:
        tensor: state-dict name of the parameter or buffer.
        dim: the dimension.
        role: "out" where the units are produced, "in" where a weight consumes them, else "tied".
        index: positions of every unit along ``dim``, [width, positions per unit].
    """

    tensor: str
    dim: int
    role: str
    index: Tensor


@dataclass(frozen=True)
class Polynomial:
    """A cost as a sum of products of affine functions of the widths.

    ``value(k) = sum_t scale[t] * prod_f (matrix @ k + offset)[terms[t, f]]``, summed over the
    terms whose branch is not dropped. ``branches()[t]`` is the first group (column) of the branch
    that the term belongs to, -1 where it belongs to none; it is asked for where a width is 0.
    """

    matrix: np.ndarray
    offset: np.ndarray
    terms: np.ndarray
    scale: np.ndarray
    branches: Callable[[], np.ndarray]

    def __call__(self, widths: Sequence[int]) -> float:
        """Cost at the given widths (prunable groups, execution order)."""
        sizes = np.asarray(widths, dtype=np.float64)
        lengths = self.matrix @ sizes + self.offset
        values = lengths[self.terms].prod(axis=1) * self.scale
        if not sizes.all():
            values = values * np.append(sizes != 0, True)[self.branches()]
        return float(values.sum())

    def many(self, widths: np.ndarray) -> np.ndarray:
        """Costs ``[P]`` at ``[P, n]`` widths."""
        sizes = np.asarray(widths, dtype=np.float64).T
        lengths = self.matrix @ sizes + self.offset[:, None]
        values = lengths[self.terms[:, 0]]
        for factor in self.terms.T[1:]:
            values *= lengths[factor]
        if not sizes.all():
            present = np.vstack([sizes != 0, np.ones_like(sizes[:1], dtype=bool)])
            values = values * present[self.branches()]
        return np.asarray(self.scale @ values)


class Groups(Sequence[Group]):
    """All groups of a network in execution order, with the slices of every tensor they index.

    Attributes:
        model: the network they were found in; never changed.
        example_inputs: what it was traced with.
        prunable: the groups a plan decides about, in execution order.
        aliases: state-dict names that share one tensor, by its first name.
        grouped: module paths of grouped convolutions and group norms, to "groups" (whole groups
            are removed) or "positions" (the same positions of every group).
        trace: the traced forward pass.
        members: for every group the root labels of its units.
        unused: parameters that no forward pass touches; they keep their size.
        seconds: what the discovery took.
        branches: residual branches that a plan may drop, by name, in execution order. They lie
            wholly in front of an addition to a tensor of the same shape. A plan that drops one
            keeps nothing of its groups; it then adds zero and is not run. Found when first asked
            for, which takes another pass.
        other_inputs: inputs of another size or batch that the network takes too; None without.
        other_values: inputs that make the network run otherwise, by their values or their size.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        groups: Sequence[Group],
        slices: dict[str, tuple[Slice, ...]],
        aliases: dict[str, tuple[str, ...]],
        grouped: dict[str, str],
        costs: dict[str, Polynomial],
        trace: Trace,
        members: dict[str, np.ndarray],
        unused: tuple[str, ...] = (),
        seconds: float = 0.0,
        find_branches: Callable[[], Sequence[Branch]] = tuple,
        other_inputs: Any = None,
        other_values: Sequence[Any] = (),
    ) -> None:
        self.model = model
        self.example_inputs = example_inputs
        self.aliases = aliases
        self.grouped = grouped
        self.trace = trace
        self.members = members
        self.unused = unused
        self.seconds = seconds
        self.other_inputs, self.other_values = other_inputs, other_values
        self._find_branches = find_branches
        self._groups = tuple(groups)
        self._slices = slices
        self._costs = costs

    @cached_property
    def branches(self) -> Mapping[str, Branch]:
        """Residual branches that a plan may drop; see above."""
        return {branch.name: branch for branch in self._find_branches()}

    @cached_property
    def _branch_of(self) -> dict[str, str]:
        return {group: name for name, branch in self.branches.items() for group in branch.groups}

    def branch_of(self, group: str) -> str:
        """The branch that a group lies wholly inside and that a plan may drop; empty if none."""
        return self._branch_of.get(group, "")

    @property
    def formulas(self) -> Mapping[str, Polynomial]:
        """What `macs` and `params` evaluate, by these names."""
        return self._costs

    @cached_property
    def prunable(self) -> tuple[Group, ...]:
        """Groups that may lose units, in execution order."""
        return tuple(g for g in self._groups if g.prunable)

    @cached_property
    def _by_name(self) -> dict[str, Group]:
        return {g.name: g for g in self._groups}

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups)

    def __getitem__(self, key: Any) -> Any:
        """Group by position or by name."""
        if isinstance(key, str):
            if key not in self._by_name:
                known = ", ".join(list(self._by_name)[:8])
                raise PlanError(f"no group named '{key}'; the network has {known}, ...")
            return self._by_name[key]
        return self._groups[key]

    def slices(self, group: Group | str) -> tuple[Slice, ...]:
        """Every (tensor, dimension) the units of a prunable group index."""
        return self._slices[group if isinstance(group, str) else group.name]

    def dropped(self, widths: Mapping[str, int]) -> tuple[Branch, ...]:
        """The branches of which some widths (by group) keep nothing.

        Raises:
            PlanError: some groups of a branch are empty and others not; names both.
        """
        found: list[Branch] = []
        for branch in self.branches.values() if 0 in widths.values() else ():
            empty = [n for n in branch.groups if widths.get(n) == 0]
            if not empty:
                continue
            rest = [n for n in branch.groups if n not in empty]
            if rest:
                raise PlanError(
                    f"group '{empty[0]}' keeps nothing, but {', '.join(map(repr, rest))} of the "
                    f"same branch '{branch.name}' does not: empty all of them, or none"
                )
            found.append(branch)
        return tuple(found)

    def macs(self, widths: Sequence[int] | None = None) -> float:
        """Multiply-accumulates of one sample at the given widths (dense when None).

        A branch whose groups are all at width 0 costs nothing.
        """
        return self._costs["macs"](self._widths(widths))

    def params(self, widths: Sequence[int] | None = None) -> float:
        """Number of parameters at the given widths (dense when None).

        A branch whose groups are all at width 0 has none.
        """
        return self._costs["params"](self._widths(widths))

    def _widths(self, widths: Sequence[int] | None) -> Sequence[int]:
        if widths is None:
            return [g.width for g in self.prunable]
        if len(widths) != len(self.prunable):
            raise PlanError(f"{len(widths)} widths given for {len(self.prunable)} prunable groups")
        if 0 in widths:
            self.dropped(dict(zip((g.name for g in self.prunable), widths, strict=True)))
        return widths

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by state-dict name (every alias)."""
        out: dict[str, Tensor] = dict(self.model.named_parameters(remove_duplicate=False))
        out.update(self.model.named_buffers(remove_duplicate=False))
        return out

    def table(self) -> str:
        """The groups as text: name, kind, width, and why a group is frozen."""
        rows = [("group", "kind", "width", "prunable")]
        rows += [
            (g.name, g.kind, str(g.width), "yes" if g.prunable else f"no: {g.reason}")
            for g in self._groups
        ]
        sizes = [max(len(r[c]) for r in rows) for c in range(3)]
        return "\n".join("  ".join([*(r[c].ljust(sizes[c]) for c in range(3)), r[3]]) for r in rows)

    def __repr__(self) -> str:
        return f"Groups({len(self)} groups, {len(self.prunable)} prunable)"
