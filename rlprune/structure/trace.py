"""One forward pass under a dispatch mode that carries labels beside every tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from rlprune.structure.labels import Labels, Planes, compress_all


@dataclass(frozen=True)
class Factor:
    """One dimension of a contraction: its size and, where labelled, a plane and its dimension."""

    size: int
    plane: Tensor | None = None
    dim: int = 0


@dataclass(frozen=True)
class Contraction:
    """Multiply-accumulates of one op: the product of its factors."""

    module: str
    op: str
    factors: tuple[Factor, ...]


@dataclass(frozen=True)
class Rectangle:
    """A view split one labelled dimension into several: what is kept must stay a rectangle."""

    labels: Tensor
    where: str


@dataclass(frozen=True)
class Step:
    """One op of the trace, kept to find the op where a compacted network departs from it."""

    module: str
    op: str
    shapes: tuple[tuple[int, ...], ...]
    planes: tuple[Planes, ...]


@dataclass
class Trace:
    """Everything one traced forward pass has established."""

    labels: Labels = field(default_factory=Labels)
    names: list[str] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    roles: dict[int, str] = field(default_factory=dict)
    kinds: dict[int, str] = field(default_factory=dict)
    producers: list[int] = field(default_factory=list)
    contractions: list[Contraction] = field(default_factory=list)
    rectangles: list[Rectangle] = field(default_factory=list)
    grouped: dict[str, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)


@contextmanager
def module_path(model: nn.Module) -> Iterator[Callable[[], str]]:
    """Yield a function that names the module whose forward is running ("" for the model itself)."""
    names = {id(m): n for n, m in model.named_modules()}
    stack: list[str] = []

    def enter(module: nn.Module, _inputs: Any) -> None:
        if id(module) in names:
            stack.append(names[id(module)])

    def leave(module: nn.Module, _inputs: Any, _output: Any) -> None:
        if id(module) in names and stack:
            stack.pop()

    handles = [
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave, always_call=True),
    ]
    try:
        yield lambda: stack[-1] if stack else ""
    finally:
        for handle in handles:
            handle.remove()


class Tracer(TorchDispatchMode):
    """Runs each op, then asks the op's rule what it does to labels.

    Contractions (convolutions, matrix products, attention) are not computed: their result is zeros
    of the right shape, so a trace costs bookkeeping rather than a forward pass.
    """

    def __init__(self, model: nn.Module, current: Callable[[], str]) -> None:
        super().__init__()
        self.trace = Trace()
        self.current = current
        self._known: dict[int, int] = {}
        self._planes: Any = WeakIdKeyDictionary()
        self._weights: Any = WeakIdKeyDictionary()
        named = [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]
        self.aliases: dict[int, list[str]] = {}
        for name, tensor in named:
            if id(tensor) not in self._known:
                self._known[id(tensor)] = len(self.trace.tensors)
                self.trace.tensors.append(tensor)
                self.trace.names.append(name)
            self.aliases.setdefault(self._known[id(tensor)], []).append(name)

    def where(self, op: str = "") -> str:
        """The running module and op, in words."""
        module = self.current() or "the model's own forward"
        return f"{op} in {module}" if op else module

    def planes(self, tensor: Any) -> Planes:
        """Label planes of a tensor; a parameter or buffer gets its labels when first met."""
        if not isinstance(tensor, Tensor):
            return ()
        known = self._planes.get(tensor)
        if known is not None:
            return known
        index = self._known.get(id(tensor))
        if index is None:
            return ()
        planes = []
        for dim, size in enumerate(tensor.shape):
            if size > 1:
                shape = [1] * tensor.ndim
                shape[dim] = size
                fresh = self.trace.labels.new(index, dim, size)
                planes.append(torch.from_numpy(fresh).reshape(shape))
        self._planes[tensor] = tuple(planes)
        self._weights[tensor] = True
        return tuple(planes)

    def is_weight(self, tensor: Any) -> bool:
        """Whether a tensor is made of parameters alone."""
        self.planes(tensor)
        return isinstance(tensor, Tensor) and bool(self._weights.get(tensor, False))

    def set_planes(self, tensor: Tensor, planes: Sequence[Tensor], weight: bool = False) -> None:
        """Record what an op's result carries."""
        self._planes[tensor] = compress_all(self.trace.labels, planes)
        if weight:
            self._weights[tensor] = True

    def freeze(self, planes: Sequence[Tensor], reason: str) -> None:
        """Freeze every unit found in some planes."""
        for plane in planes:
            self.trace.labels.freeze(plane.reshape(-1).numpy(), reason)

    def mark(self, plane: Tensor, role: str, kind: str = "") -> None:
        """Note the role ("out", "in") that a weight's own dimension plays."""
        for origin in self.trace.labels.origin_of(plane.reshape(-1).numpy()):
            if self.trace.roles.get(origin) != "in" or role == "in":
                self.trace.roles[origin] = role
            if role == "out":
                self.trace.kinds.setdefault(origin, kind)
                self.trace.producers.append(origin)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        from rlprune.structure.rules import CONTRACTIONS, apply_rule

        kwargs = kwargs or {}
        leaves = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        labelled = any(self.planes(x) for x in leaves)
        if func.overloadpacket in CONTRACTIONS:
            out = _shapes_only(func, args, kwargs)
        else:
            out = func(*args, **kwargs)
        results = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        if labelled:
            apply_rule(self, func, args, kwargs, out)
        if len(leaves) and not labelled and func.overloadpacket in CONTRACTIONS:
            apply_rule(self, func, args, kwargs, out)
        self.trace.steps.append(
            Step(
                self.current(),
                func.overloadpacket.__name__,
                tuple(tuple(r.shape) for r in results),
                tuple(self.planes(r) for r in results),
            )
        )
        return out


def _shapes_only(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Result of an op as zeros: its shape, type and layout come from the op's meta kernel."""
    flat, spec = tree_flatten((args, kwargs))
    devices = [x.device for x in flat if isinstance(x, Tensor)]
    device = devices[0]
    if device.type == "meta":
        return func(*args, **kwargs)
    meta = [
        torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
        if isinstance(x, Tensor)
        else x
        for x in flat
    ]
    meta_args, meta_kwargs = torch.utils._pytree.tree_unflatten(meta, spec)
    out = func(*meta_args, **meta_kwargs)

    def real(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        like = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=device)
        return like.zero_()

    return torch.utils._pytree.tree_map(real, out)
