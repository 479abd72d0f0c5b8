"""Bias compensation: what removed inputs contribute on average is put into biases."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.compensation.base import METHODS, Context
from rlprune.linear.weights import Consumer, consumers
from rlprune.observe import Observation, Sink, Site, channel_axis, stream
from rlprune.observe.rows import fitting_mask, units_last

logger = logging.getLogger(__name__)


@METHODS.register("bias")
class BiasCompensation:
    r"""Give each layer that lost inputs the mean answer it had.

    With the dense input ``x`` of a linear layer or convolution and its kept part ``x_k``,

    .. math:: b' = E[W x + b] - E[W' x_k]

    (An et al., FLAP, AAAI 2024, section 3.3). One number per output is estimated, so a handful of
    samples is enough where :class:`rlprune.compensation.LeastSquares` needs many; weights stay as
    earlier methods left them. Positions that a batch's ``attention_mask`` calls padding do not
    count. The dense network runs once, whatever the size of its layers.

    Args:
        create: Whether layers without a bias are given one. Such a network is no longer what its
            class builds: weights alone do not load into a fresh copy of it.

    Attributes:
        left_out: After `apply`, the layers that lost inputs but were not changed, and why.
    """

    def __init__(self, create: bool = False) -> None:
        self.create = create
        self.left_out: dict[str, str] = {}

    def identity(self) -> dict[str, Any]:
        """The options (see :mod:`rlprune.identity`)."""
        return {"create": self.create}

    def apply(self, context: Context) -> None:
        """Change the biases of ``context.module`` in place.

        Raises:
            DataError: There is no calibration data.
        """
        batches = context.required("bias")
        found, self.left_out = consumers(context.groups, 0, sys.maxsize)
        readers = []
        for consumer in found:
            kept, outputs = context.kept(consumer)
            small = context.module.get_submodule(consumer.path)
            if kept is None:
                continue
            if getattr(small, "bias", None) is None and not self.create:
                self.left_out[consumer.name] = "it has no bias"
                continue
            readers.append(_Reader(consumer, small, kept, outputs))
        sinks: dict[Site, Sink] = {}
        for reader in readers:
            sinks[Site(reader.consumer.path, "input")] = reader.read
            sinks[Site(reader.consumer.path)] = reader.answered
        stream(context.dense, batches, sinks)
        for reader in readers:
            if not reader.write():
                self.left_out[reader.consumer.name] = "its module is not called by itself"
        for name, reason in self.left_out.items():
            logger.info("bias leaves '%s' as it is: %s", name, reason)


class _Reader:
    """A layer that lost inputs: mean answers of its dense and of its smaller form."""

    def __init__(
        self, consumer: Consumer, small: nn.Module, kept: Tensor, outputs: Tensor | None
    ) -> None:
        self.consumer, self._small = consumer, small
        self._kept, self._outputs = kept, outputs
        self._dense, self._answers = _Mean(), _Mean()

    def read(self, seen: Observation) -> None:
        """Let the smaller layer answer to what is left of the dense input."""
        axis = channel_axis(self.consumer.module)
        left = seen.value.index_select(axis, self._kept.to(seen.value.device))
        self._answers.add(replace(seen, value=self._small.forward(left)))

    def answered(self, seen: Observation) -> None:
        """Take in what the dense layer answers."""
        self._dense.add(seen)

    def write(self) -> bool:
        """Correct the bias; whether the layer was called."""
        if not self._dense.count:
            return False
        dense, small = self._dense.value, self._answers.value
        if self._outputs is not None:
            dense = dense[self._outputs.cpu()]
        shift = dense - small
        weight, bias = self._small.get_parameter("weight"), self._small._parameters.get("bias")
        if bias is None:
            self._small.register_parameter("bias", nn.Parameter(shift.to(weight)))
        else:
            with torch.no_grad():
                bias.add_(shift.to(bias))
        return True


class _Mean:
    """Mean answer per unit over positions that count."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = torch.zeros((), dtype=torch.float64)

    def add(self, seen: Observation) -> None:
        value, mask = units_last(seen), fitting_mask(seen)
        answers = value.flatten(0, -2) if mask is None else value[mask]
        self._sum = self._sum + answers.double().sum(0).cpu()
        self.count += len(answers)

    @property
    def value(self) -> Tensor:
        return self._sum / self.count
