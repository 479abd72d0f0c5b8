"""What each ATen op does to labels: a registry from op to rule, with a safe default.

A rule is ``rule(tracer, func, args, kwargs, out)``. It reads the label planes of the inputs, joins
or freezes labels, and records the planes of the outputs. To support a new op, write a rule in the
module of its family and register it with `@register`; an op without a rule freezes what it touches.
"""

from __future__ import annotations

from rlprune.structure.rules import (  # noqa: F401 (importing registers the rules)
    attention,
    contraction,
    convolution,
    movement,
    normalization,
    parameters,
    reduction,
    selection,
)
from rlprune.structure.rules._registry import CONTRACTIONS, apply_rule, leave_whole, register

__all__ = ["CONTRACTIONS", "apply_rule", "leave_whole", "register"]
