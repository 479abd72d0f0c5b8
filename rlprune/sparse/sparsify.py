"""Unstructured, n:m and block sparsity: zeros inside tensors that keep their shape."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.batches import as_batches
from rlprune.errors import ConfigError, DataError
from rlprune.sparse.inputs import input_moments
from rlprune.sparse.layers import Layer, layers
from rlprune.sparse.obs import solve
from rlprune.sparse.pattern import Pattern

logger = logging.getLogger(__name__)

METHODS = ("magnitude", "wanda", "obs")
SCOPES = ("global", "layer")


def sparsify(
    model: nn.Module,
    example_inputs: Any,
    sparsity: float = 0.5,
    method: str = "magnitude",
    pattern: str = "unstructured",
    data: Any = None,
    *,
    scope: str = "global",
    exclude: Sequence[str] = (),
    stages: int = 8,
    progress: bool | None = None,
) -> nn.Module:
    """Set the least important weights of a network to zero.

    The tensors keep their shapes: on ordinary hardware the result is neither faster nor, unless it
    is stored by :func:`rlprune.save_sparse`, smaller. For a network that is both, remove whole
    units (:func:`rlprune.prune`). A 2:4 pattern is what sparse tensor cores of recent GPUs run
    (``torch.sparse.to_sparse_semi_structured``).

    Args:
        model: The network; not changed.
        example_inputs: What it is called with.
        sparsity: Share of zeros in the weights of linear layers and convolutions, in [0, 1).
            An n:m pattern fixes it and ignores this.
        method: ``magnitude``: the smallest weights go (Han et al., 2015). ``wanda``: weight times
            the norm of what it multiplies, compared within each output (Sun et al., ICLR 2024).
            ``obs``: layer-wise Optimal Brain Surgeon that updates the weights that stay (SparseGPT,
            Frantar and Alistarh, ICML 2023).
        pattern: ``unstructured``, n:m such as ``2:4`` (two non-zeros of every four inputs), or a
            block such as ``block:16x16``.
        data: Calibration inputs for ``wanda`` and ``obs``, in any form that
            :func:`rlprune.batches.as_batches` reads.
        scope: For ``magnitude`` without an n:m pattern: whether weights compete across the whole
            network (``global``) or within their layer (``layer``).
        exclude: Module-name globs of layers to leave dense.
        stages: For ``wanda`` and ``obs``: passes over the data. In each the inputs of the next
            share of layers, in execution order, are read behind those that are sparse already.
        progress: Whether to draw a bar; None draws it on a terminal.

    Returns:
        A copy with zeros, in the mode of ``model``. Layers left dense are logged with the reason.

    Raises:
        ConfigError: An option is unknown or out of range, or no layer can be made sparse.
        DataError: The method needs data and there is none.
    """
    pattern_ = Pattern.parse(pattern)
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is unknown; choose one of {', '.join(METHODS)}")
    if scope not in SCOPES:
        raise ConfigError(f"scope {scope!r} is unknown; choose one of {', '.join(SCOPES)}")
    if not 0 <= sparsity < 1:
        raise ConfigError(f"sparsity is {sparsity}; it must be in [0, 1)")
    if stages < 1:
        raise ConfigError(f"stages is {stages}; it must be at least 1")
    result = copy.deepcopy(model)
    chosen, left = layers(result, exclude)
    for path in list(chosen):
        layer = chosen[path]
        reason = pattern_.misfit(layer.matrix(layer.weight).shape[0], layer.runs())
        if reason:
            left[path] = reason
            del chosen[path]
    for path, reason in left.items():
        logger.info("layer '%s' stays dense: %s", path, reason)
    if not chosen:
        raise ConfigError(
            "no layer can be made sparse: " + "; ".join(f"{p}: {r}" for p, r in left.items())
        )
    if method == "magnitude":
        _by_magnitude(chosen, pattern_, sparsity, scope)
        return result
    batches = as_batches(data)
    if not batches:
        raise DataError(f"method {method!r} needs calibration data; pass data=...")
    found = input_moments(result, chosen, batches, method == "obs", stages, progress)
    _by_inputs(found, pattern_, sparsity, method)
    return result


def _by_magnitude(chosen: dict[str, Layer], pattern: Pattern, sparsity: float, scope: str) -> None:
    scores = {path: layer.matrix(layer.weight.detach()).abs() for path, layer in chosen.items()}
    if scope == "layer" or pattern.run:
        for path, layer in chosen.items():
            _write(layer, pattern.mask(scores[path].float(), sparsity))
        return
    pooled = {path: pattern.pooled(score.float()) for path, score in scores.items()}
    every = torch.cat([score.reshape(-1).cpu() for score in pooled.values()])
    kept = torch.ones(len(every), dtype=torch.bool)
    kept[every.argsort(stable=True)[: round(sparsity * len(every))]] = False
    parts = kept.split([score.numel() for score in pooled.values()])
    for (path, layer), part in zip(chosen.items(), parts, strict=True):
        _write(layer, pattern.spread(part.view_as(pooled[path]).to(layer.weight.device)))


def _by_inputs(
    found: Iterator[tuple[Layer, Tensor]], pattern: Pattern, sparsity: float, method: str
) -> None:
    for layer, moments in found:
        weight = layer.matrix(layer.weight.detach())
        if method == "wanda":
            scores = weight.float().abs() * moments.clamp_min(0).sqrt()[None]
            alike = pattern.block == (1, 1)
            _write(layer, pattern.mask(scores, sparsity, rows_alike=alike))
        else:
            with torch.no_grad():
                layer.weight.copy_(layer.stored(solve(weight, moments, pattern, sparsity)))


def _write(layer: Layer, kept: Tensor) -> None:
    """Zero what a mask over ``layer.matrix`` does not keep."""
    with torch.no_grad():
        layer.weight.mul_(layer.stored(kept.to(layer.weight.dtype)))
