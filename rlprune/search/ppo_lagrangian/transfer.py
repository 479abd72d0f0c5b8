"""A policy trained on one problem as the start of a search on another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from rlprune.errors import CheckpointError

Weights = Mapping[str, torch.Tensor]

_OBSERVED = 2
_PER_BUDGET = 3
_HEADS = ("action_net.weight", "value_net.weight")
_FIRST, _SPREAD, _VALUES = "mlp_extractor.actor.0.weight", "log_std", "value_net.weight"


@dataclass(frozen=True)
class PolicyShape:
    """What the sizes of a policy's weights follow from.

    Attributes:
        decisions: number of groups that are decided on.
        budgets: number of budgets.
        features: number of static features of a group.
        hidden: width of the hidden layers.
    """

    decisions: int
    budgets: int
    features: int
    hidden: int

    @classmethod
    def of(cls, weights: Weights, where: str) -> PolicyShape:
        """Reads the sizes off a policy's weights.

        Raises:
            CheckpointError: they are not those of a PPO-Lagrangian policy.
        """
        try:
            hidden, observed = weights[_FIRST].shape
            budgets = weights[_VALUES].shape[0] - 1
            decisions = len(weights[_SPREAD])
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{where} holds no policy of ppo_lagrangian ({error!r}); give the folder of a run "
                "or an agent saved by this version"
            ) from error
        return cls(decisions, budgets, observed - _OBSERVED - _PER_BUDGET * budgets, hidden)


def adapt(saved: Weights, own: Weights, where: str) -> dict[str, torch.Tensor]:
    """Fits a saved policy to the groups of another problem.

    The network over features, progress and the budgets' fields is the same for every network and
    is taken as it is. What belongs to a position (the one-hot columns of the action and value
    heads, the standard deviations) is read along relative depth, 0 at the first group and 1 at the
    last, and interpolated linearly; with equally many groups nothing changes.

    Args:
        saved: the policy's weights.
        own: weights of a fresh policy of the problem at hand, for their sizes.
        where: where the policy comes from, for messages.

    Returns:
        Weights with the sizes of ``own``.

    Raises:
        CheckpointError: the number of budgets, the hidden size or the features differ.
    """
    theirs, ours = PolicyShape.of(saved, where), PolicyShape.of(own, "the new search")
    for field, what, fix in (
        ("budgets", "budgets", "give as many budgets as it was trained with"),
        ("hidden", "hidden units", "set agent.hidden={} for this search"),
        ("features", "features of a group", "train it again with this version"),
    ):
        before, now = getattr(theirs, field), getattr(ours, field)
        if before != now:
            raise CheckpointError(
                f"the policy of {where} does not fit this search: it was trained with {before} "
                f"{what}, this search has {now}; {fix.format(before)}, or start without it"
            )
    n = ours.decisions
    weights = {name: value.clone() for name, value in saved.items()}
    for name in _HEADS:
        shared, positions = saved[name][:, : ours.hidden], saved[name][:, ours.hidden :]
        weights[name] = torch.cat([shared, along_depth(positions, n)], dim=1)
    weights[_SPREAD] = along_depth(saved[_SPREAD], n)
    wrong = [k for k, v in own.items() if k not in weights or weights[k].shape != v.shape]
    if wrong or len(weights) != len(own):
        raise CheckpointError(
            f"the policy of {where} was saved by another version of rlprune "
            f"({', '.join(wrong) or 'it has more weights'}); train it again with this one"
        )
    return weights


def along_depth(values: torch.Tensor, count: int) -> torch.Tensor:
    """``[..., n]`` values of evenly spaced positions as ``[..., count]``, linear in between."""
    n = values.shape[-1]
    if n == count:
        return values.clone()
    if n == 1:
        return values.expand(*values.shape[:-1], count).clone()
    places = np.linspace(0.0, 1.0, count) if count > 1 else np.array([0.5])
    rows = values.reshape(-1, n).double().numpy()
    found = np.stack([np.interp(places, np.linspace(0.0, 1.0, n), row) for row in rows])
    return torch.from_numpy(found).to(values.dtype).reshape(*values.shape[:-1], count)


def loosened(weights: Weights, std: float) -> dict[str, torch.Tensor]:
    """The same weights with standard deviations of at least ``std``: a policy that explores."""
    return {**weights, _SPREAD: weights[_SPREAD].clamp_min(math.log(std))}
