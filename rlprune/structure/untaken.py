"""Parameters that no forward pass uses: what they would read must keep its size.

The example may take one branch of a forward and other data another. What the other branch reads is
not known, so every unit that it could read is left whole: units along a dimension as long as one of
its parameters' dimensions, met by an op of the module that holds it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rlprune.ops.labels import compress, varying
from rlprune.structure.records import Whole
from rlprune.structure.trace import Tracer
from rlprune.structure.zero_flow import sources

logger = logging.getLogger(__name__)


def leave_readable_whole(tracer: Tracer, model: nn.Module, names: Sequence[str]) -> None:
    """Freeze what unused parameters may read, list their modules, and warn.

    Args:
        tracer: after its last pass.
        model: the traced network.
        names: of the unused parameters.
    """
    modules: dict[str, list[str]] = {}
    for name in names:
        modules.setdefault(name.rpartition(".")[0].split(".parametrizations")[0], []).append(name)
    tensors = dict(zip(tracer.trace.names, tracer.trace.tensors, strict=True))
    for path, owned in modules.items():
        sizes: set[int] = set()
        kernel = isinstance(model.get_submodule(path), _ConvNd)
        for name in owned:
            sizes.update(tensors[name].shape[:2] if kernel else tensors[name].shape)
        place = path if _runs(tracer, path) else path.rpartition(".")[0]
        while place and not _runs(tracer, place):
            place = place.rpartition(".")[0]
        reason = f"'{path or owned[0]}' does not run on the example inputs and may read it"
        for line in _lines(tracer, place, sizes - {1}):
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


def _lines(tracer: Tracer, path: str, sizes: set[int]) -> list[Tensor]:
    """Labels along dimensions of some sizes, of all tensors that ops of a module read or make."""
    steps = tracer.trace.steps
    met: dict[tuple[int, int], None] = {}
    for i, step in enumerate(steps):
        if _within(step.module, path):
            met.update(dict.fromkeys((i, k) for k in range(len(step.shapes))))
            met.update(dict.fromkeys((s.step, s.result) for s in sources(step) if s.step >= 0))
    lines = []
    for i, k in met:
        for raw in steps[i].planes[k]:
            plane = compress(tracer.trace.labels, raw)
            for dim in () if plane is None else varying(plane):
                assert plane is not None
                if steps[i].shapes[k][dim] in sizes:
                    lines.append(plane.movedim(dim, 0).reshape(plane.shape[dim], -1)[:, 0])
    return lines
