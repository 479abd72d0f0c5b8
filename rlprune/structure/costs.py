"""Cost polynomials: multiply-accumulates and parameters as exact functions of the widths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
from torch import Tensor, nn

from rlprune.once import Once
from rlprune.structure.groups import Group, Polynomial
from rlprune.structure.records import Branch, Trace


def cost_polynomials(
    model: nn.Module,
    trace: Trace,
    prunable: Sequence[Group],
    members: Mapping[str, np.ndarray],
    batch: int,
    branches: Callable[[], Sequence[Branch]] = tuple,
) -> dict[str, Polynomial]:
    """Multiply-accumulates of one sample ("macs") and number of parameters ("params").

    Args:
        model: the network.
        trace: of its forward pass, over ``batch`` samples.
        prunable: groups whose widths are the variables, in order.
        members: root labels of every group's units.
        batch: samples in the traced inputs.
        branches: finds those that cost nothing when their groups keep nothing; called when one
            does.
    """
    columns = partial(branch_columns, [group.name for group in prunable], branches)
    roots = trace.labels.roots()
    column = np.full(len(trace.labels), -1, dtype=np.int64)
    for c, group in enumerate(prunable):
        column[members[group.name]] = c
    widths = np.array([g.width for g in prunable], dtype=np.float64)
    macs = Terms(column, roots, widths, columns)
    macs.add_contractions(trace, batch)
    params = Terms(column, roots, widths, columns)
    touched = labels_by_tensor(trace)
    parameters = {n for n, _ in model.named_parameters(remove_duplicate=False)}
    for i, (name, tensor) in enumerate(zip(trace.names, trace.tensors, strict=True)):
        if name in parameters:
            rows = touched.get(i, [])
            scale = tensor.numel() / float(np.prod([len(r) for r in rows] or [1]))
            params.add(rows, scale, name)
    return {"macs": macs.polynomial(), "params": params.polynomial()}


def labels_by_tensor(trace: Trace) -> dict[int, list[np.ndarray]]:
    """Labels along every labelled dimension of a parameter or buffer, by its number."""
    found: dict[int, list[np.ndarray]] = {}
    for origin in trace.labels.origins:
        labels = np.arange(origin.start, origin.start + origin.size)
        found.setdefault(origin.tensor, []).append(labels)
    return found


def branch_columns(
    groups: Sequence[str], branches: Callable[[], Iterable[Branch]], names: Sequence[str]
) -> np.ndarray:
    """First column of the branch that holds each name; -1 where none does.

    Args:
        groups: names of the prunable groups, in order.
        branches: finds those that may be dropped.
        names: of modules or tensors.
    """
    column = {group: at for at, group in enumerate(groups)}
    found = list(branches())
    first = {b.name: min(column[g] for g in b.groups) for b in found}
    rows = [next((first[b.name] for b in found if b.holds(name)), -1) for name in names]
    return np.array(rows, dtype=np.int64)


class Terms:
    """Collects products of affine dimension lengths."""

    def __init__(
        self,
        column: np.ndarray,
        roots: np.ndarray,
        widths: np.ndarray,
        columns: Callable[[Sequence[str]], np.ndarray],
    ) -> None:
        self.columns = columns
        self.column, self.roots, self.widths = column, roots, widths
        self.rows: dict[bytes, int] = {}
        self.matrix: list[np.ndarray] = [np.zeros(len(widths))]
        self.offset: list[float] = [1.0]
        self.terms: list[list[int]] = []
        self.scale: list[float] = []
        self.names: list[str] = []

    def add(self, rows: Sequence[np.ndarray], scale: float, name: str) -> None:
        """Add ``scale * prod(length of each row of labels)``, unless what has the name is gone."""
        self.names.append(name)
        self.terms.append([self._row(r) for r in rows])
        self.scale.append(scale)

    def add_contractions(self, trace: Trace, batch: int) -> None:
        """Add the multiply-accumulates of every contraction of a trace, per sample."""
        for contraction in trace.contractions:
            rows, scale = [], 1.0 / batch
            for factor in contraction.factors:
                scale *= factor.size
                for line in self.distinct(factor.lines):
                    rows.append(line)
                    scale /= factor.size
            self.add(rows, scale, contraction.module)

    def distinct(self, lines: Sequence[Tensor]) -> list[np.ndarray]:
        """Lines along which different prunable units lie, each choice of units once."""
        found: dict[bytes, np.ndarray] = {}
        for line in lines:
            roots = self.roots[line.numpy()]
            roots = np.where(self.column[roots] >= 0, roots, 0)
            if (roots != roots[0]).any():
                found.setdefault(roots.tobytes(), line.numpy())
        return list(found.values())

    def _row(self, labels: np.ndarray) -> int:
        columns = np.where(labels > 0, self.column[self.roots[labels]], -1)
        counts = np.bincount(columns[columns >= 0], minlength=len(self.widths))
        affine = counts / np.maximum(self.widths, 1)
        offset = float((columns < 0).sum())
        key = affine.tobytes() + np.float64(offset).tobytes()
        if key not in self.rows:
            self.rows[key] = len(self.matrix)
            self.matrix.append(affine)
            self.offset.append(offset)
        return self.rows[key]

    def polynomial(self) -> Polynomial:
        """Their sum."""
        deep = max((len(t) for t in self.terms), default=0)
        terms = np.zeros((len(self.terms), max(deep, 1)), dtype=np.int64)
        for i, t in enumerate(self.terms):
            terms[i, : len(t)] = t
        return Polynomial(
            np.stack(self.matrix),
            np.array(self.offset),
            terms,
            np.array(self.scale),
            Once(partial(self.columns, tuple(self.names))),
        )
