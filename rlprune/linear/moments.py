"""Second moments of what consumers read in the dense network, from one pass over its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlprune.batches import Batch
from rlprune.errors import DataError
from rlprune.inputs import batch_size
from rlprune.linear.patches import patch_corners, patches
from rlprune.linear.weights import Consumer, consumers
from rlprune.observe import Observation, Sink, Site, stream
from rlprune.observe.moments import SecondMoments
from rlprune.observe.rows import fitting_mask

if TYPE_CHECKING:
    from rlprune.structure import Groups

_Conv = nn.modules.conv._ConvNd


class SplitMoments:
    """``E[x x^T]`` of one consumer's inputs over two halves of the samples.

    Where there is an intercept the last input is the constant 1.

    Attributes:
        consumer: the weight.
        halves: the moments of each, [n, n].
    """

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.halves = (SecondMoments(), SecondMoments())

    def add(self, rows: Tensor, first: int, mask: Tensor | None = None) -> None:
        """Take in rows.

        Args:
            rows: [samples, positions, n]; samples are dealt out in turn.
            first: the half that the first one goes to.
            mask: [samples, positions], true where a row counts.
        """
        if self.consumer.intercept:
            rows = torch.cat([rows, torch.ones_like(rows[..., :1])], 2)
        if mask is not None:
            rows = rows * mask[..., None]
        for half in range(2):
            mine = slice((half + first) % 2, None, 2)
            count = None if mask is None else int(mask[mine].sum())
            self.halves[half].add(rows[mine].flatten(0, 1), count=count)

    @property
    def rows(self) -> list[int]:
        """Number of rows in each half."""
        return [half.count for half in self.halves]

    @property
    def finite(self) -> bool:
        """Whether no input was infinite or not a number."""
        return all(half.finite for half in self.halves)

    def mean(self, *halves: int) -> Tensor:
        """``E[x x^T]`` over the given halves, float64 on the CPU."""
        total = torch.stack([self.halves[h].sums[0] for h in halves]).sum(0)
        return total / max(1, sum(self.halves[h].count for h in halves))


class InputMoments:
    """Moments of every consumer of a dense network.

    Positions that a batch's ``attention_mask`` calls padding are left out.

    Args:
        groups: the dense network's groups; the network runs in eval mode and is not changed.
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
        wanted, self.left_out = consumers(groups, patch_limit, limit)
        self.found = {c.name: SplitMoments(c) for c in wanted}
        sinks = {Site(c.path, "input"): self._sink(self.found[c.name]) for c in wanted}
        stream(groups.model, batches, sinks)
        for name in [n for n, m in self.found.items() if not any(m.rows)]:
            del self.found[name]
            self.left_out[name] = "its module is not called by itself"

    def _sink(self, moments: SplitMoments) -> Sink:
        consumer = moments.consumer

        def sink(seen: Observation) -> None:
            share = max(self._rows, 16 * consumer.inputs) * seen.samples / self.images
            rows, mask = self._sample(consumer, seen, share)
            moments.add(rows, seen.start % 2, mask)

        return sink

    def _sample(
        self, consumer: Consumer, seen: Observation, share: float
    ) -> tuple[Tensor, Tensor | None]:
        """About ``share`` rows of a consumer's input, [samples, positions, n], and their mask."""
        x = seen.value
        x = x if x.dtype in (torch.float32, torch.float64) else x.float()
        if consumer.form == "patches":
            assert isinstance(consumer.module, nn.Conv2d)
            count = max(1, round(share / x.shape[0]))
            corners = patch_corners(consumer.module, x.shape)
            if len(corners) > count:
                corners = corners[torch.randint(len(corners), (count,), generator=self._generator)]
            return patches(consumer.module, x, corners), None
        if isinstance(consumer.module, _Conv):
            x = x.movedim(1, -1)
        samples = x.shape[0] if x.ndim > 1 and x.shape[0] % seen.samples == 0 else 1
        rows = x.reshape(samples, -1, x.shape[-1])
        mask = fitting_mask(seen)
        mask = None if mask is None else mask.reshape(rows.shape[:2])
        held = rows[..., 0].numel() if mask is None else int(mask.sum())
        count = max(1, round(share * rows.shape[1] / max(1, held)))
        if rows.shape[1] <= count:
            return rows, mask
        at = torch.randint(rows.shape[1], (count,), generator=self._generator).to(x.device)
        return rows[:, at], None if mask is None else mask[:, at]
