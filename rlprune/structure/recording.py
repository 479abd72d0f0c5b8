"""One forward pass, op for op, without computing products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from rlprune.attention import adapted
from rlprune.errors import StructureError
from rlprune.modes import attention_spelled_out
from rlprune.ops import Op, find, name_of
from rlprune.ops.nested import leaves
from rlprune.ops.skipping import zeros_like_result
from rlprune.structure.records import Step


class ValuesNeededError(StructureError):
    """The forward pass looks at values while products are not computed."""


@contextmanager
def module_path(model: nn.Module) -> Iterator[Callable[[], str]]:
    """Yield a function that names the module whose forward is running ("" for the model itself).

    After an error it names the module that failed.
    """
    names = {id(m): n for n, m in model.named_modules()}
    stack: list[str] = []

    def enter(module: nn.Module, _inputs: Any) -> None:
        if id(module) in names:
            stack.append(names[id(module)])

    def leave(module: nn.Module, _inputs: Any, _output: Any) -> None:
        name = names.get(id(module))
        if name in stack:
            while stack.pop() != name:
                pass

    handles = [
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave),
    ]
    try:
        yield lambda: stack[-1] if stack else ""
    finally:
        for handle in handles:
            handle.remove()


class Skipping(TorchDispatchMode):
    """Runs ops, with zeros of the right shape in the place of products.

    Contractions (convolutions, matrix products, attention) are not computed unless ``compute`` is
    set, so a pass costs bookkeeping rather than arithmetic.

    Attributes:
        current: path of the running module.
        compute: whether products are computed.
        skipped: whether some product was not.
    """

    def __init__(self, current: Callable[[], str], compute: bool = False) -> None:
        super().__init__()
        self.current, self.compute, self.skipped = current, compute, False

    def where(self, op: str = "") -> str:
        """The running module and op, in words."""
        module = self.current() or "the model's own forward"
        return f"{op} in {module}" if op else module

    def result(
        self, op: Op, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], operands: Any
    ) -> Any:
        """What an op gives, given all tensors among its arguments too.

        Raises:
            ValuesNeededError: it looks at values that are not computed.
        """
        if op.macs is not None and not self.compute:
            self.skipped = True
            return zeros_like_result(func, args, kwargs)
        if self.skipped and op.looks_in(args) and not any(x.is_meta for x in operands):
            raise ValuesNeededError(f"{self.where(name_of(func))} looks at values")
        return func(*args, **kwargs)

    def leave(self, tensor: Tensor, how: str) -> None:
        """A tensor goes where no op can be seen: NumPy, a Python list.

        Raises:
            ValuesNeededError: its values are not computed.
        """
        if self.skipped and tensor.device.type != "meta":
            raise ValuesNeededError(f"{self.where(how)} looks at values")


class Leaving(TorchFunctionMode):
    """Notices when a tensor becomes a NumPy array or Python numbers, which no op shows."""

    WAYS = frozenset([Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__])

    def __init__(self, mode: Skipping) -> None:
        super().__init__()
        self.mode = mode

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in self.WAYS:
            with _disable_current_modes():  # what labels go through is no op of the network
                self.mode.leave(args[0], func.__name__)
        return func(*args, **(kwargs or {}))


@contextmanager
def running(mode: Skipping, model: nn.Module) -> Iterator[None]:
    """Let a mode see every op of a network, with attention spelled out and noise left alone."""
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    with (
        torch.random.fork_rng(devices=sorted(d for d in devices if d is not None)),
        adapted(model),
        attention_spelled_out(),
        torch.no_grad(),
        mode,
        Leaving(mode),
    ):
        yield


class Recorder(Skipping):
    """Notes which ops run, on numbers and shapes alone.

    Attributes:
        steps: the ops, without labels and operands.
    """

    def __init__(self, current: Callable[[], str], compute: bool = False) -> None:
        super().__init__(current, compute)
        self.steps: list[Step] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = leaves((args, kwargs))
        operands = [x for x in given if isinstance(x, Tensor)]
        out = self.result(find(func), func, args, kwargs, operands)
        shapes = tuple(tuple(r.shape) for r in leaves(out) if isinstance(r, Tensor))
        numbers = tuple(x for x in given if not isinstance(x, Tensor))
        self.steps.append(Step(self.current(), name_of(func), shapes, (), numbers))
        return out
