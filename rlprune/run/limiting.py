"""What the chosen exports leave of the decisions, settled before the search."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from rlprune.compaction import discover
from rlprune.errors import ConfigError
from rlprune.export import Format, Limited, format_of
from rlprune.run.spec import StructureSpec
from rlprune.space.decision import LAYERS
from rlprune.structure import Groups
from rlprune.structure.limits import matches

log = logging.getLogger(__name__)

_KNOWN: WeakKeyDictionary[nn.Module, dict[str, tuple[StructureSpec, tuple[str, ...]]]] = (
    WeakKeyDictionary()
)
_DEPTHS: tuple[bool | str, ...] = (False, LAYERS, True)
"""From least to most."""


def limited(
    structure: StructureSpec, exports: Sequence[str], model: nn.Module, inputs: Any
) -> tuple[StructureSpec, tuple[str, ...]]:
    """Narrow what may be pruned to what every export can say.

    Args:
        structure: as asked for.
        exports: names of formats.
        model: the dense network.
        inputs: what it is called with.

    Returns:
        The narrowed options, and what was limited and why.

    Raises:
        ConfigError: a format cannot say this network, or nothing is left to be pruned.
    """
    formats = {name: format_of(name) for name in exports}
    formats = {n: f for n, f in formats.items() if type(f).limits is not Format.limits}
    if not formats:
        return structure, ()
    known = _KNOWN.setdefault(model, {})
    key = repr((sorted(formats), structure))
    if key not in known:
        groups = discover(model, inputs, **structure.options())
        told: list[str] = []
        narrowed = structure
        for name, chosen in formats.items():
            found = chosen.limits(groups, narrowed.depth)
            narrowed = _narrowed(narrowed, found, groups)
            told += [f"export={name}: {line}" for line in found.told]
        for line in told:
            log.info("%s", line)
        if groups.prunable and all(_whole(narrowed, g.name) for g in groups.prunable):
            raise ConfigError(
                f"export={','.join(formats)} leaves nothing of {type(model).__name__} to be "
                f"pruned: {'; '.join(told)}. Export it as hf_code, onnx or torch_export"
            )
        known[key] = (narrowed, tuple(told))
    return known[key]


def _narrowed(structure: StructureSpec, found: Limited, groups: Groups) -> StructureSpec:
    steps = structure.round_to
    asked = {"*": steps} if isinstance(steps, int) else dict(steps)
    for name, step in found.round_to.items():
        own = next((s for glob, s in reversed(asked.items()) if matches([name], glob)), 1)
        asked[name] = lcm(own, step)
    gone = set(found.exclude)
    return replace(
        structure,
        exclude=tuple(dict.fromkeys((*structure.exclude, *found.exclude))),
        round_to=asked if found.round_to else structure.round_to,
        tie=_joined(
            (*structure.tie, *found.tie), [g for g in groups.prunable if g.name not in gone]
        ),
        depth=min(structure.depth, found.depth, key=_DEPTHS.index),
    )


@dataclass
class _Tie:
    glob: str
    names: frozenset[str]


def _joined(globs: Sequence[str], groups: Sequence[Any]) -> tuple[str, ...]:
    """Ties of which some hold the same groups become one; those without a group left go."""
    ties: list[_Tie] = []
    for glob in globs:
        names = frozenset(
            g.name for g in groups if any(matches([g.name], part) for part in glob.split("|"))
        )
        if not names:
            continue
        joined = _Tie(glob, names)
        for other in [tie for tie in ties if tie.names & names]:
            ties.remove(other)
            same = other.names >= joined.names
            joined = _Tie(
                other.glob if same else f"{other.glob}|{joined.glob}", other.names | joined.names
            )
        ties.append(joined)
    return tuple(tie.glob for tie in ties)


def _whole(structure: StructureSpec, name: str) -> bool:
    return any(matches([name], glob) for glob in structure.exclude)
