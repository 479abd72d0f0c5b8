"""How much each group's width matters: predicted damage by width, before anything is evaluated."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from rlprune.batches import Batch
from rlprune.compensation.least_squares import Fit, prepare, refit
from rlprune.importance.base import owner
from rlprune.probes import Call, probe

if TYPE_CHECKING:
    from rlprune.structure import Group, Groups

logger = logging.getLogger(__name__)

_POINTS = 10
_SAMPLES = 256


@dataclass(frozen=True)
class Trial:
    """A group cut to one width.

    Attributes:
        width: units kept.
        layers: by path of a layer that reads the group, its parameters with the removed units'
            entries zero and the others refitted, in the dense shapes.
    """

    width: int
    layers: dict[str, dict[str, Tensor]]


def sensitivity(
    groups: Groups,
    scores: Mapping[str, Tensor],
    batches: Sequence[Batch],
    *,
    reconstruct: bool = True,
    samples: int = _SAMPLES,
    points: int = _POINTS,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    r"""Predicted damage to the network's answer when one group alone is cut to a width.

    At about ``points`` widths per group the layers that read it are refitted, and their change of
    output ``d`` is carried to the answer to first order:

    .. math:: D_g(k) = \tfrac12\, E_x\, \Big(v \cdot \sum_l J_l\, d_l(x)\Big)^2,
              \quad v \sim N(0, I)

    (see :func:`rlprune.probes.probe`), so that it costs about ``points`` forward passes of the
    reading layers and one backward pass for all groups together. The sum over groups predicts a
    plan's damage as far as groups do not interact (Hessian-based allocation: Dong et al., HAWQ,
    ICCV 2019; Nagel et al., AdaRound, ICML 2020, section 3 for the layer-wise form).

    Args:
        groups: The dense network's groups.
        scores: Importance of the units, which decides the units a width keeps.
        batches: Calibration batches.
        reconstruct: Refit by least squares what can be refitted; otherwise units only vanish.
        samples: Calibration samples to use.
        points: Widths per group.
        seed: Seed of the projections.

    Returns:
        Group name -> ``[width + 1]`` float64 by kept units, not increasing, 0 at the full width.
        Between the widths that were tried its root is linear; width 0 counts twice the damage of
        the smallest. A group no layer reads is given the mean curve of the others.

    Raises:
        DataError: There is no batch.
    """
    fits = prepare(groups, batches).fits if reconstruct else {}
    trials = {
        group.name: list(_trials(groups, group, scores[group.name], fits, points))
        for group in groups.prunable
    }
    damage = {name: np.zeros(len(cut)) for name, cut in trials.items()}
    readers = {path for cut in trials.values() for trial in cut for path in trial.layers}
    seen = 0
    for count, calls in probe(groups.model, batches, sorted(readers), samples=samples, seed=seed):
        seen += count
        for name, cut in trials.items():
            for place, trial in enumerate(cut):
                damage[name][place] += _answer_change(groups.model, trial, calls, count)
    curves = {
        group.name: _curve(group, trials[group.name], damage[group.name] / (2 * max(seen, 1)))
        for group in groups.prunable
    }
    return _filled(groups, curves)


def _trials(
    groups: Groups, group: Group, score: Tensor, fits: Mapping[str, Fit], points: int
) -> Iterator[Trial]:
    parts = [
        part for part in groups.slices(group) if part.role == "in" and part.tensor in groups.tensors
    ]
    order = score.double().argsort(descending=True, stable=True)
    legal = [width for width in group.legal_widths() if 0 < width < group.width]
    if not parts or not legal:
        return
    picks = np.unique(np.linspace(0, len(legal) - 1, points).round().astype(int))
    for width in (legal[pick] for pick in picks):
        gone = order[width:]
        layers: dict[str, dict[str, Tensor]] = {}
        for part in parts:
            path, _, attribute = part.tensor.rpartition(".")
            module = owner(groups.model, part.tensor)
            changed = layers.setdefault(path, {})
            before = changed.get(attribute, groups.tensors[part.tensor].detach())
            removed = part.index[gone].flatten()
            fit = fits.get(part.tensor)
            if fit is not None and fit.consumer.dim == part.dim:
                left = torch.ones(before.shape[part.dim], dtype=torch.bool)
                left[removed] = False
                changed.update(_refitted(fit, module, left.nonzero()[:, 0]))
            else:
                at = removed.to(before.device)
                changed[attribute] = before.index_fill(part.dim, at, 0)
        yield Trial(width, layers)


def _refitted(fit: Fit, module: nn.Module, kept: Tensor) -> dict[str, Tensor]:
    """Weight and bias of a layer that reads only ``kept`` positions, in the dense shapes."""
    consumer = fit.consumer
    weight, bias = consumer.weight, getattr(module, "bias", None)
    dense = consumer.matrix(weight, bias)
    at = fit.columns(kept)
    full = torch.zeros_like(dense)
    full[:, at] = refit(fit, kept, dense[:, at]).to(full)
    cut, shift = consumer.unpack(full, weight)
    found = {"weight": cut.to(weight)}
    if shift is not None and bias is not None:
        found["bias"] = shift.to(bias)
    return found


def _answer_change(
    model: nn.Module, trial: Trial, calls: Mapping[str, Sequence[Call]], count: int
) -> float:
    """Sum over samples of the squared predicted change of the projected answer."""
    change = torch.zeros(count, dtype=torch.float64)
    for path, parameters in trial.layers.items():
        layer = model.get_submodule(path)
        for call in calls.get(path, ()):
            with torch.no_grad():
                output: Any = functional_call(layer, parameters, call.args, call.kwargs)
            moved = ((output - call.output) * call.gradient).double()
            if moved.shape[0] % count == 0:
                change += moved.reshape(count, -1).sum(1).cpu()
            else:
                change += moved.sum().cpu() / count
    return float(change.square().sum())


def _curve(group: Group, trials: Sequence[Trial], damage: np.ndarray) -> np.ndarray | None:
    if not trials or not np.isfinite(damage).all():
        return None
    smallest = 2 * float(damage.max(initial=0.0))
    widths = [0, *(trial.width for trial in trials), group.width]
    values = [smallest, *damage, 0.0]
    falling = np.maximum.accumulate(np.array(values)[::-1])[::-1]
    return np.interp(np.arange(group.width + 1), widths, np.sqrt(falling)) ** 2


def _filled(groups: Groups, curves: dict[str, np.ndarray | None]) -> dict[str, np.ndarray]:
    """Gives groups without a curve the mean one of the others, stretched to their width."""
    known = [curve for curve in curves.values() if curve is not None]
    ratios = [np.linspace(0, 1, len(curve)) for curve in known]
    filled: dict[str, np.ndarray] = {}
    for group in groups.prunable:
        curve = curves[group.name]
        if curve is None:
            at = np.linspace(0, 1, group.width + 1)
            others = [np.interp(at, r, c) for r, c in zip(ratios, known, strict=True)]
            curve = np.mean(others, axis=0) if others else 1.0 - at
            logger.info("no layer that reads %r could be probed; its curve is a guess", group.name)
        filled[group.name] = curve
    return filled
