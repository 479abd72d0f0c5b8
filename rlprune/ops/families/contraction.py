"""Contractions: they consume the units of one dimension and create those of another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlprune.ops.joining import collapse, lines_along, merge
from rlprune.ops.labels import Planes, varying
from rlprune.ops.notes import Contraction, Factor
from rlprune.ops.record import Macs, Operands, Scaling, Zeros
from rlprune.ops.table import register

if TYPE_CHECKING:
    from rlprune.ops.tracer import Tracer


def contract(
    tracer: Tracer,
    op: str,
    a: Tensor,
    b: Tensor,
    spec: str,
    out: Tensor,
) -> Planes:
    """Label rule of the matrix product written as einsum ``spec``, e.g. ``"bnc,bcm->bnm"``.

    Returns the planes of the result; records the op's multiply-accumulates.
    """
    inputs, target = spec.split("->")
    dims_a, dims_b = inputs.split(",")
    labels = tracer.trace.labels
    where = tracer.where(op)
    planes = {0: list(tracer.planes(a)), 1: list(tracer.planes(b))}
    dims = {0: dims_a, 1: dims_b}
    weights = {0: tracer.is_weight(a), 1: tracer.is_weight(b)}
    batch = [x for x in dims_a if x in dims_b and x in target]
    carried: list[Tensor] = []

    _record(tracer, op, (a, b), dims, planes)
    for letter in [x for x in dims_a if x in dims_b and x not in target]:
        found = {}
        for side in (0, 1):
            at = dims[side].index(letter)
            found[side] = [p for p in planes[side] if at in varying(p)]
        if not found[0] and not found[1]:
            continue
        if all(weights.values()) and len(target) < 2:
            tracer.freeze(found[0] + found[1], f"{where}: parameters are multiplied by each other")
            continue
        if not found[0] or not found[1]:
            for side in (0, 1):
                planes[side] = _whole_heads(tracer, planes[side], dims[side], letter, batch, where)
            continue
        vectors: list[Tensor | None] = []
        sides: list[int] = []
        for side in (0, 1):
            at = dims[side].index(letter)
            keep = tuple(dims[side].index(x) for x in (letter, *batch))
            for plane in found[side]:
                sides.append(side)
                vectors.append(
                    _to_letters(collapse(tracer, plane, keep, where), dims[side], letter, batch)
                )
            if weights[side] and (side == 1 or not weights[1]):
                for plane in found[side]:
                    if varying(plane) == (at,):
                        tracer.mark(plane, "in")
        if not any(weights.values()):
            vectors = [_fuse_heads(tracer, v, where) for v in vectors if v is not None]
            carried += [v for v in vectors if v is not None]
        alive = [v for v in vectors if v is not None]
        for other in alive[1:]:
            labels.union(alive[0].numpy(), other.numpy(), f"{where}: contracted")
        if len({side for side, v in zip(sides, vectors, strict=True) if v is not None}) == 1:
            tracer.freeze(alive, f"{where}: multiplied with a computed tensor of fixed size")
    if not any(weights.values()):
        tracer.note_whole(f"{where}: its weight is computed in the forward pass")
        _name_heads(tracer, planes, dims, batch)
    result: list[tuple[Tensor, Planes]] = []
    for side, tensor in ((0, a), (1, b)):
        kept = []
        for plane in planes[side]:
            letters = {dims[side][d] for d in varying(plane)}
            if letters <= set(target):
                kept.append(_to_target(plane, dims[side], target))
                free = letters - set(batch)
                if weights[side] and len(letters) == 1 and free:
                    tracer.mark(plane, "out", "neurons")
        for vector in carried:
            kept.append(_batch_to_target(vector, batch, target))
        shape = [tensor.shape[dims[side].index(x)] if x in dims[side] else 1 for x in target]
        result.append((torch.empty(shape, device="meta"), tuple(kept)))
    return merge(tracer, result, len(target), op, defer=False)


def _whole_heads(
    tracer: Tracer, planes: list[Tensor], dims: str, letter: str, batch: list[str], where: str
) -> list[Tensor]:
    """Planes along a contracted dimension of fixed size: a whole head is a unit, else frozen."""
    at = dims.index(letter)
    out = []
    for plane in planes:
        heads = tuple(d for d in varying(plane) if dims[d] in batch)
        if at not in varying(plane):
            out.append(plane)
        elif heads:
            out.append(collapse(tracer, plane, heads, where))
        else:
            tracer.freeze((plane,), f"{where}: multiplied with an input of fixed size")
            out.append(plane)
    return out


def _name_heads(
    tracer: Tracer, planes: dict[int, list[Tensor]], dims: dict[int, str], batch: list[str]
) -> None:
    """Units along the batch dimensions of a product of two activations are heads."""
    for side, own in planes.items():
        for plane in own:
            if {dims[side][d] for d in varying(plane)} <= set(batch):
                for origin in tracer.trace.labels.origin_of(plane.reshape(-1).numpy()):
                    tracer.trace.kinds[origin] = "heads"


def _to_letters(plane: Tensor, dims: str, letter: str, batch: list[str]) -> Tensor:
    """Reorder a collapsed plane to [letter, *batch]."""
    order = [dims.index(x) for x in (letter, *batch)]
    shape = [plane.shape[d] for d in order]
    rest = [d for d in range(plane.ndim) if d not in order]
    return plane.permute(*order, *rest).reshape(shape)


def _fuse_heads(tracer: Tracer, vector: Tensor, where: str) -> Tensor | None:
    """Two activations meet: a whole head (batch index) is one unit; without heads, frozen."""
    if vector.ndim == 1 or all(n == 1 for n in vector.shape[1:]):
        tracer.freeze((vector,), f"{where}: two computed tensors are multiplied along it")
        return None
    fused = collapse(tracer, vector, tuple(range(1, vector.ndim)), where)
    for origin in tracer.trace.labels.origin_of(vector.reshape(-1).numpy()):
        tracer.trace.kinds[origin] = "heads"
    return fused


def _to_target(plane: Tensor, dims: str, target: str) -> Tensor:
    order = [dims.index(x) for x in target if x in dims]
    rest = [d for d in range(plane.ndim) if d not in order]
    shape = [plane.shape[dims.index(x)] if x in dims else 1 for x in target]
    return plane.permute(*order, *rest).reshape(shape)


def _batch_to_target(vector: Tensor, batch: list[str], target: str) -> Tensor:
    sizes = dict(zip(batch, vector.shape[1:], strict=True))
    order = [batch.index(x) + 1 for x in target if x in batch]
    shape = [sizes.get(x, 1) for x in target]
    return vector.permute(0, *order).reshape(shape)


def _record(
    tracer: Tracer,
    op: str,
    tensors: tuple[Tensor, Tensor],
    dims: dict[int, str],
    planes: dict[int, list[Tensor]],
) -> None:
    sizes: dict[str, int] = {}
    lines: dict[str, list[Tensor]] = {}
    for side in (1, 0):
        for d, letter in enumerate(dims[side]):
            sizes[letter] = max(sizes.get(letter, 1), tensors[side].shape[d])
            lines.setdefault(letter, []).extend(lines_along(planes[side], d))
    factors = [Factor(n, tuple(lines[letter])) for letter, n in sizes.items()]
    tracer.record(Contraction(tracer.current(), op, tuple(factors)))


def _add_bias(tracer: Tracer, op: str, bias: Any, out: Tensor, planes: Planes) -> Planes:
    if not isinstance(bias, Tensor):
        return planes
    body = torch.empty(out.shape, device="meta")
    return merge(tracer, [(body, planes), (bias, tracer.planes(bias))], out.ndim, op)


def mm(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Matrix product [n, c] x [c, m]."""
    planes = contract(tracer, "mm", args[0], args[1], "nc,cm->nm", out)
    weight = tracer.is_weight(args[0]) and tracer.is_weight(args[1])
    tracer.set_planes(out, planes, weight=weight)


