"""Random layers over feature maps [b, c, *space], of one, two or three dimensions."""

from __future__ import annotations

from random import Random

import torch.nn.functional as F
from torch import nn

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
DECONV = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
ADAPTIVE = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


def activation(rng: Random, channels: int = 1) -> nn.Module:
    kinds = [nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.Hardswish, nn.ELU]
    kinds += [nn.Softplus, nn.Mish, nn.LeakyReLU, nn.Identity, nn.Hardsigmoid, nn.LogSigmoid]
    kinds += [nn.Softsign, nn.CELU, nn.SELU, nn.Softshrink, nn.Hardtanh, nn.Tanhshrink]
    if channels > 1 and rng.random() < 0.1:
        return nn.PReLU(channels)
    if rng.random() < 0.05:
        return nn.PReLU()
    kind = rng.choice(kinds)
    inplace = rng.random() < 0.3 and kind in (nn.ReLU, nn.ReLU6, nn.SiLU, nn.ELU, nn.LeakyReLU)
    return kind(inplace=True) if inplace else kind()


def norm(rng: Random, rank: int, c: int) -> nn.Module:
    kind = rng.choice(["batch", "batch", "batch", "batch_plain", "none", "group", "instance"])
    kind = rng.choice([kind, kind, "instance_plain", "group_one", "group_each", kind])
    divisors = [d for d in range(2, c) if c % d == 0] or [1]
    if kind == "batch":
        return BATCH_NORM[rank](c)
    if kind == "batch_plain":
        return BATCH_NORM[rank](c, affine=False)
    if kind == "group":
        return nn.GroupNorm(rng.choice(divisors), c)
    if kind == "group_one":
        return nn.GroupNorm(1, c)
    if kind == "group_each":
        return nn.GroupNorm(c, c)
    if kind == "instance":
        return INSTANCE_NORM[rank](c, affine=True, track_running_stats=rng.random() < 0.3)
    if kind == "instance_plain":
        return INSTANCE_NORM[rank](c)
    return nn.Identity()


def conv(rng: Random, rank: int, c: int, d: int, *, groups: int = 1) -> nn.Module:
    if rng.random() < 0.1 and c % groups == 0:
        return DECONV[rank](c, d, 3, padding=1, groups=groups, bias=rng.random() < 0.5)
    k, dilation = rng.choice([(1, 1), (3, 1), (3, 2)])
    mode = rng.choice(["zeros", "zeros", "zeros", "replicate"])
    return CONV[rank](
        c,
        d,
        k,
        padding=dilation * (k // 2),
        dilation=dilation,
        groups=groups,
        bias=rng.random() < 0.5,
        padding_mode=mode,
    )


def body(rng: Random, rank: int, c: int, d: int) -> nn.Sequential:
    return nn.Sequential(conv(rng, rank, c, d), norm(rng, rank, d), activation(rng, d))


class Block(nn.Module):
    """A random block: takes ``c`` channels, gives ``self.out`` channels, keeps the space."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__()
        self.rank, self.out = rank, c
