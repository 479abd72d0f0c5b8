"""Editing: taking the memories of a concept out of a network for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rlprune.analysis.parts import layers
from rlprune.analysis.windows import even, unpadded
from rlprune.batches import answer
from rlprune.errors import ConfigError, DataError
from rlprune.modes import evaluating
from rlprune.observe import Observation, Recorder, Sink
from rlprune.progress import track

if TYPE_CHECKING:
    from rlprune.plan import Plan
    from rlprune.structure import Groups


@dataclass(frozen=True)
class Edit:
    """Feed-forward units whose coefficients are set to zero.

    Attributes:
        units: unit numbers by site (the input of a layer's second projection).
        low: by site the lower end of the range in which a coefficient is zeroed, ``[units]``; None
            zeroes whatever it is.
        high: the upper end, likewise.
    """

    units: Mapping[str, Tensor]
    low: Mapping[str, Tensor] | None = None
    high: Mapping[str, Tensor] | None = None

    @property
    def count(self) -> int:
        """Number of units."""
        return sum(len(units) for units in self.units.values())

    def within(self, moments: Usual, tau: float) -> Edit:
        """The same units, zeroed only where they are as on the concept: ``mu +- tau sigma``.

        Args:
            moments: of the coefficients on the concept's tokens.
            tau: half the width of the range.
        """
        spans = {}
        for site, units in self.units.items():
            mean, deviation = moments.mean[site][units], moments.deviation[site][units]
            spans[site] = (mean - tau * deviation, mean + tau * deviation)
        return replace(
            self,
            low={site: span[0] for site, span in spans.items()},
            high={site: span[1] for site, span in spans.items()},
        )

    def plan(self, groups: Groups) -> Plan:
        """The plan that removes the units for good; masked, it answers as the edit does.

        Raises:
            ConfigError: The units of a site are no group that can be pruned.
        """
        from rlprune.plan import Plan

        dense = Plan.dense_plan(groups)
        keep = dict(dense.keep)
        for site, units in self.units.items():
            group, index = group_of(groups, site)
            gone = {int(place) for place in units}
            lost = [unit for unit, places in enumerate(index.tolist()) if gone & set(places)]
            keep[group] = tuple(unit for unit in keep[group] if unit not in set(lost))
        return Plan(keep, dense.dense)


@dataclass(frozen=True)
class Usual:
    """Mean and deviation of coefficients on some tokens, by site, ``[units]`` each."""

    mean: Mapping[str, Tensor]
    deviation: Mapping[str, Tensor]


def group_of(groups: Groups, site: str) -> tuple[str, Tensor]:
    """The group whose units a site shows, and their places in it, ``[width, places]``.

    Raises:
        ConfigError: There is none that can be pruned.
    """
    weight = f"{site.partition('@')[0]}.weight"
    for group in groups.prunable:
        for part in groups.slices(group):
            if part.tensor == weight and part.role == "in":
                return group.name, part.index
    raise ConfigError(f"what {site} shows is no group of units that can be pruned")


@contextmanager
def edited(model: nn.Module, edit: Edit) -> Iterator[nn.Module]:
    """The network without some memories while the block runs.

    No weight is touched: coefficients are replaced on their way, and afterwards the network is as
    before to the last bit, however the block is left.

    Args:
        model: the network.
        edit: what is taken out.

    Yields:
        The network.
    """

    def sink(site: str, units: Tensor) -> Sink:
        def look(seen: Observation) -> Tensor:
            value = seen.value.clone()
            chosen = value[..., units]
            gone = torch.ones_like(chosen, dtype=torch.bool)
            if edit.low is not None and edit.high is not None:
                gone = (chosen >= edit.low[site]) & (chosen <= edit.high[site])
            value[..., units] = chosen.masked_fill(gone, 0)
            return value

        return look

    with Recorder(model, {site: sink(site, units) for site, units in edit.units.items()}):
        yield model


def token_losses(model: nn.Module, batches: Any) -> Tensor:
    """Negative log-likelihood of every token given those before it in its window, ``[rows]``.

    NaN for the first token of a window. Rows are the tokens that are no padding.

    Args:
        model: a causal language model.
        batches: mappings with ``input_ids`` and, where there is padding, ``attention_mask``.

    Raises:
        DataError: The network does not answer with ``[batch, length, vocabulary]``.
    """
    windows = unpadded(batches)
    losses = torch.full((sum(map(len, windows)),), float("nan"))
    with evaluating(model), torch.no_grad():
        for inputs, at in even(windows):
            own = _losses(model, inputs)
            losses[at.reshape(inputs["input_ids"].shape)[:, 1:].reshape(-1)] = own.reshape(-1)
    return losses


def effects(
    model: nn.Module, batches: Any, of_concept: np.ndarray
) -> tuple[dict[str, Tensor], dict[str, Tensor], Usual]:
    r"""What zeroing each feed-forward unit would do to the loss, to first order.

    ``sum_t -m_t dL/dm_t`` over tokens, divided by their number, for the summed loss of the
    concept's tokens and that of all others (Molchanov et al. 2017 with the sign kept).

    Args:
        model: a causal language model.
        batches: see :func:`token_losses`.
        of_concept: which rows are of the concept, ``[rows]`` bool.

    Returns:
        By site ``[units]`` for the concept's tokens, for the other tokens, and the moments of the
        coefficients where the next token is of the concept.
    """
    wanted = torch.from_numpy(of_concept)
    concept: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    held: dict[str, Tensor] = {}
    target: list[dict[str, Tensor]] = [concept]

    def keep(seen: Observation) -> None:
        held[seen.site.path] = seen.value.detach().float()

    def take(seen: Observation) -> None:
        effect = -(held[seen.site.path] * seen.value.float()).flatten(0, -2).sum(0)
        site = f"{seen.site.path}@input"
        target[0][site] = target[0].get(site, torch.zeros_like(effect)) + effect

    sites = [str(layer.site("ffn")) for layer in layers(model)]
    counts, seen_tokens = [0, 0], 0
    for inputs, at in track(list(even(unpadded(batches))), "effects of units"):
        rows = at.reshape(inputs["input_ids"].shape)[:, 1:]
        mask = wanted[rows]
        recorder = Recorder(model, dict.fromkeys(sites, keep), gradients=dict.fromkeys(sites, take))
        with evaluating(model), torch.enable_grad(), recorder:
            losses = _losses(model, inputs)
            for place, part in enumerate((mask, ~mask)):
                counts[place] += int(part.sum())
                target[0] = (concept, others)[place]
                total = losses[part].sum()
                inner = list(model.parameters())[:1]
                torch.autograd.grad(total, inner, retain_graph=place == 0, allow_unused=True)
        before = mask.reshape(-1)
        seen_tokens += int(before.sum())
        for site in sites:
            value = held[site.partition("@")[0]][:, :-1].flatten(0, 1)[before].double()
            one, two = sums.get(site, (torch.zeros(()), torch.zeros(())))
            sums[site] = (one + value.sum(0), two + (value**2).sum(0))
    if not min(counts):
        raise DataError("the tokens are all of the concept, or none is")
    for found, count in ((concept, counts[0]), (others, counts[1])):
        found.update({site: value / count for site, value in found.items()})
    mean = {site: one / seen_tokens for site, (one, _) in sums.items()}
    deviation = {
        site: (two / seen_tokens - mean[site] ** 2).clamp_min(0).sqrt().float()
        for site, (_, two) in sums.items()
    }
    return concept, others, Usual({s: m.float() for s, m in mean.items()}, deviation)


def choose(
    concept: Mapping[str, Tensor], others: Mapping[str, Tensor], share: float, caution: float = 1.0
) -> Edit:
    """The units whose loss hurts the concept most and other tokens least.

    Args:
        concept: by site what zeroing a unit adds to the concept's loss, ``[units]``.
        others: likewise for other tokens.
        share: of all feed-forward units, in 0..1; at least one.
        caution: weight of what other tokens lose.

    Raises:
        ConfigError: The share is outside 0..1.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"share is {share}; it must be in 0..1")
    sites = list(concept)
    score = torch.cat([concept[s] - caution * others[s].clamp_min(0) for s in sites])
    top = score.topk(max(1, int(share * len(score)))).indices
    return _edit(sites, [len(concept[s]) for s in sites], top)


def draw(concept: Mapping[str, Tensor], count: int, seed: int = 0) -> Edit:
    """As many units at random, for comparison."""
    sites = list(concept)
    sizes = [len(concept[s]) for s in sites]
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(seed))
    return _edit(sites, sizes, order[:count])


def _edit(sites: list[str], sizes: list[int], places: Tensor) -> Edit:
    starts = np.concatenate([[0], np.cumsum(sizes)])
    found = {}
    for site, first, end in zip(sites, starts, starts[1:], strict=False):
        own = places[(places >= int(first)) & (places < int(end))] - int(first)
        if len(own):
            found[site] = own.sort().values
    return Edit(found)


def _losses(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """``[batch, length - 1]``."""
    logits = answer(model, inputs)
    ids = inputs["input_ids"]
    if logits.shape[:2] != ids.shape:
        raise DataError(
            f"{type(model).__name__} answers {tuple(logits.shape)}, no logits per token"
        )
    found = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none"
    )
    return found.reshape(ids.shape[0], -1)
