"""How much each group's width matters: predicted damage by width, before anything is evaluated."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from rlprune.batches import Batch
from rlprune.errors import DataError
from rlprune.importance.base import owner
from rlprune.inputs import batch_of, call_safely
from rlprune.linear.fits import Fit, prepare, refit
from rlprune.modes import attention_spelled_out, evaluating
from rlprune.observe import Call, Watch
from rlprune.observe.probes import Probed, first, probe
from rlprune.progress import track

if TYPE_CHECKING:
    from rlprune.structure import Group, Groups

logger = logging.getLogger(__name__)

_POINTS = 10
_SAMPLES = 256
_ENTRIES = 1 << 27


@dataclass(frozen=True)
class Trial:
    """A group cut to one width.

    Attributes:
        width: units kept.
        layers: by path of a module that reads the group, its parameters with the removed units'
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
    classes: bool = True,
) -> dict[str, np.ndarray]:
    r"""Predicted damage to the network's answer when one group alone is cut to a width.

    At about ``points`` widths per group the layers that read it are refitted, and their change of
    output ``d`` is carried to the answer to first order:

    .. math:: D_g(k) = \tfrac12\, E_x\, \Big(v \cdot \sum_l J_l\, d_l(x)\Big)^2,
              \quad v \sim N(0, I)

    (see :func:`rlprune.observe.probes.probe`), so that it costs about ``points`` forward passes of
    the reading layers and one backward pass for all groups together (for as many at a time as half
    a gigabyte of trial weights holds). The sum over groups predicts a plan's damage as far as
    groups do not interact (Hessian-based allocation: Dong et al., HAWQ, ICCV 2019; Nagel et al.,
    AdaRound, ICML 2020, section 3 for the layer-wise form).

    Args:
        groups: The dense network's groups.
        scores: Importance of the units, which decides the units a width keeps.
        batches: Calibration batches.
        reconstruct: Refit by least squares what can be refitted; otherwise units only vanish.
        samples: Calibration samples to use.
        points: Widths per group.
        seed: Seed of the projections.
        classes: Whether the network answers with one score per class.

    Returns:
        Group name -> ``[width + 1]`` float64 by kept units, not increasing, 0 at the full width.
        Between the widths that were tried its root is linear; width 0 counts twice the damage of
        the smallest. A group no layer reads is given the mean curve of the others.

    Raises:
        DataError: There is no batch.
    """
    if not batches:
        raise DataError("sensitivity curves need calibration data; pass at least one batch")
    fits = prepare(groups, batches).fits if reconstruct else {}
    callers = _callers(groups, batches)
    logger.info("sensitivity curves of %d groups", len(groups.prunable))
    curves: dict[str, np.ndarray | None] = {}
    for portion in _portions(groups, points):
        trials = {
            group.name: list(
                _trials(groups, group, scores[group.name].cpu(), fits, callers, points)
            )
            for group in portion
        }
        damage, reached = _damage(groups, trials, batches, samples, seed, classes)
        for group in portion:
            cut = trials[group.name]
            felt = bool(cut) and not reached.isdisjoint(cut[0].layers)
            curves[group.name] = _curve(group, cut, damage[group.name]) if felt else None
    return _filled(groups, curves)


def _portions(groups: Groups, points: int) -> Iterator[list[Group]]:
    """Groups in turn, as many at a time as have room for the trial weights of their readers."""
    portion: list[Group] = []
    size = 0
    for group in groups.prunable:
        readers = {p.tensor for p in groups.slices(group) if p.role == "in"}
        own = points * sum(groups.tensors[r].numel() for r in readers if r in groups.tensors)
        if portion and size + own > _ENTRIES:
            yield portion
            portion, size = [], 0
        portion.append(group)
        size += own
    yield portion


def _damage(
    groups: Groups,
    trials: Mapping[str, Sequence[Trial]],
    batches: Sequence[Batch],
    samples: int,
    seed: int,
    classes: bool,
) -> tuple[dict[str, np.ndarray], set[str]]:
    """Predicted damage of every trial by group, and the readers that could be probed."""
    damage = {name: np.zeros(len(cut)) for name, cut in trials.items()}
    readers = {path for cut in trials.values() for trial in cut for path in trial.layers}
    seen = 0
    reached: set[str] = set()
    probed = probe(
        groups.model, batches, sorted(readers), samples=samples, seed=seed, classes=classes
    )
    for count, calls in probed:
        seen += count
        reached.update(path for path, found in calls.items() if found)
        with torch.no_grad(), evaluating(groups.model), attention_spelled_out():
            for name, cut in track(list(trials.items()), "sensitivity curves"):
                for place, trial in enumerate(cut):
                    damage[name][place] += _answer_change(groups.model, trial, calls, count)
    return {name: sums / (2 * max(seen, 1)) for name, sums in damage.items()}, reached


