"""Fused scaled dot-product attention: a head (or a group of heads that share keys) is one unit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlprune.ops.families.contraction import contract
from rlprune.ops.joining import merge, tensors_in
from rlprune.ops.labels import varying
from rlprune.ops.table import register

if TYPE_CHECKING:
    from rlprune.ops.tracer import Tracer


def attention(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Attention over q [b, h, t, e], k [b, g, s, e], v [b, g, s, f]; g divides h."""
    name = "scaled_dot_product_attention"
    q, k, v = args[:3]
    results = tensors_in(out)
    if k.shape[1] != q.shape[1]:
        k, v = (_shared(tracer, x, q.shape[1]) for x in (k, v))
    scores = torch.empty(q.shape[0], q.shape[1], q.shape[2], k.shape[2], device="meta")
    tracer.set_planes(scores, contract(tracer, name, q, k, "bhte,bhse->bhts", scores))
    for mask in tensors_in(args[3:], kwargs):
        operands = [(scores, tracer.planes(scores)), (mask, tracer.planes(mask))]
        tracer.set_planes(scores, merge(tracer, operands, 4, name))
    per_query = [p[..., 0] for p in tracer.planes(scores) if 3 not in varying(p)]
    keys = [p for p in tracer.planes(scores) if 3 in varying(p)]
    tracer.freeze(keys, f"{tracer.where(name)}: softmax mixes all units")
    planes = contract(tracer, name, scores, v, "bhts,bhsf->bhtf", results[0])
    tracer.set_planes(results[0], planes)
    for extra in results[1:]:
        tracer.set_planes(extra, per_query if extra.shape == q.shape[:3] else ())


def _shared(tracer: Tracer, x: Tensor, heads: int) -> Tensor:
    """Keys or values repeated for the query heads that share them (grouped-query attention)."""
    shape = (x.shape[0], heads, *x.shape[2:])
    repeated = torch.empty(shape, device="meta")
    planes = [
        p.repeat_interleave(heads // x.shape[1], 1) if 1 in varying(p) else p
        for p in tracer.planes(x)
    ]
    tracer.set_planes(repeated, planes)
    return repeated


def _macs(args: tuple[Any, ...], result: Any) -> int:
    query, key, value = args[:3]
    scores = math.prod(query.shape[:-1]) * int(key.shape[-2])
    return scores * (int(query.shape[-1]) + int(value.shape[-1]))


register(
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
    "_scaled_dot_product_fused_attention_overrideable",
    attention,
    macs=_macs,
)
