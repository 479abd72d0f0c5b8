"""One forward pass under a dispatch mode that carries labels beside every tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from rlprune.ops import find, name_of
from rlprune.ops.labels import Planes, compress_all
from rlprune.ops.nested import leaves, mapped
from rlprune.ops.notes import Contraction
from rlprune.ops.pending import Pending
from rlprune.ops.table import apply_rule, leave_whole
from rlprune.ops.uniform import Uniform
from rlprune.structure.call_sites import SIZED, calling_site
from rlprune.structure.recording import Skipping
from rlprune.structure.records import Operand, Step, Trace, Whole

WIDTHS = ("out_features", "out_channels", "hidden_size", "embedding_dim", "num_features")
CLOSED = (nn.RNNBase, nn.RNNCellBase)
"""Modules that are left whole: what goes in and out of them keeps its size."""


class Tracer(Skipping):
    """Runs each op, then asks the op's rule what it does to labels.

    Attributes:
        trace: what has been found so far.
    """

    def __init__(self, model: nn.Module, current: Callable[[], str], compute: bool = False) -> None:
        super().__init__(current, compute)
        self.trace = Trace(computed=compute)
        self._quiet = False
        self._closed = {n: type(m) for n, m in model.named_modules() if isinstance(m, CLOSED)}
        self._modules = dict(model.named_modules())
        self._parameters = {n for n, _ in model.named_parameters(remove_duplicate=False)}
        self._known: dict[int, int] = {}
        self._met: list[Tensor] = []
        self._planes: Any = WeakIdKeyDictionary()
        self.uniform = Uniform()
        self.pending = Pending(self.trace.labels)
        self._weights: Any = WeakIdKeyDictionary()
        self._made: Any = WeakIdKeyDictionary()
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

    def untouched(self) -> list[str]:
        """Names of the parameters that no op has used so far."""
        return [
            name
            for name, tensor in zip(self.trace.names, self.trace.tensors, strict=True)
            if name in self._parameters and tensor not in self._planes
        ]

    def continue_quietly(self, current: Callable[[], str], compute: bool = False) -> None:
        """From now on follow labels alone: ops and their costs are no longer recorded."""
        self.current = current
        self.compute, self.skipped = compute, False
        self._quiet = True

    def state(self) -> tuple[Any, ...]:
        """What `restore` needs to forget everything that happens from now on."""
        return self.trace.state(), len(self._met)

    def restore(self, state: tuple[Any, ...]) -> None:
        """Go back to an earlier `state`: a pass that failed leaves nothing behind."""
        trace, met = state
        self.trace.restore(trace)
        for tensor in self._met[met:]:
            del self._planes[tensor], self._weights[tensor]
        del self._met[met:]

    def record(self, contraction: Contraction) -> None:
        """Note the multiply-accumulates of one op."""
        if not self._quiet:
            self.trace.contractions.append(contraction)

    def note_whole(self, reason: str, inputs: Sequence[Tensor] = ()) -> None:
        """List the running module as left whole.

        It is listed if it says how wide it is and the op has used its parameters, directly
        (``inputs``) or, where none are given, through what the module computes from them.
        """
        module = self.current().split(".parametrizations.")[0]
        sizes = [getattr(self._modules[module], a, None) for a in WIDTHS]
        width = next((n for n in sizes if isinstance(n, int)), None)
        known = [self._known.get(id(x)) for x in inputs]
        names = [self.trace.names[k] for k in known if k is not None]
        own = any(n in self._parameters and n.startswith(module) for n in names)
        computed = not inputs and hasattr(self._modules[module], "weight")
        if width is not None and (own or computed):
            self.trace.producers.append(Whole(module, width, reason))

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
        self._met.append(tensor)
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

    def leave(self, tensor: Tensor, how: str) -> None:
        """A tensor goes where no op can be seen (NumPy, a Python list): its units are frozen.

        Raises:
            ValuesNeededError: its values are not computed.
        """
        super().leave(tensor, how)
        self.freeze(self.planes(tensor), f"{self.where(how)}: its values leave PyTorch")
        self.pending.use(tensor)

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
        kwargs = kwargs or {}
        op = find(func)
        operands = [x for x in leaves((args, kwargs)) if isinstance(x, Tensor)]
        labelled = any([self.planes(x) for x in operands])
        given_args, given_kwargs = mapped(self._source, (args, kwargs))
        contraction = op.macs is not None
        given = args
        if torch.Tag.inplace_view in func.tags:
            given = (_before(args[0], self), *args[1:])
        out = self.result(op, func, args, kwargs, operands)
        results = [x for x in leaves(out) if isinstance(x, Tensor)]
        self.pending.follow(func, operands, results)
        if labelled and self.current() in self._closed:
            kind = self._closed[self.current()].__name__
            reason = f"{self.where(kind)}: recurrent layers keep their size"
            leave_whole(self, func, reason, args, kwargs, out)
        elif labelled or (operands and contraction):
            apply_rule(self, func, given, kwargs, out)
        else:
            self.uniform.note(op, func, operands, results)
        if not self._quiet:
            shapes = tuple(tuple(r.shape) for r in results)
            planes = tuple(self.planes(r) for r in results)
            for k, result in enumerate(results):
                self._made[result] = Operand(len(self.trace.steps), k)
            free = tuple(frozenset(self.uniform.sizes(r, r.ndim)) for r in results)
            step = Step(
                self.current(), name_of(func), shapes, planes, given_args, given_kwargs, free
            )
            if step.op in SIZED:
                site = calling_site(step.module, self._modules[step.module])
                if site is not None:
                    self.trace.sites[len(self.trace.steps)] = site
            self.trace.steps.append(step)
        return out

    def _source(self, value: Any) -> Any:
        """What stands for an operand in a `Step`; anything but a tensor stands for itself."""
        return self.source(value) if isinstance(value, Tensor) else value

    def source(self, value: Tensor) -> Operand:
        """Where a tensor came from."""
        made = self._made.get(value)
        return Operand(tensor=self._known.get(id(value), -1)) if made is None else made


def _before(tensor: Tensor, tracer: Tracer) -> Tensor:
    """A stand-in for a tensor whose shape is about to be changed in place."""
    kept = tensor.detach()
    tracer.set_planes(kept, tracer.planes(tensor), tracer.is_weight(tensor))
    return kept
