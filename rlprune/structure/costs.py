"""Cost polynomials: multiply-accumulates and parameters as exact functions of the widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from rlprune.structure.groups import Group, Polynomial
from rlprune.structure.records import Branch, Trace


def cost_polynomials(
    model: nn.Module,
    trace: Trace,
    prunable: Sequence[Group],
    members: Mapping[str, np.ndarray],
    batch: int,
    branches: Sequence[Branch] = (),
) -> dict[str, Polynomial]:
    """Multiply-accumulates of one sample ("macs") and number of parameters ("params").

    Args:
        model: the network.
        trace: of its forward pass, over ``batch`` samples.
        prunable: groups whose widths are the variables, in order.
        members: root labels of every group's units.
        batch: samples in the traced inputs.
        branches: that cost nothing when their groups keep nothing.
    """
    first = {b.name: min(k for k, g in enumerate(prunable) if g.branch == b.name) for b in branches}

    def branch_of(name: str) -> int:
        return next((first[b.name] for b in branches if b.holds(name)), -1)

    roots = trace.labels.roots()
    column = np.full(len(trace.labels), -1, dtype=np.int64)
    for c, group in enumerate(prunable):
        column[members[group.name]] = c
    widths = np.array([g.width for g in prunable], dtype=np.float64)
    macs = Terms(column, roots, widths)
    for contraction in trace.contractions:
        rows, scale = [], 1.0 / batch
        for f in contraction.factors:
            scale *= f.size
            for line in macs.distinct(f.lines):
                rows.append(line)
                scale /= f.size
        macs.add(rows, scale, branch_of(contraction.module))
    params = Terms(column, roots, widths)
    touched: dict[int, list[np.ndarray]] = {}
    for origin in trace.labels.origins:
        labels = np.arange(origin.start, origin.start + origin.size)
        touched.setdefault(origin.tensor, []).append(labels)
    parameters = {n for n, _ in model.named_parameters(remove_duplicate=False)}
    for i, (name, tensor) in enumerate(zip(trace.names, trace.tensors, strict=True)):
        if name in parameters:
            rows = touched.get(i, [])
            scale = tensor.numel() / float(np.prod([len(r) for r in rows] or [1]))
            params.add(rows, scale, branch_of(name))
    return {"macs": macs.polynomial(), "params": params.polynomial()}


class Terms:
    """Collects products of affine dimension lengths."""

    def __init__(self, column: np.ndarray, roots: np.ndarray, widths: np.ndarray) -> None:
        self.column, self.roots, self.widths = column, roots, widths
        self.rows: dict[bytes, int] = {}
        self.matrix: list[np.ndarray] = [np.zeros(len(widths))]
        self.offset: list[float] = [1.0]
        self.terms: list[list[int]] = []
        self.scale: list[float] = []
        self.branch: list[int] = []

    def add(self, rows: Sequence[np.ndarray], scale: float, branch: int) -> None:
        """Add ``scale * prod(length of each row of labels)``, unless the branch is dropped."""
        self.branch.append(branch)
        self.terms.append([self._row(r) for r in rows])
        self.scale.append(scale)

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
            np.array(self.branch, dtype=np.int64),
        )
