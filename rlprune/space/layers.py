"""What every layer multiplies, holds, reads and writes, at any widths: what costs are made of."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rlprune.inputs import batch_size
from rlprune.ops import Moves, named
from rlprune.ops.labels import Planes, varying
from rlprune.structure.costs import Terms, branch_columns, labels_by_tensor
from rlprune.structure.records import Operand, Step, Trace

if TYPE_CHECKING:
    from rlprune.structure import Groups
    from rlprune.structure.groups import Polynomial

KINDS = ("macs", "weights", "inputs", "outputs")
"""Per layer and sample: multiply-accumulates; elements of its weights; of what it reads; of its
result."""


class Layers:
    """Sizes of the layers of a network as functions of the widths of its prunable groups.

    A layer is an operation that multiplies; sizes are products of dimension lengths. Lengths may be
    rounded up to a multiple, as hardware does that works in tiles.

    Args:
        groups: the network's groups.
    """

    def __init__(self, groups: Groups) -> None:
        self._polynomials = _polynomials(groups)

    def sizes(self, kind: str, widths: np.ndarray, tile: int = 1) -> np.ndarray:
        """One of the sizes of every layer.

        Args:
            kind: one of :data:`KINDS`.
            widths: ``[P, groups]``.
            tile: lengths that follow a width are rounded up to a multiple of it.

        Returns:
            ``[P, layers]``; 0 in dropped branches.
        """
        return _values(self._polynomials[kind], widths, tile)


def _values(polynomial: Polynomial, widths: np.ndarray, tile: int) -> np.ndarray:
    """The terms of a polynomial ``[P, terms]`` one by one."""
    sizes = np.asarray(widths, dtype=np.float64)
    lengths = sizes @ polynomial.matrix.T + polynomial.offset
    if tile > 1:
        lengths[:, 1:] = np.ceil(lengths[:, 1:] / tile) * tile
    values = lengths[:, polynomial.terms[:, 0]]
    for factor in polynomial.terms.T[1:]:
        values = values * lengths[:, factor]
    values = values * polynomial.scale
    if sizes.all():
        return np.asarray(values)
    present = np.hstack([sizes != 0, np.ones((len(sizes), 1), dtype=bool)])
    return np.asarray(values * present[:, polynomial.branches()])


def _polynomials(groups: Groups) -> dict[str, Polynomial]:
    trace, batch = groups.trace, batch_size(groups.example_inputs)
    column = np.full(len(trace.labels), -1, dtype=np.int64)
    for at, group in enumerate(groups.prunable):
        column[groups.members[group.name]] = at
    roots = trace.labels.roots()
    dense = np.array([group.width for group in groups.prunable], dtype=np.float64)
    names = [group.name for group in groups.prunable]
    columns = partial(branch_columns, names, lambda: groups.branches.values())
    found = {kind: Terms(column, roots, dense, columns) for kind in KINDS}
    found["macs"].add_contractions(trace, batch)
    origins = labels_by_tensor(trace)
    for step in trace.steps:
        record = named(step.op)
        if record is None or record.macs is None or not step.shapes:
            continue
        module = step.module
        sources = [x for x in tree_leaves((step.args, dict(step.kwargs))) if isinstance(x, Operand)]
        held = [at for at in (_parameter(trace, source) for source in sources) if at >= 0]
        weight = max(held, key=lambda at: trace.tensors[at].numel(), default=None)
        rows = [] if weight is None else origins.get(weight, [])
        elements = 0.0 if weight is None else float(trace.tensors[weight].numel())
        scale = elements / float(np.prod([len(row) for row in rows] or [1]))
        found["weights"].add(rows, scale, module)
        read = next((s for s in sources if s.step >= 0 and _parameter(trace, s) < 0), None)
        rows, scale = _lines(step, 0)
        found["outputs"].add(rows, scale / batch, module)
        if read is None:
            found["inputs"].add([], float(np.prod(step.shapes[0])) / batch, module)
        else:
            rows, scale = _lines(trace.steps[read.step], read.result)
            found["inputs"].add(rows, scale / batch, module)
    return {kind: terms.polynomial() for kind, terms in found.items()}


def _parameter(trace: Trace, source: Operand) -> int:
    """Number of the tensor that an operand is, or is a view of; -1 where it was computed."""
    while source.step >= 0:
        step = trace.steps[source.step]
        record = named(step.op)
        inner = [x for x in tree_leaves(step.args) if isinstance(x, Operand)]
        if record is None or record.moves is Moves.NO or not inner:
            return -1
        source = inner[0]
    return source.tensor


def _lines(step: Step, result: int) -> tuple[list[np.ndarray], float]:
    """Labels along the labelled dimensions of a result, and how many elements go with each."""
    shape, planes = step.shapes[result], step.planes[result]
    found: dict[int, np.ndarray] = {}
    for dim, line in _labelled(planes):
        found.setdefault(dim, line)
    scale = float(np.prod(shape)) / float(np.prod([shape[dim] for dim in found] or [1]))
    return list(found.values()), scale


def _labelled(planes: Planes) -> list[tuple[int, np.ndarray]]:
    lines = []
    for plane in planes:
        for dim in varying(plane):
            line: Tensor = plane.movedim(dim, 0).reshape(plane.shape[dim], -1)[:, 0]
            lines.append((dim, line.numpy()))
    return lines
