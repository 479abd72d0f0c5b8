"""What the kernel of a 2-D convolution sees."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional


def patch_corners(module: nn.Conv2d, shape: Sequence[int]) -> Tensor:
    """First row and column in the padded input of every patch, in `functional.unfold`'s order."""
    around = module._reversed_padding_repeated_twice
    starts = []
    for axis in range(2):
        padded = shape[2 + axis] + around[2 - 2 * axis] + around[3 - 2 * axis]
        reach = (module.kernel_size[axis] - 1) * module.dilation[axis]
        starts.append(range(0, padded - reach, module.stride[axis]))
    return torch.tensor(list(product(*starts)))


def patches(module: nn.Conv2d, x: Tensor, corners: Tensor) -> Tensor:
    """What a convolution's kernel sees at some corners, [samples, corners, channels * kernel]."""
    around = module._reversed_padding_repeated_twice
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = functional.pad(x, around, mode) if any(around) else x
    steps = [
        torch.arange(size) * gap
        for size, gap in zip(module.kernel_size, module.dilation, strict=True)
    ]
    dy, dx = torch.meshgrid(*steps, indexing="ij")
    rows = (corners[:, :1] + dy.reshape(1, -1)).to(x.device)
    columns = (corners[:, 1:] + dx.reshape(1, -1)).to(x.device)
    return padded[:, :, rows, columns].permute(0, 2, 1, 3).flatten(2)