def mv(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Matrix-vector product [n, c] x [c]."""
    planes = contract(tracer, "mv", args[0], args[1], "nc,c->n", out)
    weight = tracer.is_weight(args[0]) and tracer.is_weight(args[1])
    tracer.set_planes(out, planes, weight=weight)


def dot(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Inner product of two vectors."""
    tracer.set_planes(out, contract(tracer, "dot", args[0], args[1], "c,c->", out))


def addmv(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Addend plus matrix-vector product."""
    planes = contract(tracer, "addmv", args[1], args[2], "nc,c->n", out)
    tracer.set_planes(out, _add_bias(tracer, "addmv", args[0], out, planes))


def addbmm(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Addend plus the sum of a batch of matrix products."""
    planes = contract(tracer, "addbmm", args[1], args[2], "bnc,bcm->nm", out)
    tracer.set_planes(out, _add_bias(tracer, "addbmm", args[0], out, planes))


def addmm(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Bias plus matrix product."""
    planes = contract(tracer, "addmm", args[1], args[2], "nc,cm->nm", out)
    tracer.set_planes(out, _add_bias(tracer, "addmm", args[0], out, planes))


def linear(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Fused linear layer, weight [m, c]."""
    lead = "abdefghijk"[: args[0].ndim - 1]
    planes = contract(tracer, "linear", args[0], args[1], f"{lead}c,mc->{lead}m", out)
    bias = args[2] if len(args) > 2 else None
    tracer.set_planes(out, _add_bias(tracer, "linear", bias, out, planes))


def bmm(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Batched matrix product [b, n, c] x [b, c, m]."""
    tracer.set_planes(out, contract(tracer, "bmm", args[0], args[1], "bnc,bcm->bnm", out))


def baddbmm(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Addend plus batched matrix product."""
    planes = contract(tracer, "baddbmm", args[1], args[2], "bnc,bcm->bnm", out)
    tracer.set_planes(out, _add_bias(tracer, "baddbmm", args[0], out, planes))


def grouped_mm(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Rows times a matrix of their own expert's; its kernel refuses most widths."""
    reason = "takes rows of whole 16 bytes only; load the model with experts_implementation='eager'"
    tracer.freeze(
        [*tracer.planes(args[0]), *tracer.planes(args[1])],
        f"{tracer.where('_grouped_mm')}: {reason}",
    )


def _matrices(first: int) -> Macs:
    """A product of two (batches of) matrices that stand at ``args[first]`` and the next."""

    def count(args: tuple[Any, ...], result: Any) -> int:
        left, right = args[first], args[first + 1]
        return int(left.numel()) * int(right.shape[-1])

    return count


def _vectors(first: int) -> Macs:
    """A product with a vector: every entry of the left operand is used once."""

    def count(args: tuple[Any, ...], result: Any) -> int:
        return int(args[first].numel())

    return count


def _linear_macs(args: tuple[Any, ...], result: Any) -> int:
    return int(args[0].numel()) * int(args[1].shape[0])


def product_zeros(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Zeros:
    """Of a product whose third argument, where it is given, is a bias."""
    return Zeros.ANY if len(args) < 3 or args[2] is None else Zeros.NEVER


_ANY, _LAYER = Zeros.ANY, Scaling.LAYER
_PLAIN, _ADDED = Operands(bias=None), Operands(x=1, weight=2, bias=0)

register("mm", mm, macs=_matrices(0), zeros=_ANY, scaling=_LAYER, operands=_PLAIN)
register("bmm", bmm, macs=_matrices(0), zeros=_ANY, scaling=_LAYER, operands=_PLAIN)
register("mv", mv, macs=_vectors(0), zeros=_ANY, scaling=_LAYER, operands=Operands(1, 0, None))
register("dot vdot", dot, macs=_vectors(0), zeros=_ANY)
register(
    "linear",
    linear,
    macs=_linear_macs,
    zeros=product_zeros,
    scaling=_LAYER,
    operands=Operands(),
)
register("addmm", addmm, macs=_matrices(1), scaling=_LAYER, operands=_ADDED)
register("_grouped_mm", grouped_mm, macs=_matrices(0), zeros=_ANY)
register("baddbmm", baddbmm, macs=_matrices(1), scaling=_LAYER, operands=_ADDED)
register("_addmm_activation", addmm, macs=_matrices(1))
register("addbmm", addbmm, macs=_matrices(1))
register("addmv", addmv, macs=_vectors(1))
