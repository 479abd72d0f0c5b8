"""Fused recurrent layers: left whole, but counted."""

from __future__ import annotations

import math
from typing import Any

from rlprune.ops.table import register, unknown


def _macs(args: tuple[Any, ...], result: Any) -> int:
    inputs, weight_ih, weight_hh = args[:3]
    return math.prod(inputs.shape[:-1]) * int(weight_ih.numel() + weight_hh.numel())


register("mkldnn_rnn_layer", unknown, macs=_macs)
