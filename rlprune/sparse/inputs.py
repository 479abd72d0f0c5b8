"""What layers read, as second moments, behind layers that are sparse already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from torch import Tensor, nn

from rlprune.batches import Batch
from rlprune.observe import Observation, Site, stream
from rlprune.progress import track
from rlprune.sparse.layers import Layer


def input_moments(
    model: nn.Module,
    layers: dict[str, Layer],
    batches: Sequence[Batch],
    full: bool,
    stages: int,
    progress: bool | None = None,
) -> Iterator[tuple[Layer, Tensor]]:
    """Second moments of every layer's inputs, in execution order.

    Layers are taken in ``stages`` shares; the network is run once for each, so whoever changes the
    weights of a layer when it is handed out changes what later shares read. Padding, where the
    inputs hold an ``attention_mask``, does not count. A layer that no input reaches is passed over.

    Args:
        model: The network that holds the layers; run in eval mode.
        layers: By path.
        batches: Calibration batches.
        full: Whether to give ``[inputs, inputs]`` instead of its diagonal.
        stages: Passes over the data.
        progress: Whether to draw a bar.

    Yields:
        A layer, and the sum over positions of the outer product of what it reads, or of its
        squares ``[inputs]``; float32.
    """
    order = _order(model, layers, batches[:1])
    size = -(-len(order) // stages)
    shares = [order[at : at + size] for at in range(0, len(order), size)]
    for share in track(shares, "calibration", show=progress):
        sums: dict[str, Tensor] = {}
        sinks = {
            Site(path, "input"): partial(_add, sums, path, layers[path], full) for path in share
        }
        stream(model, batches, sinks)
        for path in share:
            yield layers[path], sums.pop(path)


def _order(model: nn.Module, layers: dict[str, Layer], batches: Sequence[Batch]) -> list[str]:
    """Paths of the layers in the order in which they are first called."""
    seen: dict[str, None] = {}

    def note(observation: Observation) -> None:
        seen.setdefault(observation.site.path)

    stream(model, batches, {Site(path, "input"): note for path in layers})
    return list(seen)


def _add(
    sums: dict[str, Tensor], path: str, layer: Layer, full: bool, observation: Observation
) -> None:
    x, mask = observation.value, observation.mask
    if mask is not None and x.ndim == 3 and mask.shape == x.shape[:2]:
        x = x[mask.to(x.device)]
    rows = layer.rows(x).float()
    part = rows.T @ rows if full else rows.square().sum(0)
    sums[path] = sums[path] + part if path in sums else part
