"""Constants that follow a size: tensors of one value along some dimensions.

A mask built by ``zeros`` or ``expand`` has as many heads as the attention it meets, and the same
value for each: meeting it does not fix the number of heads. Noise is alike: its values are drawn in
the same way for every position. All units that meet one such size are joined, since it can follow
only one of them. Only a tensor's history counts, never its values; the compacted network's run
proves that the size did follow.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from rlprune.ops.labels import Labels
from rlprune.ops.record import Makes, Moves, Op


class Size:
    """A size that some constants share, and the units that met it first."""

    def __init__(self) -> None:
        self.same: Size = self
        self.line: Tensor | None = None

    def root(self) -> Size:
        """The size that stands for all sizes known to be the same."""
        return self if self.same is self else self.same.root()


class Uniform:
    """Remembers along which dimensions unlabelled tensors hold one value."""

    def __init__(self) -> None:
        self._sizes: Any = WeakIdKeyDictionary()

    def sizes(self, tensor: Tensor, ndim: int) -> dict[int, Size]:
        """Dimensions (of the tensor broadcast to ``ndim``) that hold one value."""
        shift = ndim - tensor.ndim
        return {d + shift: s for d, s in self._sizes.get(tensor, {}).items()}

    def note(self, op: Op, func: Any, inputs: list[Tensor], results: list[Tensor]) -> None:
        """Follow one op, ``func`` with record ``op``, on unlabelled tensors."""
        made = op.makes is not Makes.NOTHING
        if func._schema.is_mutable:
            alone = op.pointwise and all(x.numel() == 1 for x in inputs[1:])
            if not (in_full(inputs[0]) and (alone or made or op.random)):
                self._forget(inputs[:1])
            return
        for result in results:
            long = [d for d, n in enumerate(result.shape) if n > 1]
            if made or (op.random and not inputs):
                self._sizes[result] = {d: Size() for d in long}
            elif op.moves is Moves.REPEATS:
                source = inputs[0]
                shape = (1,) * (result.ndim - source.ndim) + tuple(source.shape)
                known = self.sizes(source, result.ndim)
                found = {d: Size() for d in long if shape[d] == 1}
                self._sizes[result] = {**known, **found}
            elif (op.moves is Moves.COPIES or op.pointwise) and not op.random:
                self._sizes[result] = self._common(inputs, result.ndim, long)

    def _common(self, inputs: list[Tensor], ndim: int, long: list[int]) -> dict[int, Size]:
        """Dimensions along which every operand is uniform."""
        out = {}
        for d in long:
            full = [t for t in inputs if d >= ndim - t.ndim and t.shape[d - ndim] > 1]
            sizes = [self.sizes(t, ndim).get(d) for t in full]
            first = sizes[0] if sizes else None
            if first is None or None in sizes:
                continue
            for other in sizes[1:]:
                if other is not None and other.root() is not first.root():
                    if other.root().line is not None and first.root().line is not None:
                        break
                    if first.root().line is None:
                        first.root().line = other.root().line
                    other.root().same = first.root()
            else:
                out[d] = first
        return out

    def _forget(self, written: list[Tensor]) -> None:
        """What is written into may vary afterwards, and so may all that share its memory."""
        for tensor in written:
            memory = tensor.untyped_storage()._cdata
            for known in list(self._sizes):
                if known.untyped_storage()._cdata == memory:
                    del self._sizes[known]


def in_full(tensor: Tensor) -> bool:
    """Whether a tensor is all of its memory, so that writing into it leaves nothing else there."""
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()


def meet(labels: Labels, size: Size, plane: Tensor, reason: str) -> None:
    """Units met a constant of this size: join them with those that met it before."""
    root = size.root()
    line = plane.reshape(-1)
    if root.line is None:
        root.line = line
    else:
        labels.union(root.line.numpy(), line.numpy(), reason)
