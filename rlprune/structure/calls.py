"""Which ops of a trace each module call ran, and what went in and out of it.

Hooks are `rlprune.observe`'s elsewhere. Structure lies a floor below and cannot ask it, and what is
noted here belongs to the trace: the ops that ran between two hooks, in its own numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.ops.nested import leaves
from rlprune.structure.records import ModuleCall, Operand
from rlprune.structure.trace import Tracer

_PLAIN = (Tensor, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
"""Arguments that a module cannot leave anything behind in."""


@contextmanager
def calls_noted(model: nn.Module, tracer: Tracer) -> Iterator[None]:
    """Append a `ModuleCall` to ``tracer.trace.calls`` whenever a module of ``model`` returns."""
    names = {id(m): n for n, m in model.named_modules()}
    open_calls: list[tuple[str, int, Operand | None]] = []

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        if id(module) in names:
            tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
            plain = all(map(_leaves_nothing, leaves((args, kwargs))))
            source = tracer.source(tensors[0]) if tensors and plain else None
            open_calls.append((names[id(module)], len(tracer.trace.steps), source))

    def leave(module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> None:
        name = names.get(id(module))
        while name is not None and open_calls:
            opened, start, source = open_calls.pop()
            if opened == name:
                result, nones = _result(output)
                made = None if result is None else tracer.source(result)
                end = len(tracer.trace.steps)
                tracer.trace.calls.append(ModuleCall(name, start, end, source, made, nones))
                return

    handles = [
        model_part.register_forward_pre_hook(enter, with_kwargs=True, prepend=True)
        for model_part in model.modules()
    ]
    handles += [
        model_part.register_forward_hook(leave, with_kwargs=True) for model_part in model.modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _leaves_nothing(value: Any) -> bool:
    """Whether a module can leave nothing in an argument that anybody else would find there.

    Every attention layer has a place of its own in a cache of transformers.
    """
    return isinstance(value, _PLAIN) or any(
        kind.__name__ == "Cache" and kind.__module__.startswith("transformers.")
        for kind in type(value).__mro__
    )


def _result(output: Any) -> tuple[Tensor | None, int]:
    """The one tensor that a call returns and the Nones after it (-1: no tuple)."""
    if isinstance(output, Tensor):
        return output, -1
    if type(output) is tuple and output and isinstance(output[0], Tensor):
        return (output[0], len(output) - 1) if all(x is None for x in output[1:]) else (None, -1)
    return None, -1
