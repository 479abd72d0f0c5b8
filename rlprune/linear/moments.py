"""Second moments of what consumers read in the dense network, from one pass over its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlprune.batches import Batch
from rlprune.errors import DataError
from rlprune.inputs import batch_size, call
from rlprune.linear.patches import patch_corners, patches
from rlprune.linear.weights import Consumer, consumers
from rlprune.modes import evaluating

if TYPE_CHECKING:
    from rlprune.structure import Groups

_Conv = nn.modules.conv._ConvNd


@dataclass
class Moments:
    """``sum x x^T`` of one consumer's inputs over two halves of the samples.

    Attributes:
        consumer: the weight.
        halves: [n, n] float64 each; the last input is the constant 1 where there is an intercept.
        rows: number of rows in each.
    """

    consumer: Consumer
    halves: list[Tensor] = field(default_factory=list)
    rows: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, rows: Tensor, first: int) -> None:
        """Add rows [samples, positions, n]; samples are dealt out in turn, from half ``first``."""
        if self.consumer.intercept:
            rows = torch.cat([rows, torch.ones_like(rows[..., :1])], 2)
        if not self.halves:
            size = rows.shape[2]
            kind = torch.float32 if rows.device.type == "mps" else torch.float64
            self.halves = [
                torch.zeros(size, size, dtype=kind, device=rows.device) for _ in range(2)
            ]
        for half in range(2):
            part = rows[(half + first) % 2 :: 2].flatten(0, 1)
            self.halves[half] += part.T @ part
            self.rows[half] += part.shape[0]

    @property
    def finite(self) -> bool:
        """Whether no input was infinite or not a number."""
        return all(bool(torch.isfinite(half).all()) for half in self.halves)

    def mean(self, *halves: int) -> Tensor:
        """``E[x x^T]`` over the given halves, float64 on the CPU."""
        total = sum(self.halves[h] for h in halves)
        assert isinstance(total, Tensor)
        return total.cpu().double() / max(1, sum(self.rows[h] for h in halves))


class InputMoments:
    """Moments of every consumer of a dense network.

    Args:
        groups: the dense network's groups; the network runs in eval mode, forward hooks are taken
            off afterwards.
        batches: calibration batches.
        patch_limit: see `consumers`.
        limit: see `consumers`.
        rows: rows sampled per consumer over all batches, at least 16 per input.
        seed: of the sampled positions.

    Attributes:
        found: by weight name.
        left_out: weights that stay as they are, with the reason.
        images: number of calibration samples.

    Raises:
        DataError: there is no batch.
    """

    def __init__(
        self,
        groups: Groups,
        batches: Sequence[Batch],
        *,
        patch_limit: int = 1200,
        limit: int = 4608,
        rows: int = 16384,
        seed: int = 0,
    ) -> None:
        if not batches:
            raise DataError("fits by least squares need calibration data; pass at least one batch")
        self.images = sum(batch_size(inputs) for inputs, _ in batches)
        self._rows = rows
        self._generator = torch.Generator().manual_seed(seed)
        self._seen = 0
        self._batch = 0
        wanted, self.left_out = consumers(groups, patch_limit, limit)
        self.found = {c.name: Moments(c) for c in wanted}
        handles = [
            m.consumer.module.register_forward_pre_hook(self._hook(m)) for m in self.found.values()
        ]
        try:
            with torch.no_grad(), evaluating(groups.model):
                for inputs, _ in batches:
                    self._batch = batch_size(inputs)
                    call(groups.model, inputs)
                    self._seen += self._batch
        finally:
            for handle in handles:
                handle.remove()
        for name in [n for n, m in self.found.items() if not m.halves]:
            del self.found[name]
            self.left_out[name] = "its module is not called by itself"

    def _hook(self, moments: Moments) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        consumer = moments.consumer
        inputs = consumer.inputs

        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].detach()
            x = x if x.dtype in (torch.float32, torch.float64) else x.float()
            share = max(self._rows, 16 * inputs) * self._batch / self.images
            moments.add(self._sample(consumer, module, x, share), self._seen % 2)

        return hook

    def _sample(self, consumer: Consumer, module: nn.Module, x: Tensor, share: float) -> Tensor:
        """About ``share`` rows of a consumer's input, [samples, positions, n]."""
        if consumer.form == "patches":
            assert isinstance(module, nn.Conv2d)
            count = max(1, round(share / x.shape[0]))
            corners = patch_corners(module, x.shape)
            if len(corners) > count:
                corners = corners[torch.randint(len(corners), (count,), generator=self._generator)]
            return patches(module, x, corners)
        if isinstance(module, _Conv):
            x = x.movedim(1, -1)
        samples = x.shape[0] if x.ndim > 1 and x.shape[0] % self._batch == 0 else 1
        rows = x.reshape(samples, -1, x.shape[-1])
        count = max(1, round(share / samples))
        if rows.shape[1] <= count:
            return rows
        at = torch.randint(rows.shape[1], (count,), generator=self._generator)
        return rows[:, at.to(x.device)]
