"""Which zeros a kernel or a file format can use: anywhere, n of every m, whole blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from rlprune.errors import ConfigError

_N_OF_M = re.compile(r"(\d+):(\d+)")
_BLOCK = re.compile(r"block:(\d+)x(\d+)")


@dataclass(frozen=True)
class Pattern:
    """Where zeros may lie in a weight seen as ``[outputs, inputs]``.

    Attributes:
        kept: Non-zeros in every run of ``run`` inputs; 0 where there is no such rule.
        run: Length of a run, 0 where there is no such rule.
        block: Rows and columns that are zero or not together.
    """

    kept: int = 0
    run: int = 0
    block: tuple[int, int] = (1, 1)

    @staticmethod
    def parse(text: str) -> Pattern:
        """Read ``"unstructured"``, ``"2:4"`` (two non-zeros of every four), ``"block:16x16"``.

        Raises:
            ConfigError: It is none of these, or the numbers make no sense.
        """
        if text == "unstructured":
            return Pattern()
        if found := _N_OF_M.fullmatch(text):
            kept, run = int(found[1]), int(found[2])
            if 0 < kept < run:
                return Pattern(kept=kept, run=run)
        if found := _BLOCK.fullmatch(text):
            rows, columns = int(found[1]), int(found[2])
            if rows > 0 and columns > 0:
                return Pattern(block=(rows, columns))
        raise ConfigError(
            f"pattern {text!r} is unknown; write 'unstructured', n:m with n < m such as '2:4', or "
            "a block such as 'block:16x16'"
        )

    @property
    def sparsity(self) -> float | None:
        """The share of zeros that the pattern itself fixes; None where it is free."""
        return 1 - self.kept / self.run if self.run else None

    def misfit(self, rows: int, columns: int) -> str:
        """Why a weight of this size cannot have the pattern; "" where it can."""
        if self.run and columns % self.run:
            return f"{columns} inputs are no multiple of {self.run}"
        if rows % self.block[0] or columns % self.block[1]:
            high, wide = self.block
            return f"{rows} x {columns} weights do not divide into blocks of {high} x {wide}"
        return ""

    def pooled(self, scores: Tensor) -> Tensor:
        """One score for what is removed together: sums over blocks.

        Args:
            scores: ``[rows, columns]``.

        Returns:
            ``[rows / block rows, columns / block columns]``.
        """
        high, wide = self.block
        if self.block == (1, 1):
            return scores
        rows, columns = scores.shape
        return scores.reshape(rows // high, high, columns // wide, wide).sum((1, 3))

    def spread(self, mask: Tensor) -> Tensor:
        """A mask over what is removed together as one over weights."""
        high, wide = self.block
        return mask.repeat_interleave(high, 0).repeat_interleave(wide, 1)

    def mask(self, scores: Tensor, sparsity: float, *, rows_alike: bool = False) -> Tensor:
        """Keep the highest scores.

        Args:
            scores: ``[rows, columns]``, the higher the more a weight matters.
            sparsity: Share of zeros; without meaning for n:m, which fixes it.
            rows_alike: Whether every row gets the same number of zeros.

        Returns:
            ``[rows, columns]`` bool, True where the weight stays.
        """
        if self.run:
            runs = scores.reshape(scores.shape[0], -1, self.run)
            best = runs.topk(self.kept, dim=2).indices
            return torch.zeros_like(runs, dtype=torch.bool).scatter_(2, best, True).view_as(scores)
        pooled = self.pooled(scores)
        flat = pooled if rows_alike else pooled.reshape(1, -1)
        gone = round(sparsity * flat.shape[1])
        order = flat.argsort(dim=1, stable=True)[:, :gone]
        kept = torch.ones_like(flat, dtype=torch.bool).scatter_(1, order, False)
        return self.spread(kept.view_as(pooled))
