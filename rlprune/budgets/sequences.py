"""Costs of networks that read sequences: cache bytes and time for each token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.budgets.base import CostFunction, Estimate
from rlprune.budgets.latency import Latency, LatencyMeter
from rlprune.budgets.metric import METRICS, Metric
from rlprune.budgets.units import BYTES, MILLISECONDS
from rlprune.errors import BudgetError
from rlprune.inputs import ExampleInputs, batch_of, sequences_of
from rlprune.modes import evaluating

if TYPE_CHECKING:
    from rlprune.structure import Groups


def kv_bytes(model: nn.Module, example_inputs: ExampleInputs) -> float:
    """Bytes of the key-value cache for each token of one sequence.

    The network is called with ``use_cache=True``; its cache's tensors are ``[batch, heads, tokens,
    head size]``. Those of an encoder and decoder count for a token of each.

    Args:
        model: A network of transformers that generates.
        example_inputs: A dict of keyword arguments.

    Raises:
        BudgetError: The network keeps no cache.
    """
    return float(sum(_per_token(tensor) for _, tensor in _cache(model, example_inputs)))


def _per_token(tensor: Tensor) -> float:
    batch, _, tokens, _ = tensor.shape
    return tensor.numel() * tensor.element_size() / (batch * tokens)


def _cache(model: nn.Module, example_inputs: ExampleInputs) -> Iterator[tuple[int, Tensor]]:
    """The tensors of a network's cache with the number of their layer.

    It is -1 - layer for those of attention to an encoder.
    """
    if not isinstance(example_inputs, Mapping):
        raise BudgetError("kv_bytes needs example inputs by keyword, as {'input_ids': ...}")
    try:
        with torch.no_grad(), evaluating(model):
            out = model(**{**example_inputs, "use_cache": True})
    except TypeError as error:
        raise BudgetError(f"{type(model).__name__} takes no use_cache: {error}") from error
    cache = getattr(out, "past_key_values", None)
    if cache is None:
        raise BudgetError(f"{type(model).__name__} returns no past_key_values: it keeps no cache")
    parts = [(getattr(cache, "self_attention_cache", cache), False)]
    if hasattr(cache, "cross_attention_cache"):
        parts.append((cache.cross_attention_cache, True))
    for part, crossed in parts:
        for at, layer in enumerate(part.layers):
            for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None)):
                if isinstance(tensor, Tensor) and tensor.numel():
                    yield (-1 - at if crossed else at), tensor


@METRICS.register("kv_bytes")
class KvBytes(Metric):
    """Bytes of the key-value cache for each token.

    Args:
        limit: Share of the dense value (``0.5``, ``"50%"``) or an absolute size (``"12 kB"``).
        name: Shown in reports.
    """

    unit: ClassVar[str] = BYTES.name
    key: ClassVar[str] = "kv_bytes"
    title: ClassVar[str] = "KV cache per token"
    function = staticmethod(kv_bytes)

    def _estimate(self, groups: Groups) -> Estimate | None:
        """Linear in the heads of each layer; None where a layer cannot be told from its name."""
        by_layer: dict[int, float] = {}
        for layer, tensor in _cache(groups.model, groups.example_inputs):
            by_layer[layer] = by_layer.get(layer, 0.0) + _per_token(tensor)
        share = np.zeros(len(groups.prunable))
        found: set[int] = set()
        for at, group in enumerate(groups.prunable):
            if group.kind != "heads":
                continue
            number = _layer(groups.model, group.name)
            if number is None or number in found or number not in by_layer:
                return None
            found.add(number)
            share[at] = by_layer[number] / group.width
        rest = sum(size for layer, size in by_layer.items() if layer not in found)
        return Estimate(
            one=lambda widths: float(rest + share @ np.asarray(widths, dtype=np.float64)),
            many=lambda widths: rest + np.asarray(widths, dtype=np.float64) @ share,
        )


def _layer(model: nn.Module, path: str) -> int | None:
    """The number of the cache's layer that an attention writes; None where it says none."""
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return None
    while path:
        path = path.rpartition(".")[0]
        index = getattr(model.get_submodule(path), "layer_idx", None)
        if isinstance(index, int):
            return index
    return None


class _TokenMeter:
    """Times candidates beside the dense network, in milliseconds for each token."""

    def __init__(self, meter: LatencyMeter, tokens: int) -> None:
        self.meter, self.tokens = meter, tokens

    def __call__(self, candidate: nn.Module, example_inputs: ExampleInputs) -> float:
        return self.meter(candidate, example_inputs) / self.tokens

    def with_reference(self, token_ms: float) -> _TokenMeter:
        """The same meter stating its values against another reference."""
        return _TokenMeter(self.meter.with_reference(token_ms * self.tokens), self.tokens)


@METRICS.register("token_ms")
class TokenMs(Latency):
    """Measured time for each token of a batch, in milliseconds.

    1000 over it are tokens per second: at least 500 of them are a limit of ``"2 ms"``, and half as
    many again as the dense network's one of ``"66.7%"``. The other arguments are those of
    `Latency`.
    """

    key: ClassVar[str] = "token_ms"
    title: ClassVar[str] = "time per token"
    field: ClassVar[str] = ""
    unit: ClassVar[str] = MILLISECONDS.name

    def _bind(self, model: nn.Module, example_inputs: ExampleInputs) -> CostFunction:
        inputs = batch_of(example_inputs, self.settings.batch_size)
        ids = sequences_of(inputs)
        tokens = int(ids.shape[0] * ids.shape[1])
        return _TokenMeter(LatencyMeter(model, inputs, self.settings), tokens)
