"""What triggers every feed-forward unit: the windows on which its coefficient is largest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.analysis.parts import Layer, layers
from rlprune.batches import as_batches
from rlprune.errors import DataError
from rlprune.observe import Observation, Sink, rows, stream
from rlprune.progress import track

_BATCH = 2048
_LATEST = 2**31 - 1


@dataclass(frozen=True)
class TopWindows:
    """The rows that trigger every unit most, by layer.

    Rows are the tokens that are no padding, counted over all batches, as in a corpus or recording.

    Attributes:
        layers: the layers.
        rows: of every layer ``[units, k]`` int64, the highest first; of gated layers
            ``[2, units, k]``, the second plane holding the most negative coefficients.
        values: the coefficients there, likewise, float32.
    """

    layers: tuple[Layer, ...]
    rows: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


def top_windows(model: nn.Module, batches: Any, k: int = 50) -> TopWindows:
    """The ``k`` tokens on which every feed-forward unit's coefficient is largest.

    Coefficients are what the second projection reads: behind the activation, and the gate where
    there is one (Geva, Schuster, Berant, Levy, EMNLP 2021). The result does not depend on how
    windows were batched or padded, to the last bit: they are batched anew, by length and without
    padding. Equal coefficients stand in the order of rows.

    Args:
        model: the network.
        batches: mappings with ``input_ids`` and, where there is padding, ``attention_mask``.
        k: how many; fewer where there are fewer tokens.

    Raises:
        DataError: A batch has no ``input_ids``, or there is none.
        StructureError: The network has no blocks with feed-forward networks.
    """
    found = layers(model)
    windows = unpadded(batches)
    best: dict[str, list[Tensor]] = {}
    current: list[Tensor] = []

    def sink(gated: bool) -> Sink:
        def look(seen: Observation) -> None:
            values = rows(seen).float()
            for side, signed in enumerate((values, -values) if gated else (values,)):
                planes = best.setdefault(str(seen.site), [])
                keys = _keys(signed, current[0])
                if side < len(planes):
                    keys = torch.cat([planes[side], keys], 1)
                top = keys.topk(min(k, keys.shape[1]), 1).values
                if side < len(planes):
                    planes[side] = top
                else:
                    planes.append(top)

        return look

    def told() -> Iterator[Any]:
        for inputs, at in track(list(even(windows)), "top windows"):
            current[:] = [at]
            yield inputs, None

    sites = {str(layer.site("ffn")): sink(bool(layer.gate)) for layer in found}
    stream(model, told(), dict(sites))
    at, values = [], []
    for layer in found:
        planes = next(p for s, p in best.items() if s.partition("#")[0] == str(layer.site("ffn")))
        numbers, sizes = zip(*(_read(plane) for plane in planes), strict=True)
        signs = [1.0, -1.0]
        at.append(torch.stack(numbers) if layer.gate else numbers[0])
        signed = [sign * size for sign, size in zip(signs, sizes, strict=False)]
        values.append(torch.stack(signed) if layer.gate else signed[0])
    return TopWindows(tuple(found), tuple(at), tuple(values))


def unpadded(batches: Any) -> list[np.ndarray]:
    """The windows of some batches without their padding, in order.

    Raises:
        DataError: A batch has no ``input_ids``, or there is none.
    """
    windows = []
    for inputs, _ in as_batches(batches):
        if not isinstance(inputs, dict) or "input_ids" not in inputs:
            raise DataError("top windows need batches that are mappings with 'input_ids'")
        ids = inputs["input_ids"]
        mask = inputs.get("attention_mask", torch.ones_like(ids)).bool()
        windows += [row[kept].cpu().numpy() for row, kept in zip(ids, mask, strict=True)]
    windows = [window for window in windows if len(window)]
    if not windows:
        raise DataError("there is no batch to look at")
    return windows


def even(windows: Sequence[np.ndarray]) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Batches of windows of equal length, and the rows of their tokens, ``[tokens]``."""
    starts = np.concatenate([[0], np.cumsum([len(window) for window in windows])])
    by_length: dict[int, list[int]] = {}
    for number, window in enumerate(windows):
        by_length.setdefault(len(window), []).append(number)
    for length in sorted(by_length):
        size = max(1, _BATCH // length)
        for first in range(0, len(by_length[length]), size):
            chosen = by_length[length][first : first + size]
            ids = torch.from_numpy(np.stack([windows[number] for number in chosen]))
            at = np.concatenate([np.arange(length) + starts[number] for number in chosen])
            mask = torch.ones_like(ids)
            yield {"input_ids": ids, "attention_mask": mask}, torch.from_numpy(at)


def _keys(values: Tensor, at: Tensor) -> Tensor:
    """Values and rows as whole numbers that sort by value, then row, ``[units, rows]``."""
    bits = values.T.contiguous().view(torch.int32)
    bits = bits ^ ((bits >> 31) & _LATEST)
    return (bits.long() << 32) | (_LATEST - at)


def _read(keys: Tensor) -> tuple[Tensor, Tensor]:
    bits = (keys >> 32).int()
    bits = bits ^ ((bits >> 31) & _LATEST)
    return _LATEST - (keys & _LATEST), bits.view(torch.float32)
