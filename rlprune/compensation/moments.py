"""Second moments of what consumers read in the dense network, from one pass over calibration data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlprune.batches import Batch
from rlprune.errors import DataError
from rlprune.inputs import call
from rlprune.modes import evaluating
from rlprune.structure import Groups


def consumers(groups: Groups) -> tuple[dict[str, nn.Module], list[str]]:
    """Modules whose weight reads prunable units, by weight name; and the weights left out.

    Linear layers and ungrouped convolutions can be refitted; the second value names the weights
    that cannot (grouped convolutions, weights used by other kinds of modules).
    """
    found: dict[str, nn.Module] = {}
    left: list[str] = []
    for group in groups.prunable:
        for part in groups.slices(group):
            if part.role != "in" or part.tensor in found or part.tensor in left:
                continue
            path, _, attribute = part.tensor.rpartition(".")
            module = groups.model.get_submodule(path)
            plain_conv = isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
            fits = type(module) is nn.Linear or (plain_conv and module.groups == 1)
            if fits and attribute == "weight" and len(groups.aliases[part.tensor]) == 1:
                found[part.tensor] = module
            else:
                left.append(part.tensor)
    return found, left


class InputMoments:
    """``E[x x^T]`` of the inputs of every consumer of a dense network.

    Args:
        groups: the dense network's groups.
        batches: calibration batches.
        patch_limit: a 2-D convolution whose patches have at most this many entries (channels times
            kernel positions) is described by whole patches, a larger one by single positions.
        rows: rows sampled per batch and layer.
        seed: of the sampled positions.

    Attributes:
        values: by weight name, [n, n] float64; n is the input width, or width times kernel size.
        rows: rows accumulated, by weight name.
        images: number of calibration samples.
    """

    def __init__(
        self,
        groups: Groups,
        batches: Sequence[Batch],
        *,
        patch_limit: int = 1200,
        rows: int = 8192,
        seed: int = 0,
    ) -> None:
        if not batches:
            raise DataError("compensation needs calibration data; pass calibration=...")
        self.values: dict[str, Tensor] = {}
        self.rows: dict[str, int] = {}
        self.images = 0
        self._limit, self._per_batch = patch_limit, rows
        self._generator = torch.Generator().manual_seed(seed)
        modules, self.left_out = consumers(groups)
        handles = [
            module.register_forward_pre_hook(self._hook(name)) for name, module in modules.items()
        ]
        try:
            with torch.no_grad(), evaluating(groups.model):
                for inputs, _ in batches:
                    call(groups.model, inputs)
                    self.images += _count(inputs)
        finally:
            for handle in handles:
                handle.remove()
        for name, total in self.values.items():
            total /= self.rows[name]

    def is_patch(self, name: str, module: nn.Module) -> bool:
        """Whether the moments of a consumer are those of whole patches."""
        width = module.weight.shape[1]
        return self.values[name].shape[0] != width

    def _hook(self, name: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].detach()
            rows = self._linear(x) if isinstance(module, nn.Linear) else self._conv(module, x)
            rows = rows.float()
            moment = (rows.T @ rows).double().cpu()
            if name in self.values:
                self.values[name] += moment
                self.rows[name] += rows.shape[0]
            else:
                self.values[name], self.rows[name] = moment, rows.shape[0]

        return hook

    def _linear(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        return rows[self._pick(rows.shape[0])]

    def _conv(self, module: nn.Module, x: Tensor) -> Tensor:
        kernel = module.weight[0, 0].numel()
        patch = x.ndim == 4 and kernel > 1 and x.shape[1] * kernel <= self._limit
        if not patch:
            rows = x.movedim(1, -1).reshape(-1, x.shape[1])
            return rows[self._pick(rows.shape[0])]
        return self._patches(module, x)

    def _patches(self, module: nn.Module, x: Tensor) -> Tensor:
        """Patches under a convolution's kernel at random positions, [n, channels * kernel]."""
        around = module._reversed_padding_repeated_twice
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        padded = functional.pad(x, around, mode) if any(around) else x
        offsets = [
            torch.arange(k) * d for k, d in zip(module.kernel_size, module.dilation, strict=True)
        ]
        free = [padded.shape[2 + a] - int(offsets[a][-1]) for a in range(2)]
        count = max(1, self._per_batch // x.shape[0])
        corners = [
            torch.randint(
                (free[a] - 1) // module.stride[a] + 1, (count,), generator=self._generator
            )
            * module.stride[a]
            for a in range(2)
        ]
        dy, dx = torch.meshgrid(*offsets, indexing="ij")
        rows = (corners[0][:, None] + dy.reshape(1, -1)).to(x.device)
        columns = (corners[1][:, None] + dx.reshape(1, -1)).to(x.device)
        return padded[:, :, rows, columns].permute(0, 2, 1, 3).flatten(2).flatten(0, 1)

    def _pick(self, total: int) -> Tensor:
        if total <= self._per_batch:
            return torch.arange(total)
        return torch.randint(total, (self._per_batch,), generator=self._generator)


def _count(inputs: object) -> int:
    leaves = torch.utils._pytree.tree_leaves(inputs)
    return next(x.shape[0] for x in leaves if isinstance(x, Tensor))
