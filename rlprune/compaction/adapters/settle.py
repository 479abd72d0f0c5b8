"""Settling unsure integers: run a small network once and see where its shapes go astray."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rlprune.structure.groups import Groups

if TYPE_CHECKING:
    from rlprune.compaction.adapters.attributes import Attributes
    from rlprune.compaction.adapters.repeats import Repeat

logger = logging.getLogger(__name__)


def settle(groups: Groups, attributes: Attributes) -> None:
    """Enable the unsure integers without which the small network's shapes are wrong.

    The module in which the first wrong shape appears names the suspects; an integer that moves the
    first wrong shape further on (or away) is enabled for every module of that class.
    """
    if not attributes.unsure:
        return
    from rlprune.compaction.build import build
    from rlprune.compaction.departure import first_departure
    from rlprune.compaction.plans import uneven_plan

    plan = uneven_plan(groups)

    def reach(chosen: list[Repeat]) -> tuple[float, str]:
        kept, unsure = list(attributes.repeats), list(attributes.unsure)
        attributes.enable(chosen)
        found = first_departure(groups, build(groups, plan), plan)
        attributes.repeats, attributes.unsure = kept, unsure
        return (float("inf"), "") if found is None else (found.index, found.module)

    best, module = reach([])
    while best != float("inf"):
        suspects = [
            r for r in attributes.unsure if module == r.path or module.startswith(f"{r.path}.")
        ]
        same = [
            [r for r in attributes.unsure if (r.kind, r.attribute) == key]
            for key in dict.fromkeys((r.kind, r.attribute) for r in reversed(suspects))
        ]
        trials = [*same, [r for alike in same for r in alike]] if len(same) > 1 else same
        results = [(*reach(trial), trial) for trial in trials]
        improved = [r for r in results if r[0] > best]
        if not improved:
            return
        best, module, chosen = max(improved, key=lambda r: r[0])
        attributes.enable(chosen)
        logger.debug("%s follows its tensors", {(r.kind.__name__, r.attribute) for r in chosen})
