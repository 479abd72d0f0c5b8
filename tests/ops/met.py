"""Calls of ATen operations that public networks make, with the tensors they were given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torchvision.models as tv
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torchvision.models import maxvit, swin_transformer

from rlprune.modes import attention_spelled_out
from rlprune.ops import name_of
from rlprune.zoo import networks

SMALL = (
    "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "regnet_y_400mf",
    "segmentation/lraspp_mobilenet_v3_large",
    "backbone/fasterrcnn_mobilenet_v3_large_320_fpn",
)  # fmt: skip


@dataclass(frozen=True)
class Met:
    """One call: the op, copies of its arguments as they were before, where it was met."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    network: str

    def again(self, change: Any = None) -> tuple[tuple[Any, ...], Any]:
        """Copies of the arguments, the tensors sent through ``change``, and the result."""
        change = change or (lambda k, x: x)
        place = iter(range(10_000))

        def fresh(x: Any) -> Any:
            return change(next(place), x.clone()) if isinstance(x, Tensor) else x

        args, kwargs = tree_map(fresh, (self.args, self.kwargs))
        return args, self.func(*args, **kwargs)


class Collector(TorchDispatchMode):
    """Keeps the first calls of every op, a few of each."""

    def __init__(self, found: dict[str, list[Met]], network: str) -> None:
        super().__init__()
        self.found, self.network = found, network

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        calls = self.found.setdefault(name_of(func), [])
        if len(calls) < 4:
            copied = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, (args, kwargs))
            calls.append(Met(func, *copied, self.network))
        return func(*args, **kwargs)


def _networks() -> Iterator[tuple[str, nn.Module, Any]]:
    for name in SMALL:
        yield (name, *networks.create(name))
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    swin = {"patch_size": [4, 4], "embed_dim": 8, "depths": [2, 1], "num_heads": [1, 2]}
    yield "densenet", tv.DenseNet(4, (1, 1), 8, num_classes=5), x
    yield "vit", tv.VisionTransformer(32, 16, 1, 2, 16, 32, num_classes=5), x
    yield "swin", tv.SwinTransformer(**swin, window_size=[4, 4], num_classes=5), x
    v2 = swin_transformer.SwinTransformerBlockV2
    merging = swin_transformer.PatchMergingV2
    yield (
        "swin_v2",
        tv.SwinTransformer(
            **swin, window_size=[4, 4], num_classes=5, block=v2, downsample_layer=merging
        ),
        x,
    )
    yield "convnext", tv.ConvNeXt([tv.convnext.CNBlockConfig(8, None, 2)], num_classes=5), x
    yield (
        "maxvit",
        maxvit.MaxVit((32, 32), 8, 4, [8, 16], [1, 1], 4, 0.0, num_classes=5),
        x,
    )


@cache
def met() -> dict[str, list[Met]]:
    """By op the first calls that a subset of torchvision's networks makes."""
    found: dict[str, list[Met]] = {}
    for name, model, inputs in _networks():
        networks.randomise(model.double().eval())
        with torch.no_grad(), attention_spelled_out(), Collector(found, name):
            model(inputs)
    return found
