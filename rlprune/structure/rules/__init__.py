"""What each ATen op does to labels: a registry from op to rule, with a safe default.

A rule is ``rule(tracer, func, args, kwargs, out)``. It reads the label planes of the inputs
(``tracer.planes``), joins labels (``tracer.trace.labels.union``) or freezes them with a reason
(``tracer.freeze``), and records the planes of every output (``tracer.set_planes``). An op without a
rule freezes what it touches; a point-wise op needs none.

To support a new op: find its ATen name (the reason of a frozen group gives it), then

1. in the module of its family write a rule and decorate it with ``@register("name")``;
2. removing units must commute with the op: run the op on the smaller tensor and on the dense one,
   and drop the units afterwards. Where both agree for every choice of units, run the same op on the
   labels; where they agree only if some units go together, `union` those; else `freeze`;
3. a plane has size 1 along every dimension in which labels do not change: expand it before an op
   that needs full sizes;
4. an op that multiplies and sums goes through `contraction.contract`, which counts its
   multiply-accumulates too, and is registered with ``contraction=True`` so that a trace skips it;
5. say whether the result is still a weight (zero where its parameter is zero);
6. add a block with the op to ``tests/structure`` so that the oracle meets it.
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
