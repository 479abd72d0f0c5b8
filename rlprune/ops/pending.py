"""Reasons to freeze units that hold only if somebody uses a result.

A mean over heads (the averaged weights that attention returns) depends on all of them, but is often
thrown away. What is computed from such a result carries the reason along; units are frozen once it
reaches an output of the network, Python code that looks at values, or memory written in place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from rlprune.ops.labels import Labels

LONGEST = 8
"""Reasons carried along at most; more of them are certain to matter."""


class Pending:
    """Reasons that tensors carry, each with the units it would freeze."""

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._reasons: list[tuple[np.ndarray, str]] = []
        self._carried: Any = WeakIdKeyDictionary()

    def hold(self, results: list[Tensor], units: np.ndarray, reason: str) -> None:
        """Freeze ``units`` for ``reason`` if one of ``results`` is used."""
        self._reasons.append((units, reason))
        for result in results:
            carried = self._carried.get(result, frozenset()) | {len(self._reasons) - 1}
            self._carry(result, carried)

    def follow(self, func: Any, inputs: list[Tensor], results: list[Tensor]) -> None:
        """Carry the reasons of an op's inputs to its results."""
        if not len(self._carried):
            return
        carried = frozenset().union(*(self._carried.get(x, ()) for x in inputs))
        if not carried:
            return
        if not results or func._schema.is_mutable:
            self._freeze(carried)
            return
        for result in results:
            self._carry(result, carried)

    def use(self, tensor: Tensor) -> None:
        """A tensor leaves the trace: what it depends on is used."""
        self._freeze(self._carried.get(tensor, frozenset()))

    def _carry(self, result: Tensor, carried: frozenset[int]) -> None:
        if len(carried) > LONGEST:
            self._freeze(carried)
            carried = frozenset()
        self._carried[result] = carried

    def _freeze(self, carried: frozenset[int]) -> None:
        for k in sorted(carried):
            self._labels.freeze(*self._reasons[k])
