"""Sequential least squares: layer after layer refitted to what the smaller network feeds it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection
from contextlib import closing, suppress
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.batches import answer
from rlprune.compensation.base import METHODS, Context
from rlprune.compensation.sequential.fitting import match, refit_rows, scale_of
from rlprune.compensation.sequential.samples import (
    Enough,
    Sampler,
    joined,
    largest_activations,
    part_of,
)
from rlprune.compensation.sequential.sums import Addend, Sums
from rlprune.compensation.sequential.targets import Targets
from rlprune.compensation.statistics import batch_norms, batch_statistics
from rlprune.errors import ConfigError, DataError
from rlprune.inputs import batch_size, call_safely
from rlprune.linear.weights import Consumer, form_of
from rlprune.modes import evaluating
from rlprune.observe import Observation, Recorder, Site, attention_mask
from rlprune.observe.moments import Moments
from rlprune.progress import track

logger = logging.getLogger(__name__)

_HELD_OUT, _FEWEST_HELD_OUT = 8, 16
_AT_ONCE = 8


@METHODS.register("sequential")
class SequentialLeastSquares:
    r"""Refit every linear layer and convolution to the dense network's outputs, in execution order.

    :class:`LeastSquares` fits a layer to the dense network's inputs, which no longer arrive once
    the layers before it were cut. Here layer ``l`` sees what the compacted network, its earlier
    layers already refitted, really feeds it, ``x'``, and is to answer as the dense layer does to
    ``x`` (Zhang et al., TPAMI 2016, "asymmetric reconstruction"):

    .. math:: \min_{W'} E \lVert W x + b - W' x' - b' \rVert^2 + r \lVert W' - W_0 \rVert^2

    So the errors of earlier layers are mended too, not only those of the units a layer has lost.
    Where the layer's answer is added to something ``s``, straight or through batch normalisation,
    it is fitted to what the dense sum needs beside the ``s'`` that the compacted network adds, so
    that errors do not run along the shortcuts past all layers; the normalisation is given the scale
    and shift of that target.

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

    def identity(self) -> dict[str, Any]:
        """The options (see :mod:`rlprune.identity`)."""
        return {
            "samples": self.samples,
            "rows": self.rows,
            "limit": self.limit,
            "memory": self.memory,
        }

    def apply(self, context: Context) -> None:
        """Refit the layers of ``context.module`` in place.

        Raises:
            DataError: There is no calibration data.
        """
        context.required("sequential")
        consumers, self.left_out = layers(context, self.limit)
        fitted, unseen = self._samples(context, consumers)
        sampler = Sampler(consumers, batch_size(fitted), self.rows, attention_mask(fitted))
        targets = Targets(context.dense, fitted, sampler, self.memory)
        self.left_out |= targets.left_out
        changing = [*targets.order, *(term.norm for term in targets.sums.values() if term.norm)]
        weights = {
            name: parameter.detach().clone()
            for path in changing
            for name, parameter in context.module.get_submodule(path).named_parameters(
                path, recurse=False
            )
        }
        before = _distance(context, unseen)
        self._refit_in_turn(context, fitted, sampler, targets)
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

    def _samples(self, context: Context, layers: Collection[str]) -> tuple[Any, Any]:
        """Calibration inputs to fit, and those to judge by; the same where there are too few."""
        affordable = self.memory // largest_activations(
            context.dense, context.batches[0][0], layers
        )
        together = joined(context.batches, max(2, min(self.samples, affordable)))
        count = batch_size(together)
        held = max(count // _HELD_OUT, min(count, _FEWEST_HELD_OUT))
        first = count - held if count - held >= held else count
        return part_of(together, slice(0, first)), part_of(together, slice(count - held, count))

    def _refit_in_turn(
        self, context: Context, inputs: Any, sampler: Sampler, targets: Targets
    ) -> None:
        """Run the compacted network once; each layer is refitted as its inputs arrive.

        A layer whose answer is added to something waits for that, and answers a second time.
        """
        bar = track(targets.order, "refitting layers")
        self.errors = {}
        waiting: dict[str, Tensor] = {}

        def refit(name: str, x: Tensor, beside: Tensor | None, norm: nn.Module | None) -> None:
            next(bar, None)
            consumer = sampler.consumers[name]
            _, kept = context.kept(consumer)
            wanted = targets.take(name)
            if kept is not None:
                wanted = wanted[..., kept.to(wanted.device)]
            if beside is not None:
                wanted = wanted.float() - sampler.terms(name, beside.detach()).float()
            rows = sampler.inputs(name, x)
            scale = None if norm is None else scale_of(consumer.module, norm, x)
            centred, counted = name in targets.normalised, sampler.counted[name]
            found = refit_rows(consumer, rows, wanted, centred, scale, counted)
            self.errors[name] = found[0]
            if norm is not None and found[1]:
                match(norm, consumer.module.forward(x), wanted)
            if len(self.errors) == len(targets.order):
                raise Enough

        def entered(seen: Observation) -> None:
            name = seen.site.path
            if name in targets.sums:
                waiting[name] = seen.value
            elif name not in self.errors:
                refit(name, seen.value, None, None)

        def replace(term: Addend, beside: Tensor) -> Tensor | None:
            x = waiting.pop(term.layer, None)
            if x is None or targets.sums[term.layer] != term:
                return None
            norm = None if term.norm is None else context.module.get_submodule(term.norm)
            refit(term.layer, x, beside, norm)
            answered = sampler.consumers[term.layer].module.forward(x)
            return answered if norm is None else norm.forward(answered)

        sinks = {Site(name, "input"): entered for name in targets.order}
        sums = Sums(context.module, targets.sums.keys(), targets.prefer, replace=replace)
        with (
            closing(bar),
            suppress(Enough),
            torch.no_grad(),
            batch_statistics(context.module),
            Recorder(context.module, sinks),
            sums,
        ):
            call_safely(context.module, inputs)
        for name in waiting:
            self.left_out[name] = "the compacted network does not add its answer to anything"


def _distance(context: Context, inputs: Any) -> float | None:
    """Squared error of the compacted network's answers relative to the dense one's variance.

    Answers at positions that are padding do not count. A network without batch normalisation is
    run on a few samples at a time, because the answers of language models are large.
    """
    count = batch_size(inputs)
    chunk = count if batch_norms(context.module) else _AT_ONCE
    error, values = 0.0, Moments(cross=False)
    try:
        for start in range(0, count, chunk):
            part = part_of(inputs, slice(start, start + chunk))
            with torch.no_grad():
                with evaluating(context.dense):
                    dense = answer(context.dense, part).float()
                with batch_statistics(context.module):
                    small = answer(context.module, part).float()
            mask = attention_mask(part)
            if mask is not None and dense.shape[:2] == mask.shape:
                dense, small = dense[mask], small[mask]
            error += float((small - dense).square().sum(dtype=torch.float64))
            values.add(dense.reshape(-1, 1))
    except DataError:
        return None
    return error / max(1, values.count) / max(float(values.covariance), 1e-12)


def layers(context: Context, limit: int) -> tuple[dict[str, Consumer], dict[str, str]]:
    """Layers of the compacted network that can be refitted; the others with the reason.

    Args:
        context: What is compensated.
        limit: Most inputs of a layer.
    """
    found: dict[str, Consumer] = {}
    left: dict[str, str] = {}
    dense = dict(context.dense.named_modules())
    held = Counter(
        id(parameter)
        for module in context.module.modules()
        for parameter in module.parameters(recurse=False)
    )
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
        elif held[id(weight)] > 1:
            left[name] = "several modules share its weight"
        elif inputs > limit:
            left[name] = f"it reads {inputs} > {limit} inputs"
        elif form == "positions" and weight[0, 0].numel() > 1:
            left[name] = f"it belongs to a {type(module).__name__}"
        else:
            found[name] = consumer
    return found, left
