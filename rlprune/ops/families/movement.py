"""Data movement: the very same op is run on the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlprune.ops.joining import collapse, tensors_in
from rlprune.ops.labels import expand_ndim, varying
from rlprune.ops.notes import Rectangle
from rlprune.ops.record import Makes, Moves, Scaling, Zeros
from rlprune.ops.table import find, name_of, register

if TYPE_CHECKING:
    from rlprune.ops.tracer import Tracer


def view(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Reshape labels segment by segment; a split of a labelled dimension must stay rectangular."""
    source: Tensor = args[0]
    planes = []
    for plane in tracer.planes(source):
        moved, splits = _reshape_plane(plane, tuple(source.shape), tuple(out.shape))
        planes.append(moved)
        if splits:
            where = f"{tracer.where('view')}: {_shape(source)} -> {_shape(out)}"
            tracer.trace.rectangles.append(Rectangle(moved, where))
    tracer.set_planes(out, planes, weight=tracer.is_weight(source))


def _shape(x: Tensor) -> str:
    return "x".join(map(str, x.shape))


def segments(source: tuple[int, ...], target: tuple[int, ...]) -> list[tuple[range, range]]:
    """Smallest runs of dimensions of two shapes that hold the same number of elements."""
    out = []
    i = j = 0
    while i < len(source) or j < len(target):
        i0, j0 = i, j
        a = source[i] if i < len(source) else 1
        b = target[j] if j < len(target) else 1
        i, j = min(i + 1, len(source)), min(j + 1, len(target))
        while a != b:
            if a < b:
                a *= source[i]
                i += 1
            else:
                b *= target[j]
                j += 1
        out.append((range(i0, i), range(j0, j)))
    return out


def _reshape_plane(
    plane: Tensor, source: tuple[int, ...], target: tuple[int, ...]
) -> tuple[Tensor, bool]:
    sizes = list(plane.shape)
    shape = [1] * len(target)
    splits = False
    vary = set(varying(plane))
    if 0 in source:
        return plane.reshape(-1)[:1].reshape([1] * len(target)), False
    for dims, new_dims in segments(source, target):
        if vary & set(dims):
            for d in dims:
                sizes[d] = source[d]
            for d in new_dims:
                shape[d] = target[d]
            splits |= sum(target[d] > 1 for d in new_dims) > 1
    return plane.expand(sizes).reshape(shape), splits


