"""The constants of one pruning problem, as the environment sees them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rlprune.problem import Problem


ANCHORS = ("uniform", "sensitivity")
"""What action 0 stands for: ``uniform``, the largest keep ratio that, used everywhere, meets every
budget; ``sensitivity``, the plan with the least predicted damage that does (uniform where nothing
can be predicted, for want of calibration data)."""


@dataclass(frozen=True)
class Setting:
    """Anchors of the action scale, static features and a cheap cost model.

    With n decisions and m budgets:

    Attributes:
        dense: ``[n]`` dense widths.
        lowest: ``[n]`` smallest legal keep ratios.
        anchor: ``[n]`` keep ratios that action 0 stands for (see :data:`ANCHORS`).
        highest: ``[n]`` largest legal keep ratios.
        nearest: ``[n, max(dense) + 1]`` nearest legal width to each integer width.
        features: ``[n, F]`` static description of the layers, scaled to about [-1, 1].
        shares: ``[n, m]`` relative drop of each cost when one group alone goes to its minimum.
        slope: ``[m]`` exponent that makes the cheap model exact at the uniform plan that meets the
            tightest budget.
        limits: ``[m]`` budget limits.
        dense_costs: ``[m]`` costs of the dense network.
        damage_roots: per group the root of its predicted damage by kept units, ``[width + 1]``;
            None where nothing is predicted.
    """

    dense: np.ndarray
    lowest: np.ndarray
    anchor: np.ndarray
    highest: np.ndarray
    nearest: np.ndarray
    features: np.ndarray
    shares: np.ndarray
    slope: np.ndarray
    limits: np.ndarray
    dense_costs: np.ndarray
    damage_roots: tuple[np.ndarray, ...] | None = None

    @classmethod
    def of(cls, problem: Problem) -> Setting:
        """Reads a problem. Calls its budget functions a few times, its quality never.

        Raises:
            ValueError: the problem has nothing to decide.
        """
        from rlprune.problem import projection

        groups = problem.decisions
        if not groups:
            raise ValueError(
                "the problem has no prunable group, so there is nothing to decide; "
                "see the reasons that rlprune.discover lists"
            )
        dense = np.array([g.width for g in groups], dtype=np.int64)
        legal = tuple(np.array(g.legal_widths(), dtype=np.int64) for g in groups)
        widths = np.asarray(projection.uniform_widths(problem)[1], dtype=np.int64)
        limits = np.array([b.limit for b in problem.budgets], dtype=np.float64)
        dense_costs = np.array([b.dense for b in problem.budgets], dtype=np.float64)
        lowest = np.array([w[0] for w in legal]) / dense
        shares = np.clip(np.asarray(problem.cost_shares, dtype=np.float64), 0.0, 0.999)
        shares = shares.reshape(len(groups), len(problem.budgets))
        at_uniform = problem.costs(tuple(int(w) for w in widths))
        setting = cls(
            dense=dense,
            lowest=lowest,
            anchor=widths / dense,
            highest=np.array([w[-1] for w in legal]) / dense,
            nearest=np.array([_nearest(choices, int(np.max(dense))) for choices in legal]),
            features=np.asarray(problem.features, dtype=np.float64),
            shares=shares,
            slope=np.ones(len(limits)),
            limits=limits,
            dense_costs=dense_costs,
        )
        drops = -setting.log_drops(setting.anchor).sum(axis=0)
        true_drop = -np.log(
            np.clip([at_uniform[b.name] for b in problem.budgets] / dense_costs, 1e-6, 1.0)
        )
        slope = np.where(drops > 1e-9, true_drop / np.maximum(drops, 1e-9), 1.0)
        return replace(setting, slope=np.clip(slope, 0.05, 20.0))

    def anchored(self, problem: Problem, anchor: str) -> Setting:
        """The same constants around one of :data:`ANCHORS`, from those around the uniform plan.

        Raises:
            ValueError: the anchor is unknown.
        """
        if anchor not in ANCHORS:
            raise ValueError(f"anchor must be one of {', '.join(ANCHORS)}, got {anchor!r}")
        if anchor == "uniform" or problem.sensitivity is None:
            return self
        return replace(
            self,
            anchor=_least_damage(problem, self) / self.dense,
            damage_roots=tuple(np.sqrt(curve) for curve in problem.sensitivity),
        )

    def log_drops(self, ratios: np.ndarray) -> np.ndarray:
        """Log of the factor by which each group's ratio lowers each cost.

        The cheap model is ``cost = dense * prod_i (1 - share_i d_i) ** slope`` where ``d_i`` runs
        from 0 (group dense) to 1 (group at its minimum).

        Args:
            ratios: ``[..., n]`` keep ratios.

        Returns:
            ``[..., n, m]``, zero or negative.
        """
        span = np.maximum(1.0 - self.lowest, 1e-9)
        depth = np.clip((1.0 - ratios) / span, 0.0, 1.0)
        return np.log1p(-self.shares * depth[..., None]) * self.slope

    def relative_costs(self, ratios: np.ndarray) -> np.ndarray:
        """Cheap estimate of ``cost / limit`` per budget, ``[..., m]``, without measuring."""
        return np.exp(self.log_drops(ratios).sum(axis=-2)) * (self.dense_costs / self.limits)

    def widths(self, ratios: np.ndarray) -> tuple[int, ...]:
        """Nearest legal widths to ``[n]`` keep ratios."""
        return tuple(self.legal(ratios).tolist())

    def legal(self, ratios: np.ndarray) -> np.ndarray:
        """Nearest legal widths ``[..., n]`` to keep ratios ``[..., n]``."""
        wanted = np.rint(ratios * self.dense).astype(np.int64)
        clipped = np.minimum(np.maximum(wanted, 0), self.dense)
        return np.asarray(self.nearest[np.arange(len(self.dense)), clipped])

    def ratio(self, decision: int, action: float) -> float:
        """Keep ratio that an action in [-1, 1] stands for.

        Linear from the smallest legal ratio (-1) to the anchor (0) and from there to the largest
        (+1): monotone, and zero everywhere is the anchor.
        """
        low, mid, high = self.lowest[decision], self.anchor[decision], self.highest[decision]
        return float(mid + action * (high - mid) if action >= 0 else mid + action * (mid - low))

    def ratios(self, actions: np.ndarray) -> np.ndarray:
        """Keep ratios ``[..., n]`` of whole action sequences ``[..., n]``."""
        actions = np.clip(actions, -1.0, 1.0)
        span = np.where(actions >= 0, self.highest - self.anchor, self.anchor - self.lowest)
        return np.asarray(self.anchor + actions * span)

    def actions(self, ratios: np.ndarray) -> np.ndarray:
        """Actions ``[..., n]`` that stand for keep ratios: the inverse of :meth:`ratios`."""
        up = ratios >= self.anchor
        span = np.where(up, self.highest - self.anchor, self.anchor - self.lowest)
        return np.clip((ratios - self.anchor) / np.maximum(span, 1e-9), -1.0, 1.0)


def _least_damage(problem: Problem, setting: Setting) -> np.ndarray:
    """Widths ``[n]`` with the least predicted damage within the budgets."""
    from rlprune.problem import allocate, projection
    from rlprune_envs.preview import relative_costs

    assert problem.sensitivity is not None
    widths = allocate(
        problem.sensitivity,
        problem.legal,
        lambda rows: relative_costs(problem, setting, rows / setting.dense),
    )
    fitted = projection.project(problem, (np.array(widths) / setting.dense).tolist())
    return np.asarray(fitted, dtype=np.int64)


def _nearest(legal: np.ndarray, largest: int) -> np.ndarray:
    """Nearest of the ascending ``legal`` widths to 0, 1, ..., ``largest``, smaller on a tie."""
    return np.asarray(legal[np.abs(legal[None] - np.arange(largest + 1)[:, None]).argmin(axis=1)])
