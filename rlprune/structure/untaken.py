"""Parameters that no forward pass uses: what they would read must keep its size.

The example may take one branch of a forward and other data another. What the other branch reads is
not known, so every unit that it could read is left whole: units along a dimension as long as one of
its parameters' dimensions (or that flattening makes so long), met by an op of the module that holds
it; all of them where no dimension is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import mul
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._pytree import tree_leaves

from rlprune.ops.labels import compress, varying
from rlprune.structure.records import Whole
from rlprune.structure.trace import Tracer
from rlprune.structure.zero_flow import sources

logger = logging.getLogger(__name__)


def leave_readable_whole(
    tracer: Tracer, model: nn.Module, names: Sequence[str], example_inputs: Any
) -> None:
    """Freeze what unused parameters may read, list their modules, and warn.

    Args:
        tracer: after its last pass.
        model: the traced network.
        names: of the unused parameters.
        example_inputs: what it was traced with.
    """
    modules: dict[str, list[str]] = {}
    for name in names:
        modules.setdefault(name.rpartition(".")[0].split(".parametrizations")[0], []).append(name)
    tensors = dict(zip(tracer.trace.names, tracer.trace.tensors, strict=True))
    given = {n for x in tree_leaves(example_inputs) if isinstance(x, Tensor) for n in x.shape}
    for path, owned in modules.items():
        module = model.get_submodule(path)
        sizes: set[int] = set()
        for name in owned:
            kernel = isinstance(module, _ConvNd)
            sizes.update(tensors[name].shape[:2] if kernel else tensors[name].shape)
        place = path if _runs(tracer, path) else path.rpartition(".")[0]
        while place and not _runs(tracer, place):
            place = place.rpartition(".")[0]
        reason = f"'{path or owned[0]}' does not run on the example inputs and may read it"
        met = _met(tracer, place)
        read = _read(module, [tensors[name] for name in owned])
        known = given.union(*(n for i, k in met for n in _spans(tracer.trace.steps[i].shapes[k])))
        others = [tensors[n] for n in names if n not in owned and tensors[n].ndim]
        made = {t.shape[0] for t in others} - {1}
        if any(n not in known and all(n % m for m in made) for n in read):
            sizes = known
        for line in _lines(tracer, met, sizes - {1}):
            tracer.trace.labels.freeze(line.numpy(), reason)
        first = tensors[owned[0]]
        width = first.shape[0] if first.ndim else 1
        reason = "it does not run on the example inputs; what it may read is left whole"
        tracer.trace.producers.append(Whole(path or owned[0], width, reason))
    logger.warning(
        "%d parameters are not used on the example inputs (%s%s); they keep their size, and so "
        "does what they may read. Example inputs that use them let it shrink",
        len(names),
        ", ".join(names[:4]),
        ", ..." if len(names) > 4 else "",
    )


def _runs(tracer: Tracer, path: str) -> bool:
    return not path or any(_within(step.module, path) for step in tracer.trace.steps)


def _within(module: str, path: str) -> bool:
    return not path or module == path or module.startswith(f"{path}.")


def _read(module: nn.Module, owned: Sequence[Tensor]) -> set[int]:
    """Sizes of what a module's weights read, for layers of a kind that is known."""
    if isinstance(module, _ConvNd):
        dim = 0 if isinstance(module, _ConvTransposeNd) else 1
        return {t.shape[dim] * (module.groups if dim else 1) for t in owned if t.ndim > 1}
    return {t.shape[1] for t in owned if t.ndim == 2} if isinstance(module, nn.Linear) else set()


def _met(tracer: Tracer, path: str) -> list[tuple[int, int]]:
    """Step and number of all results that ops of a module read or make."""
    met: dict[tuple[int, int], None] = {}
    for i, step in enumerate(tracer.trace.steps):
        if _within(step.module, path):
            met.update(dict.fromkeys((i, k) for k in range(len(step.shapes))))
            met.update(dict.fromkeys((s.step, s.result) for s in sources(step) if s.step >= 0))
    return list(met)


def _spans(shape: Sequence[int]) -> Iterator[set[int]]:
    """For every dimension the sizes that it has by itself or flattened with its neighbours."""
    for dim in range(len(shape)):
        before = [1, *accumulate(shape[dim - 1 : 0 : -1] if dim > 1 else (), mul)]
        after = list(accumulate(shape[dim:], mul))
        yield {a * b for a in before for b in after}


def _lines(tracer: Tracer, met: Sequence[tuple[int, int]], sizes: set[int]) -> list[Tensor]:
    """Labels along dimensions of some results that have one of some sizes, flattened or not."""
    steps = tracer.trace.steps
    lines = []
    for i, k in met:
        for raw in steps[i].planes[k]:
            plane = compress(tracer.trace.labels, raw)
            for dim in () if plane is None else varying(plane):
                assert plane is not None
                if sizes.intersection(list(_spans(steps[i].shapes[k]))[dim]):
                    lines.append(plane.movedim(dim, 0).reshape(plane.shape[dim], -1)[:, 0])
    return lines