def _callers(groups: Groups, batches: Sequence[Batch]) -> dict[str, str]:
    """By tensor that reads a group: the innermost module around it that is called for a tensor."""
    called: set[str] = set()
    around = {
        name: _ancestors(name.rpartition(".")[0])
        for group in groups.prunable
        for name in (p.tensor for p in groups.slices(group) if p.role == "in")
        if name in groups.tensors
    }

    def note(seen: Call) -> None:
        if first(seen.output) is not None:
            called.add(seen.name)

    watch = Watch(groups.model)
    for path in {path for paths in around.values() for path in paths}:
        watch.module(path, after=note)
    with torch.no_grad(), evaluating(groups.model), attention_spelled_out(), watch:
        call_safely(groups.model, batch_of(batches[0][0], 1))
    found = {name: next((p for p in paths if p in called), None) for name, paths in around.items()}
    return {name: path for name, path in found.items() if path is not None}


def _ancestors(path: str) -> list[str]:
    """The path itself, then what contains it, up to the network."""
    parts = path.split(".") if path else []
    return [".".join(parts[:size]) for size in range(len(parts), -1, -1)]


def _trials(
    groups: Groups,
    group: Group,
    score: Tensor,
    fits: Mapping[str, Fit],
    callers: Mapping[str, str],
    points: int,
) -> Iterator[Trial]:
    parts = [part for part in groups.slices(group) if part.role == "in" and part.tensor in callers]
    order = score.double().argsort(descending=True, stable=True)
    legal = [width for width in group.legal_widths() if 0 < width < group.width]
    if not parts or not legal:
        return
    picks = np.unique(np.linspace(0, len(legal) - 1, points).round().astype(int))
    for width in (legal[pick] for pick in picks):
        cuts: dict[tuple[str, int], list[Tensor]] = {}
        for part in parts:
            removed = part.index[order[width:]].flatten()
            cuts.setdefault((part.tensor, part.dim), []).append(removed)
        layers: dict[str, dict[str, Tensor]] = {}
        for (tensor, dim), gone in cuts.items():
            path = callers[tensor]
            changed = layers.setdefault(path, {})
            fit = fits.get(tensor)
            if fit is not None and fit.consumer.dim == dim:
                found = _refitted(fit, owner(groups.model, tensor), torch.cat(gone))
                prefix = tensor.rpartition(".")[0]
            else:
                prefix, _, attribute = tensor.rpartition(".")
                before = changed.get(_within(path, tensor), groups.tensors[tensor].detach())
                at = torch.cat(gone).to(before.device)
                found = {attribute: before.index_fill(dim, at, 0)}
            for attribute, value in found.items():
                changed[_within(path, f"{prefix}.{attribute}" if prefix else attribute)] = value
        yield Trial(width, layers)


def _within(path: str, tensor: str) -> str:
    """Name of a tensor inside the module at a path."""
    return tensor[len(path) + 1 :] if path else tensor


def _refitted(fit: Fit, module: nn.Module, gone: Tensor) -> dict[str, Tensor]:
    """Weight and bias of a layer that reads all positions but ``gone``, in the dense shapes."""
    consumer = fit.consumer
    weight, bias = consumer.weight, getattr(module, "bias", None)
    left = torch.ones(weight.shape[consumer.dim], dtype=torch.bool)
    left[gone] = False
    kept = left.nonzero()[:, 0]
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
    model: nn.Module, trial: Trial, calls: Mapping[str, Sequence[Probed]], count: int
) -> float:
    """Sum over samples of the squared predicted change of the projected answer."""
    changes: list[Tensor] = []
    for path, parameters in trial.layers.items():
        layer = model.get_submodule(path)
        for seen in calls.get(path, ()):
            output = first(functional_call(layer, parameters, seen.args, seen.kwargs))
            assert output is not None
            moved = (output - seen.output).float() * seen.gradient.float()
            changes.append(_by_sample(moved, count).double().cpu())
    if any(len(change) != count for change in changes):
        # Projections of different samples are independent: the square of their sum will do.
        changes = [change.sum(0, keepdim=True) for change in changes]
    return float(torch.stack(changes).sum(0).square().sum()) if changes else 0.0


def _by_sample(values: Tensor, count: int) -> Tensor:
    """Sums ``[count]`` over all entries of each sample, ``[1]`` if they cannot be told apart."""
    if values.ndim > 1 and values.shape[0] != count and values.shape[1] == count:
        values = values.transpose(0, 1)
    if values.ndim and values.shape[0] % count == 0:
        return values.reshape(count, -1).sum(1)
    return values.sum()[None]


def _curve(group: Group, trials: Sequence[Trial], damage: np.ndarray) -> np.ndarray | None:
    if not np.isfinite(damage).all():
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