def rearrange(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Ops that treat size-1 dimensions like any other: run on the compact plane."""
    source: Tensor = args[0]
    planes = []
    for plane in tracer.planes(source):
        if name_of(func) == "squeeze":
            moved, _ = _reshape_plane(plane, tuple(source.shape), tuple(out.shape))
        else:
            moved = func(plane, *args[1:], **kwargs)
        planes.append(moved)
    tracer.set_planes(out, planes, weight=tracer.is_weight(source))


def same(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """The result has the shape of the first argument, and its labels."""
    copied = find(func).moves is Moves.COPIES
    for result in tensors_in(out):
        weight = copied and tracer.is_weight(args[0])
        tracer.set_planes(result, tracer.planes(args[0]), weight=weight)


def complex_view(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Real and imaginary parts are a last dimension of two, or are not."""
    planes = []
    for plane in tracer.planes(args[0]):
        if out.ndim > plane.ndim:
            planes.append(plane.unsqueeze(-1))
        elif plane.shape[-1] == 1:
            planes.append(plane.squeeze(-1))
    tracer.set_planes(out, planes, weight=tracer.is_weight(args[0]))


def expand(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Broadcasting adds dimensions along which labels do not change."""
    planes = [expand_ndim(p, out.ndim) for p in tracer.planes(args[0])]
    tracer.set_planes(out, planes, weight=tracer.is_weight(args[0]))


def _baked(tracer: Tracer, op: str, plane: Tensor, dim: int, detail: str) -> bool:
    """Freeze a plane that a fixed slice cuts along its labelled dimension."""
    if plane.shape[dim] <= 1:
        return False
    tracer.freeze((plane,), f"{tracer.where(op)}: {detail}")
    return True


def _fixed(tracer: Tracer, op: str, plane: Tensor, dim: int, detail: str) -> Tensor:
    """Units must not lie along a dimension cut at fixed places: join along it, else freeze."""
    rest = tuple(d for d in varying(plane) if d != dim)
    if plane.shape[dim] > 1 and rest:
        return collapse(tracer, plane, rest, tracer.where(op))
    _baked(tracer, op, plane, dim, detail)
    return plane


def slice_(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """A slice with bounds written into the forward pass cannot follow a smaller width."""
    source: Tensor = args[0]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % source.ndim
    planes = []
    for plane in tracer.planes(source):
        if out.shape[dim] != source.shape[dim]:
            plane = _fixed(
                tracer, "slice", plane, dim, "cut at positions that do not follow the width"
            )
            if plane.shape[dim] > 1:
                plane = func(plane, *args[1:], **kwargs)
        planes.append(plane)
    tracer.set_planes(out, planes, weight=tracer.is_weight(source))


def select(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Picking one position: labels that vary only there are picked by number, hence frozen."""
    source: Tensor = args[0]
    dim = args[1] % source.ndim
    planes = []
    for plane in tracer.planes(source):
        if plane.shape[dim] > 1:
            if len(varying(plane)) == 1:
                _baked(tracer, "select", plane, dim, "one position is picked by number")
            planes.append(plane.select(dim, args[2]))
        else:
            planes.append(plane.squeeze(dim))
    tracer.set_planes(out, planes, weight=tracer.is_weight(source))


def split(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Equal parts lose the same positions; unequal parts are cut at fixed places, hence frozen."""
    source: Tensor = args[0]
    name = name_of(func)
    position = 1 if name == "unbind" else 2
    dim = args[position] if len(args) > position else kwargs.get("dim", 0)
    dim %= source.ndim
    parts = list(out)
    collected: list[list[Tensor]] = [[] for _ in parts]
    for plane in tracer.planes(source):
        if plane.shape[dim] == 1:
            for pieces in collected:
                pieces.append(plane.squeeze(dim) if name == "unbind" else plane)
            continue
        if name == "unbind":
            if len(varying(plane)) == 1:
                _baked(tracer, name, plane, dim, "positions are picked by number")
            moved = list(plane.unbind(dim))
        else:
            sizes = [p.shape[dim] for p in parts]
            unequal = len(set(sizes)) > 1
            if unequal:
                plane = _fixed(tracer, name, plane, dim, f"cut into unequal parts {sizes}")
                if plane.shape[dim] == 1:
                    for pieces in collected:
                        pieces.append(plane)
                    continue
            moved = list(plane.split(sizes, dim))
            if sizes[0] > 1 and not unequal:
                for part in moved[1:]:
                    tracer.trace.labels.union(
                        moved[0].contiguous().numpy(),
                        part.contiguous().numpy(),
                        f"{tracer.where(name)}: equal parts",
                    )
            elif len(parts) > 1 and not unequal:
                _baked(tracer, name, plane, dim, "cut into single positions")
        for pieces, piece in zip(collected, moved, strict=True):
            pieces.append(piece)
    for part, pieces in zip(parts, collected, strict=True):
        tracer.set_planes(part, pieces, weight=tracer.is_weight(source))


def cat(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Concatenation: along the joined dimension labels follow each other, elsewhere they meet."""
    sources: list[Tensor] = [t for t in args[0] if t.numel() or t.ndim > 1]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.ndim
    stacking = name_of(func) == "stack"
    sets = []
    for t in sources:
        sets.append([p.unsqueeze(dim) if stacking else p for p in tracer.planes(t)])
    shapes = [tuple(t.unsqueeze(dim).shape) if stacking else tuple(t.shape) for t in sources]
    planes: list[Tensor] = []
    done: set[tuple[int, int]] = set()
    for i, own in enumerate(sets):
        for k, plane in enumerate(own):
            if (i, k) in done:
                continue
            dims = set(varying(plane)) or {dim}
            row = []
            for j, others in enumerate(sets):
                match = None
                if j == i:
                    match = plane
                else:
                    for m, other in enumerate(others):
                        if (j, m) not in done and (dims | {dim}) & set(varying(other)):
                            match = other
                            done.add((j, m))
                            break
                row.append(match)
            done.add((i, k))
            planes.append(_joined(row, shapes, dim))
    tracer.set_planes(out, planes, weight=all(tracer.is_weight(t) for t in sources))


def _joined(row: list[Tensor | None], shapes: list[tuple[int, ...]], dim: int) -> Tensor:
    ndim = len(shapes[0])
    common = [1] * ndim
    for plane in row:
        if plane is not None:
            for d in varying(plane):
                common[d] = shapes[0][d]
    pieces = []
    for plane, shape in zip(row, shapes, strict=True):
        size = [shape[d] if d == dim else common[d] for d in range(ndim)]
        base = plane if plane is not None else torch.zeros([1] * ndim, dtype=torch.int64)
        pieces.append(base.expand(size))
    return torch.cat(pieces, dim)


def glu(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """A gated linear unit multiplies the first half with the second: both lose the same units."""
    source: Tensor = args[0]
    dim = (args[1] if len(args) > 1 else -1) % source.ndim
    planes = []
    for plane in tracer.planes(source):
        if plane.shape[dim] > 1:
            first, second = plane.chunk(2, dim)
            tracer.trace.labels.union(
                first.contiguous().numpy(), second.contiguous().numpy(), tracer.where("glu")
            )
            plane = first
        planes.append(plane)
    tracer.set_planes(out, planes)


def fresh(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """A new tensor takes type and device from another, but not its units."""
    tracer.set_planes(out, ())
    tracer.uniform.note(find(func), func, tensors_in(args), [out])


def dropout(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Dropout and its mask keep the labels of what they act on."""
    for result in tensors_in(out):
        tracer.set_planes(result, tracer.planes(args[0]))


_FIRST, _EACH = Zeros.FIRST, Scaling.EACH
_REARRANGES, _COPIES, _REPEATS = Moves.REARRANGES, Moves.COPIES, Moves.REPEATS

register("view _unsafe_view", view, moves=_REARRANGES, zeros=_FIRST, view=True, layout=True)
register("reshape _reshape_alias", view, moves=_REARRANGES, zeros=_FIRST, view=True)
register(
    "permute transpose t numpy_T movedim unsqueeze squeeze",
    rearrange,
    moves=_REARRANGES,
    zeros=_FIRST,
    view=True,
)
register("flip rot90", rearrange, moves=_REARRANGES, zeros=_FIRST)

register("alias", same, moves=_COPIES, zeros=_FIRST, view=True, layout=True)
register("detach lift lift_fresh", same, moves=_COPIES, zeros=_FIRST, view=True)
register("clone", same, moves=_COPIES, zeros=_FIRST, layout=True)
register(
    "contiguous _to_copy lift_fresh_copy positive resolve_conj resolve_neg dropout",
    same,
    moves=_COPIES,
    zeros=_FIRST,
)
register("view_as_complex view_as_real", complex_view, zeros=_FIRST, view=True)
register("_conj", same, zeros=_FIRST, view=True)
register("native_dropout", dropout, zeros=_FIRST)
register("expand", expand, moves=_REPEATS, zeros=_FIRST, view=True, layout=True)
register("broadcast_to", expand, moves=_REPEATS, zeros=_FIRST, view=True)

register("slice", slice_, zeros=_FIRST, scaling=_EACH, view=True)
register("select", select, zeros=_FIRST, scaling=_EACH, view=True)
register("split split_with_sizes chunk unbind", split, zeros=_FIRST, scaling=_EACH, view=True)
register("unsafe_split unsafe_chunk", split, zeros=_FIRST, scaling=_EACH, view=True)
register("cat stack concatenate", cat, scaling=_EACH)
register("glu", glu, zeros=_FIRST)

register("bernoulli", same)
register("zero zeros_like", same, makes=Makes.ZEROS)
register("fill ones_like full_like", same, makes=Makes.ONE_VALUE)
register("empty_like rand_like randn_like", same, makes=Makes.ANYTHING)
register("zeros new_zeros", fresh, makes=Makes.ZEROS)
register("ones full new_ones new_full", fresh, makes=Makes.ONE_VALUE)
register("empty new_empty new_empty_strided", fresh, makes=Makes.ANYTHING)
