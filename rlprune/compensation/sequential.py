"""Sequential least squares: layer after layer refitted to what the smaller network feeds it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from rlprune.batches import Batch, answer
from rlprune.compaction.slicing import Slicer
from rlprune.compensation.bn import batch_norms, batch_statistics
from rlprune.compensation.context import Context
from rlprune.compensation.least_squares import GRID, solve
from rlprune.compensation.moments import Consumer, form_of, patch_corners, patches
from rlprune.errors import ConfigError, DataError
from rlprune.inputs import batch_of, batch_size, call, map_tensors
from rlprune.modes import evaluating
from rlprune.progress import track

logger = logging.getLogger(__name__)

_NOTHING_TO_MEND = 1e-10
_HELD_OUT, _FEWEST_HELD_OUT = 8, 16


class SequentialLeastSquares:
    r"""Refit every linear layer and convolution to the dense network's outputs, in execution order.

    :class:`LeastSquares` fits a layer to the dense network's inputs, which no longer arrive once
    the layers before it were cut. Here layer ``l`` sees what the compacted network, its earlier
    layers already refitted, really feeds it, ``x'``, and is to answer as the dense layer does to
    ``x`` (Zhang et al., TPAMI 2016, "asymmetric reconstruction"):

    .. math:: \min_{W'} E \lVert W x + b - W' x' - b' \rVert^2 + r \lVert W' - W_0 \rVert^2

    So the errors of earlier layers are mended too, not only those of the units a layer has lost.
    One pass of each network and one linear solve per layer; too slow for every candidate of a
    search, and meant for the network that is handed over. ``W_0`` is what earlier methods left. The
    ridge is chosen for every layer by two-fold cross-validation over the samples; a layer that no
    ridge improves stays as it is. One sample in eight takes no part in the fits: if the answers to
    them move away from the dense network's, all layers get their weights back. Networks with batch
    normalisation run on the statistics of the batch meanwhile: let ``"bn"`` follow.

    Args:
        samples: Calibration samples used, at most. All of them pass through the network at once, so
            that fewer are taken where the largest layers would not fit into ``memory``.
        rows: Rows (samples times positions) per layer, and at least 16 per input.
        limit: Layers that read more inputs (channels times kernel positions) stay as they are.
        memory: Bytes for activations, and again for the dense outputs kept at a time; the dense
            network runs again for the rest.

    Attributes:
        left_out: After `apply`, the layers that were not refitted and why.
        errors: After `apply`, by layer the relative squared error of its outputs before and after.
        answers: After `apply`, the same of the network's answers to the samples left out; None
            where it answers with something else than a tensor.

    Raises:
        ConfigError: A number is not positive.
    """

    def __init__(
        self, samples: int = 1024, rows: int = 16384, limit: int = 2400, memory: int = 2 << 30
    ) -> None:
        for name, value in (
            ("samples", samples), ("rows", rows), ("limit", limit), ("memory", memory),
        ):  # fmt: skip
            if value < 1:
                raise ConfigError(f"sequential: {name} is {value}; it must be at least 1")
        self.samples, self.rows, self.limit, self.memory = samples, rows, limit, memory
        self.left_out: dict[str, str] = {}
        self.errors: dict[str, tuple[float, float]] = {}
        self.answers: tuple[float, float] | None = None

    def apply(self, context: Context) -> None:
        """Refit the layers of ``context.module`` in place.

        Raises:
            DataError: There is no calibration data.
        """
        if not context.batches:
            raise DataError(
                "compensation 'sequential' needs calibration data; pass calibration=..."
            )
        affordable = self.memory // largest_activations(context.dense, context.batches[0][0])
        together = joined(context.batches, max(2, min(self.samples, affordable)))
        count = batch_size(together)
        held = max(count // _HELD_OUT, min(count, _FEWEST_HELD_OUT))
        inputs = _part(together, slice(0, count - held if count - held >= held else count))
        unseen = _part(together, slice(count - held, count))
        consumers, self.left_out = layers(context, self.limit)
        self.errors = {}
        sampler = _Sampler(consumers, batch_size(inputs), self.rows)
        targets = _Targets(context.dense, inputs, sampler, self.memory)
        self.left_out |= targets.left_out
        cuts = Slicer(context.groups).kept_by_tensor(context.plan)

        def refit(name: str, x: Tensor) -> None:
            consumer = consumers[name]
            wanted = targets.take(name)
            kept = cuts.get(consumer.name, {}).get(1 - consumer.dim)
            if kept is not None:
                wanted = wanted[..., kept.to(wanted.device)]
            error = _refit(consumer, sampler.inputs(name, x), wanted, name in targets.normalised)
            self.errors[name] = error

        before = _distance(context, unseen)
        weights = {
            name: parameter.detach().clone()
            for layer in targets.order
            for name, parameter in consumers[layer].module.named_parameters(layer, recurse=False)
        }
        called: set[str] = set()
        bar = track(targets.order, "refitting layers")

        def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            def on_call(module: nn.Module, args: tuple[Any, ...]) -> None:
                if name not in called:
                    called.add(name)
                    next(bar, None)
                    refit(name, args[0].detach())

            return on_call

        hooks = {name: hook(name) for name in targets.order}
        with (
            closing(bar),
            torch.no_grad(),
            batch_statistics(context.module),
            _hooked(context.module, hooks, before=True),
        ):
            call(context.module, inputs)
        after = _distance(context, unseen)
        self.answers = None if before is None or after is None else (before, after)
        if self.answers is not None and not self.answers[1] <= self.answers[0]:
            logger.warning(
                "sequential is undone: answers to unseen samples moved from %.4f to %.4f of the "
                "dense network's variance; give it more calibration samples", *self.answers,
            )  # fmt: skip
            with torch.no_grad():
                for name, tensor in weights.items():
                    context.module.get_parameter(name).copy_(tensor)
        for name, reason in self.left_out.items():
            logger.debug("sequential leaves '%s' as it is: %s", name, reason)


def largest_activations(network: nn.Module, inputs: Any) -> int:
    """Bytes per sample that a forward pass needs at its widest layer.

    As much again as the layer's inputs and outputs is counted for shortcuts that wait meanwhile.

    Args:
        network: Any network.
        inputs: What it is called with; the first sample is run.
    """
    sizes = [1]

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        tensors = [x for x in tree_leaves((args, output)) if isinstance(x, Tensor)]
        sizes.append(2 * sum(tensor.nbytes for tensor in tensors))

    leaves = {name: hook for name, m in network.named_modules() if not list(m.children())}
    with torch.no_grad(), evaluating(network), _hooked(network, leaves):
        call(network, batch_of(inputs, 1))
    return max(sizes)


def _part(inputs: Any, part: slice) -> Any:
    """Some of the samples of a batch."""
    size = batch_size(inputs)
    return map_tensors(inputs, lambda x: x[part] if x.ndim and x.shape[0] == size else x)


def _distance(context: Context, inputs: Any) -> float | None:
    """Squared error of the compacted network's answers relative to the dense one's variance."""
    try:
        with torch.no_grad():
            with evaluating(context.dense):
                dense = answer(context.dense, inputs).float()
            with batch_statistics(context.module):
                small = answer(context.module, inputs).float()
    except DataError:
        return None
    return float((small - dense).square().mean() / dense.var().clamp_min(1e-12))


def joined(batches: Sequence[Batch], samples: int) -> Any:
    """The inputs of calibration batches as one batch.

    Args:
        batches: Calibration batches; those shaped unlike the first one are passed over.
        samples: Most samples to take.

    Returns:
        Inputs in the form of the first batch.
    """
    first, spec = tree_flatten(batches[0][0])
    size = batch_size(batches[0][0])
    per_sample = [isinstance(x, Tensor) and x.ndim > 0 and x.shape[0] == size for x in first]
    parts: list[list[Any]] = [[] for _ in first]
    count = 0
    for inputs, _ in batches:
        leaves, found = tree_flatten(inputs)
        like = found == spec and all(
            leaf.shape[1:] == model.shape[1:]
            for leaf, model, own in zip(leaves, first, per_sample, strict=True)
            if own
        )
        if not like or count >= samples:
            continue
        for part, leaf, own in zip(parts, leaves, per_sample, strict=True):
            part.append(leaf[: samples - count] if own else leaf)
        count += batch_size(inputs)
    leaves = [torch.cat(p) if own else p[0] for p, own in zip(parts, per_sample, strict=True)]
    return tree_unflatten(leaves, spec)


def layers(context: Context, limit: int) -> tuple[dict[str, Consumer], dict[str, str]]:
    """Layers of the compacted network that can be refitted; the others with the reason.

    Args:
        context: What is compensated.
        limit: Most inputs of a layer.
    """
    found: dict[str, Consumer] = {}
    left: dict[str, str] = {}
    groups = context.groups
    dense = dict(context.dense.named_modules())
    for name, module in context.module.named_modules():
        form = form_of(module, limit)
        if form is None or "weight" not in module._parameters:
            continue
        consumer = Consumer(f"{name}.weight", module, form)
        weight = module.get_parameter("weight")
        inputs = weight.shape[consumer.dim] * weight[0, 0].numel()
        if type(dense.get(name)) is not type(module):
            left[name] = "the dense network has no such layer"
        elif getattr(module, "groups", 1) > 1:
            left[name] = "it is a grouped convolution"
        elif len(groups.aliases.get(consumer.name, (consumer.name,))) > 1:
            left[name] = "several modules share its weight"
        elif inputs > limit:
            left[name] = f"it reads {inputs} > {limit} inputs"
        elif form == "positions" and weight[0, 0].numel() > 1:
            left[name] = f"it belongs to a {type(module).__name__}"
        else:
            found[name] = consumer
    return found, left


@dataclass
class _Sampler:
    """Picks the same rows of a layer's inputs and outputs in both networks.

    Attributes:
        consumers: The compacted network's layers.
        batch: Samples in the batch.
        rows: Rows wanted per layer.
    """

    consumers: Mapping[str, Consumer]
    batch: int
    rows: int
    at: dict[str, Tensor] = field(default_factory=dict)

    def inputs(self, name: str, x: Tensor) -> Tensor:
        """Rows of a layer's input, [samples, positions, inputs]."""
        consumer = self.consumers[name]
        if consumer.form == "patches":
            assert isinstance(consumer.module, nn.Conv2d)
            return patches(
                consumer.module, x, patch_corners(consumer.module, x.shape)[self.at[name]]
            )
        return self._rows(name, x)[:, self.at[name].to(x.device)]

    def outputs(self, name: str, y: Tensor) -> Tensor:
        """Rows of a layer's output, [samples, positions, outputs]; decides which."""
        rows = self._rows(name, y)
        if name not in self.at:
            consumer = self.consumers[name]
            weight = consumer.module.get_parameter("weight")
            inputs = weight.shape[consumer.dim] * weight[0, 0].numel()
            count = max(1, round(max(self.rows, 16 * inputs) / rows.shape[0]))
            places = torch.arange(rows.shape[1])
            if len(places) > count:
                seed = list(self.consumers).index(name)
                generator = torch.Generator().manual_seed(seed)
                places = torch.randint(len(places), (count,), generator=generator)
            self.at[name] = places
        return rows[:, self.at[name].to(y.device)]

    def _rows(self, name: str, value: Tensor) -> Tensor:
        if isinstance(self.consumers[name].module, nn.modules.conv._ConvNd):
            value = value.movedim(1, -1)
        samples = value.shape[0] if value.ndim > 1 and value.shape[0] % self.batch == 0 else 1
        return value.reshape(samples, -1, value.shape[-1])


class _Targets:
    """The dense network's outputs, a portion of its layers at a time.

    Attributes:
        order: Layers as they are executed.
        normalised: Layers whose output goes straight into batch normalisation, which takes off
            its mean.
        left_out: Layers that are not called as modules exactly once, with the reason.
    """

    def __init__(self, dense: nn.Module, inputs: Any, sampler: _Sampler, memory: int) -> None:
        self._dense, self._inputs, self._sampler, self._memory = dense, inputs, sampler, memory
        self._kept: dict[str, Tensor] = {}
        self._size = 0
        self.order: list[str] = []
        self.normalised: set[str] = set()
        calls: dict[str, int] = dict.fromkeys(sampler.consumers, 0)
        latest: tuple[str, Any] = ("", None)

        def after(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                nonlocal latest
                latest = (name, output)
                calls[name] += 1
                if calls[name] == 1:
                    self.order.append(name)
                    self._keep(name, output)

            return hook

        def before(module: nn.Module, args: Any) -> None:
            if args and args[0] is latest[1]:
                self.normalised.add(latest[0])

        handles = [norm.register_forward_pre_hook(before) for norm in batch_norms(dense)]
        try:
            self._run({name: after(name) for name in sampler.consumers})
        finally:
            for handle in handles:
                handle.remove()
        self.left_out = {
            name: "its module is not called by itself" if not count else "it is called repeatedly"
            for name, count in calls.items()
            if count != 1
        }
        self.order = [name for name in self.order if name not in self.left_out]

    def take(self, name: str) -> Tensor:
        """A layer's target rows, [samples, positions, outputs]; asked for once, in order."""
        if name not in self._kept:
            self._kept.clear()
            self._size = 0
            rest = self.order[self.order.index(name) :]

            def after(layer: str) -> Callable[..., None]:
                return lambda module, args, output: self._keep(layer, output)

            self._run({layer: after(layer) for layer in rest})
        found = self._kept.pop(name)
        self._size -= found.nbytes
        return found

    def _keep(self, name: str, output: Tensor) -> None:
        if self._kept and self._size >= self._memory:
            return
        rows = self._sampler.outputs(name, output.detach()).clone()
        self._kept[name] = rows
        self._size += rows.nbytes

    def _run(self, hooks: Mapping[str, Callable[..., None]]) -> None:
        with torch.no_grad(), evaluating(self._dense), _hooked(self._dense, hooks):
            call(self._dense, self._inputs)


@contextmanager
def _hooked(
    network: nn.Module, hooks: Mapping[str, Callable[..., None]], *, before: bool = False
) -> Iterator[None]:
    handles = []
    try:
        for name, hook in hooks.items():
            module = network.get_submodule(name)
            add = module.register_forward_pre_hook if before else module.register_forward_hook
            handles.append(add(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _refit(consumer: Consumer, x: Tensor, y: Tensor, normalised: bool) -> tuple[float, float]:
    """Refit one layer to rows of its inputs and of the outputs wanted; the error before, after."""
    weight = consumer.module.get_parameter("weight")
    bias = getattr(consumer.module, "bias", None)
    prior = consumer.matrix(weight, None if bias is None else torch.zeros_like(bias)).T
    prior = prior[:-1] if consumer.intercept else prior
    x, y = x.float(), y.float()
    if len(x) < 2:
        x, y = x.transpose(0, 1), y.transpose(0, 1)
    means = None
    if consumer.intercept or normalised:
        means = (x.mean((0, 1)), y.mean((0, 1)))
        x, y = x - means[0], y - means[1]
    halves = [_products(x[half::2], y[half::2]) for half in range(2)]
    gram, cross, power = (sum(parts) / 2 for parts in zip(*halves, strict=True))
    if not (bool(torch.isfinite(gram).all()) and bool(torch.isfinite(cross).all())):
        return float("nan"), float("nan")
    error = _error(gram, cross, prior) + float(power)
    scale = float(gram.diagonal().mean())
    if error <= _NOTHING_TO_MEND * float(power) or scale <= 0:
        return 0.0, 0.0
    ridge = _choose(halves, prior)
    fitted = prior
    if ridge is not None:
        pull = torch.full((len(gram),), ridge / 2 * scale, dtype=gram.dtype)
        fitted = solve(gram, cross, pull, prior)
    matrix = fitted.T
    if consumer.intercept and means is not None:
        shift = means[1].cpu().double() - fitted.T @ means[0].cpu().double()
        matrix = torch.cat([matrix, shift[:, None]], 1)
    found, moved = consumer.unpack(matrix, weight)
    with torch.no_grad():
        weight.copy_(found)
        if bias is not None and moved is not None:
            bias.copy_(moved)
    after = _error(gram, cross, fitted) + float(power)
    return error / float(power), after / float(power)


def _products(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``E[x x^T]``, ``E[x y^T]`` and ``E[y^T y]`` over rows, float64 on the CPU."""
    x, y = x.flatten(0, 1), y.flatten(0, 1)
    count = max(1, len(x))
    gram, cross, power = x.T @ x, x.T @ y, y.square().sum()
    return tuple(part.cpu().double() / count for part in (gram, cross, power))  # type: ignore[return-value]


def _error(gram: Tensor, cross: Tensor, weight: Tensor) -> float:
    """``E ||W^T x - y||^2`` less ``E ||y||^2``."""
    return float(((gram @ weight) * weight).sum() - 2 * (cross * weight).sum())


def _choose(halves: Sequence[tuple[Tensor, Tensor, Tensor]], prior: Tensor) -> float | None:
    """The ridge, relative to the mean square of an input, that predicts one half from the other.

    Returns:
        The ridge for one half of the samples; None where leaving the weights alone predicts best.
    """
    losses = torch.zeros(len(GRID), dtype=torch.float64)
    for train, test in (halves, halves[::-1]):
        gram, cross, _ = train
        values, vectors = torch.linalg.eigh(gram)
        scale = float(gram.diagonal().mean())
        target = vectors.T @ (cross - gram @ prior)
        wanted = vectors.T @ (test[1] - test[0] @ prior)
        inner = vectors.T @ test[0] @ vectors
        for k, ridge in enumerate(GRID):
            change = target / (values.clamp_min(0) + ridge * scale)[:, None]
            losses[k] += ((inner @ change) * change).sum() - 2 * (change * wanted).sum()
    best = int(losses.argmin())
    return GRID[best] if float(losses[best]) < 0 else None
