"""Second moments of what consumers read in the dense network, from one pass over its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlprune.batches import Batch
from rlprune.errors import DataError
from rlprune.inputs import batch_size, call
from rlprune.modes import evaluating

if TYPE_CHECKING:
    from rlprune.structure import Groups

_Conv = nn.modules.conv._ConvNd
_PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Consumer:
    """A weight that reads prunable units, as a matrix [outputs, inputs].

    Attributes:
        name: state-dict name of the weight.
        module: the linear layer or convolution it belongs to.
        form: "linear", "transposed" (weight [inputs, outputs]), "patches" (a 2-D convolution whose
            inputs are whole patches) or "positions" (a convolution whose kernel positions are
            outputs of their own, all reading the same channels).
    """

    name: str
    module: nn.Module
    form: str

    @property
    def dim(self) -> int:
        """Dimension of the weight along which it reads units."""
        return 0 if self.form == "transposed" else 1

    @property
    def per_channel(self) -> int:
        """Inputs of the matrix per position along `dim`."""
        return self.weight[0, 0].numel() if self.form == "patches" else 1

    @property
    def inputs(self) -> int:
        """Columns of the matrix, without the bias."""
        return self.weight.shape[self.dim] * self.per_channel

    @property
    def weight(self) -> Tensor:
        """The dense weight."""
        return self.module.get_parameter("weight").detach()

    @property
    def intercept(self) -> bool:
        """Whether there is a bias that is refitted with the weight."""
        one = self.form != "positions" or self.weight[0, 0].numel() == 1
        return one and getattr(self.module, "bias", None) is not None

    def matrix(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """A weight of this form, dense or cut, as a float64 matrix with the bias as last column."""
        wide = weight.detach().cpu().double()
        if self.form == "transposed":
            wide = wide.T
        elif self.form == "patches":
            wide = wide.flatten(1)
        elif self.form == "positions":
            wide = wide.flatten(2).transpose(1, 2).flatten(0, 1)
        if self.intercept and bias is not None:
            wide = torch.cat([wide, bias.detach().cpu().double()[:, None]], 1)
        return wide

    def unpack(self, matrix: Tensor, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """The inverse of `matrix`, for a weight shaped like another."""
        bias = matrix[:, -1] if self.intercept else None
        wide = matrix[:, :-1] if self.intercept else matrix
        if self.form == "transposed":
            wide = wide.T
        elif self.form == "positions":
            wide = wide.reshape(like.shape[0], -1, wide.shape[1]).transpose(1, 2)
        return wide.reshape(like.shape), bias


def consumers(
    groups: Groups, patch_limit: int, limit: int
) -> tuple[list[Consumer], dict[str, str]]:
    """Weights that read prunable units and can be refitted; the others with the reason.

    Args:
        groups: the dense network's groups.
        patch_limit: a 2-D convolution is described by whole patches up to this many inputs.
        limit: most inputs of a weight that is refitted.
    """
    found: dict[str, Consumer] = {}
    left: dict[str, str] = {}
    for group in groups.prunable:
        for part in groups.slices(group):
            name = part.tensor
            if part.role != "in" or name in found or name in left:
                continue
            path, _, attribute = name.rpartition(".")
            module = groups.model.get_submodule(path)
            form = form_of(module, patch_limit)
            if attribute != "weight" or form is None:
                left[name] = f"it belongs to a {type(module).__name__}"
            elif isinstance(module, _Conv) and module.groups > 1:
                left[name] = "it belongs to a grouped convolution"
            elif len(groups.aliases.get(name, (name,))) > 1:
                left[name] = "several modules share it"
            else:
                consumer = Consumer(name, module, form)
                if consumer.weight.shape[consumer.dim] > limit:
                    left[name] = f"it reads {consumer.weight.shape[consumer.dim]} > {limit} inputs"
                else:
                    found[name] = consumer
    return list(found.values()), left


def form_of(module: nn.Module, patch_limit: int) -> str | None:
    """How a layer is refitted; None for other modules, and for kinds with a forward of their own.

    Args:
        module: any module.
        patch_limit: see `consumers`.
    """
    kind = type(module)
    if kind is nn.Linear:
        return "linear"
    if kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers."):
        return "transposed"
    plain = next((base for base in _PLAIN if kind.forward is base.forward), None)
    if plain is None or "weight" not in module._parameters:
        return None
    if isinstance(module, nn.Conv2d):
        kernel = module.weight[0, 0].numel()
        return "patches" if 1 < kernel <= patch_limit / module.in_channels else "positions"
    return "positions"


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
            raise DataError(
                "compensation 'least_squares' needs calibration data; pass calibration=..."
            )
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
