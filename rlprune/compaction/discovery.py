"""Discovery: groups by tracing, and by trial what a forward cannot follow."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rlprune.compaction.adapters.attributes import attributes_of
from rlprune.compaction.trial import Verdict, try_out
from rlprune.structure.discovery import Discovery
from rlprune.structure.groups import Groups
from rlprune.structure.limits import Bounds, Limits
from rlprune.structure.unwrap import unwrapped

logger = logging.getLogger(__name__)


def discover(
    model: nn.Module,
    example_inputs: Any,
    *,
    exclude: Sequence[str] = (),
    min_width: int = 1,
    round_to: int | Mapping[str, int] = 1,
    bounds: Bounds | None = None,
) -> Groups:
    """Find every group of units of a network by tracing it, and try a smaller network out.

    A network is never refused for a part of it: groups that its forward cannot follow to another
    width are left whole, with the module and the op as the reason.

    Args:
        model: any network; it is not changed and may be in train mode or on ``meta``. Wrappers
            (``DataParallel``, ``torch.compile``, PEFT adapters) are taken off.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.
        exclude: module-name globs; groups with units in a matching module are left whole. A glob
            that matches a module matches all inside it.
        min_width: fewest units any group may keep.
        round_to: kept channels are multiples of it; a number, or globs to numbers (the last match
            counts). The dense width is always allowed.
        bounds: globs to (lowest, highest) keep ratio of matching groups, each in (0, 1]; the last
            match counts.

    Returns:
        The groups in execution order, frozen ones with the reason.

    Raises:
        StructureError: the forward pass failed (names the module), or the model is nothing that
            could be cut: scripted, quantised, no module.
        ConfigError: a glob matches nothing, or a bound is out of range.
    """
    limits = Limits(exclude, min_width, round_to, bounds or {})
    found = Discovery(unwrapped(model), example_inputs, limits)
    draft = found.groups()
    verdict = _tried(draft)
    attributes = attributes_of(draft)
    attributes.enable(r for r in attributes.unsure if (r.kind, r.attribute) in verdict.following)
    attributes.edit(verdict.edits)
    if not (verdict.ties or verdict.whole or verdict.floors):
        return draft
    found.tie(draft, verdict.ties)
    found.freeze(draft, verdict.whole)
    found.hold(draft, verdict.floors)
    groups = found.groups()
    attributes_of(groups).take_over(attributes, found.renamed(draft, groups))
    return groups


_VERDICTS: WeakKeyDictionary[nn.Module, dict[Any, Verdict]] = WeakKeyDictionary()


def _tried(groups: Groups) -> Verdict:
    """The verdict on a network's groups; on the same network in the same form it is kept."""
    known = _VERDICTS.setdefault(groups.model, {})
    key = _form(groups)
    if key not in known:
        known[key] = try_out(groups)
        if known[key].whole:
            logger.info(
                "left whole, as the forward does not follow them: %s",
                "; ".join(f"{n} ({r})" for n, r in known[key].whole.items()),
            )
    return known[key]


def _form(groups: Groups) -> tuple[Any, ...]:
    """What a verdict depends on: classes, plain attributes, shapes and the widths tried."""
    modules = tuple(
        (name, type(module), tuple((k, v) for k, v in vars(module).items() if _plain(v)))
        for name, module in groups.model.named_modules()
    )
    shapes = tuple((n, tuple(t.shape), t.dtype) for n, t in groups.tensors.items())
    inputs = tuple(
        (tuple(x.shape), x.dtype) if isinstance(x, Tensor) else repr(x)
        for x in tree_leaves(groups.example_inputs)
    )
    widths = tuple((g.name, g.min_width, g.max_width, g.divisor) for g in groups.prunable)
    return modules, shapes, inputs, widths


def _plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_plain(x) for x in value)
    return type(value) in (int, float, str, type(None))
