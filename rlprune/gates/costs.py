"""What half-open gates cost: structural polynomials, and numeric gradients of learned models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rlprune.structure.groups import Polynomial

if TYPE_CHECKING:
    from rlprune.problem import Problem
    from rlprune.space.costs import CostModel

_STEP = 0.05
_REFRESH = 10


class SoftCosts:
    """Costs over limits at widths and branches between their legal values, differentiable.

    Where a budget is a polynomial of the widths it is evaluated as it is; a branch's terms count as
    far as the branch is open. Otherwise (other formulas, and what was learned of black boxes) its
    tangent is taken by central differences over a twentieth of each width, renewed every few calls.

    Args:
        problem: whose budgets.
        costs: the cost model, which learns black boxes from what is measured meanwhile.
        depth: whether branches are gated.
    """

    def __init__(self, problem: Problem, costs: CostModel, *, depth: bool = False) -> None:
        groups = problem.groups
        self._costs = costs
        self._limits = [budget.limit for budget in problem.budgets]
        column = {group.name: at for at, group in enumerate(groups.prunable)}
        branches = groups.branches.values() if depth else ()
        self._branch = torch.full((len(column),), len(tuple(branches)))
        first = {-1: -1}
        for at, branch in enumerate(branches):
            inside = [column[name] for name in branch.groups]
            self._branch[inside] = at
            first[min(inside)] = at
        self._exact: dict[int, _Exact] = {}
        for at, budget in enumerate(problem.budgets):
            many = budget.estimate.many if budget.estimate is not None else None
            polynomial = getattr(many, "__self__", None)
            if isinstance(polynomial, Polynomial):
                self._exact[at] = _Exact(polynomial, first, depth=depth)
        self._tangents: dict[int, tuple[int, float, Tensor, Tensor]] = {}
        self._calls = 0

    def __call__(self, widths: Tensor, open_branches: Tensor) -> Tensor:
        """``cost / limit`` ``[m]``.

        Args:
            widths: ``[groups]`` expected kept units of every prunable group.
            open_branches: ``[branches]`` how far each branch is open, in [0, 1].
        """
        widths, whole = widths.double(), torch.cat([open_branches, open_branches.new_ones(1)])
        effective = widths * whole.double()[self._branch.to(whole.device)]
        values = [
            self._exact[at](widths, whole.double()) / limit
            if at in self._exact
            else self._tangent(at, effective) / limit
            for at, limit in enumerate(self._limits)
        ]
        self._calls += 1
        return torch.stack(values)

    def state(self) -> dict[str, Any]:
        """Tangents and their age, for :meth:`restore`."""
        return {"tangents": dict(self._tangents), "calls": self._calls}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with earlier tangents, whatever was learned meanwhile."""
        self._tangents, self._calls = dict(state["tangents"]), state["calls"]

    def _tangent(self, at: int, widths: Tensor) -> Tensor:
        known = self._tangents.get(at)
        if known is None or self._calls - known[0] >= _REFRESH:
            here = widths.detach().cpu().numpy()
            apart = np.maximum(_STEP * here, 0.5)
            rows = np.concatenate([here[None], here + np.diag(apart), here - np.diag(apart)])
            values = self._costs.estimate(at).many(np.maximum(rows, 1e-3))
            up, down = values[1 : len(here) + 1], values[len(here) + 1 :]
            slope = torch.from_numpy((up - down) / (2 * apart)).to(widths)
            known = self._calls, float(values[0]), slope, widths.detach()
            self._tangents[at] = known
        _, value, slope, place = known
        return value + slope.to(widths) @ (widths - place.to(widths))


class _Exact:
    """A polynomial of widths and open branches, in double precision."""

    def __init__(self, polynomial: Polynomial, first: dict[int, int], *, depth: bool) -> None:
        self._matrix = torch.from_numpy(polynomial.matrix)
        self._offset = torch.from_numpy(polynomial.offset)
        self._terms = torch.from_numpy(polynomial.terms)
        self._scale = torch.from_numpy(polynomial.scale)
        columns = polynomial.branches().tolist() if depth else [-1] * len(polynomial.scale)
        self._branch = torch.tensor([first[column] for column in columns])

    def __call__(self, widths: Tensor, whole: Tensor) -> Tensor:
        device = widths.device
        lengths = self._matrix.to(device) @ widths + self._offset.to(device)
        values = lengths[self._terms.to(device)].prod(dim=1) * self._scale.to(device)
        return (values * whole[self._branch.to(device)]).sum()
