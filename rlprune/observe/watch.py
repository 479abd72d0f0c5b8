"""Calls of modules and functions while a network runs: the one place that hooks into networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from rlprune.errors import ConfigError


@dataclass
class Call:
    """One call of a module or a function, as it happens; what it holds is the network's own.

    Attributes:
        name: The module's path or the function's name.
        number: Calls of the same before it in this pass of the network.
        args: What it was called with; before the call a watcher may put something else here.
        kwargs: Likewise.
        module: The module; None for a function.
        output: What it returned, once it has; after the call a watcher may put something else here.
    """

    name: str
    number: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    module: nn.Module | None = None
    output: Any = None


Watcher = Callable[[Call], None]
"""Looks at a call, and may change what goes in or comes out."""


class Watch:
    """Shows calls of a network's modules, and of functions inside them, to watchers.

    Name what to watch, then run the network inside ``with watch:``. The hooks come off at its end,
    also when the network or a watcher raises, and a watch can be entered again. Calls that
    activation checkpointing repeats in the backward pass are not shown.

    PyTorch's fused path through ``nn.TransformerEncoderLayer`` calls no submodule and gives way
    where hooks are: outputs are then, to the last bit, those of
    :func:`rlprune.modes.attention_spelled_out`.

    Args:
        network: The network; its calls start a new pass, in which calls are counted from 0.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._modules: list[tuple[str, Watcher, bool]] = []
        self._functions: list[_FunctionWatch] = []
        self._counts: Counter[object] = Counter()
        self._running: Counter[str] = Counter()
        self._stack: ExitStack | None = None

    def module(
        self, path: str, *, before: Watcher | None = None, after: Watcher | None = None
    ) -> None:
        """Watch the calls of the module at a path ("" is the network).

        Raises:
            ConfigError: There is no such module.
        """
        submodule(self._network, path)
        if before is not None:
            self._modules.append((path, before, True))
        if after is not None:
            self._modules.append((path, after, False))

    def function(
        self,
        names: str | Sequence[str],
        *,
        within: str = "",
        before: Watcher | None = None,
        after: Watcher | None = None,
        reads: Callable[[Call], bool] | None = None,
    ) -> None:
        """Watch the calls of functions by their names in ``torch`` and as functionals or methods.

        Args:
            names: For instance ``linear``, ``softmax``, ``add`` (``+`` and ``+=`` are calls of it);
                calls of several are counted together.
            within: Only calls while the module at this path runs.
            before: Sees each call before it happens.
            after: Sees each call after it happened.
            reads: Only calls of which this is true; others are not counted.

        Raises:
            ConfigError: There is no such function or module.
        """
        submodule(self._network, within)
        names = (names,) if isinstance(names, str) else names
        found = {function: name for name in names for function in functions_named(name)}
        self._functions.append(_FunctionWatch(found, within, before, after, reads))

    def __enter__(self) -> Watch:
        """Put the hooks on."""
        if self._stack is not None:
            raise RuntimeError("this watch is entered already")
        with ExitStack() as stack:
            handle = self._network.register_forward_pre_hook(self._begin, prepend=True)
            stack.callback(handle.remove)
            for path in {f.within for f in self._functions}:
                part = submodule(self._network, path)
                handles = (
                    part.register_forward_pre_hook(self._entering(path)),
                    part.register_forward_hook(self._leaving(path), always_call=True),
                )
                for handle in handles:
                    stack.callback(handle.remove)
            for index, (path, watcher, before) in enumerate(self._modules):
                part = submodule(self._network, path)
                if before:
                    hook = self._before(path, watcher, index)
                    handle = part.register_forward_pre_hook(hook, with_kwargs=True)
                else:
                    hook = self._after(path, watcher, index)
                    handle = part.register_forward_hook(hook, with_kwargs=True)
                stack.callback(handle.remove)
            if self._functions:
                stack.enter_context(_FunctionMode(self))
            self._stack = stack.pop_all()
        self._begin()
        return self

    def __exit__(self, *details: Any) -> None:
        """Take the hooks off."""
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    def _begin(self, *_: Any) -> None:
        """A new pass of the network begins."""
        if not recomputing():
            self._counts.clear()
            self._running.clear()

    def number(self, key: object) -> int:
        """Times this was asked before in this pass."""
        self._counts[key] += 1
        return self._counts[key] - 1

    def _entering(self, path: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self._running[path] += 1

        return hook

    def _leaving(self, path: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self._running[path] -= 1

        return hook

    def _before(self, path: str, watcher: Watcher, index: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> Any:
            if recomputing():
                return None
            call = Call(path, self.number(index), args, kwargs, module)
            watcher(call)
            changed = call.args is not args or call.kwargs is not kwargs
            return (call.args, call.kwargs) if changed else None

        return hook

    def _after(self, path: str, watcher: Watcher, index: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            if recomputing():
                return None
            call = Call(path, self.number(index), args, kwargs, module, output)
            watcher(call)
            return None if call.output is output else call.output

        return hook

    def called(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function and show it to those who watch it."""
        shown: list[tuple[Watcher, Call]] = []
        for index, watched in enumerate(self._functions):
            if function not in watched.functions or recomputing():
                continue
            if not self._running[watched.within]:
                continue
            call = Call(watched.functions[function], 0, args, kwargs)
            if watched.reads is not None and not watched.reads(call):
                continue
            call.number = self.number(("function", index))
            if watched.before is not None:
                watched.before(call)
                args, kwargs = call.args, call.kwargs
            if watched.after is not None:
                shown.append((watched.after, call))
        output = function(*args, **kwargs)
        for watcher, call in shown:
            call.args, call.kwargs, call.output = args, kwargs, output
            watcher(call)
            output = call.output
        return output

    def watched(self) -> frozenset[Any]:
        """The functions that somebody watches."""
        return frozenset().union(*(f.functions for f in self._functions))


@dataclass(frozen=True)
class _FunctionWatch:
    functions: dict[Any, str]
    within: str
    before: Watcher | None
    after: Watcher | None
    reads: Callable[[Call], bool] | None


class _FunctionMode(TorchFunctionMode):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch, self._watched = watch, watch.watched()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in self._watched:
            return self._watch.called(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def recomputing() -> bool:
    """Whether a backward pass is under way, in which checkpointing runs forwards again."""
    return torch._C._current_graph_task_id() != -1


def submodule(network: nn.Module, path: str) -> nn.Module:
    """The module at a path.

    Raises:
        ConfigError: There is none; names the nearest.
    """
    try:
        return network.get_submodule(path)
    except AttributeError:
        raise ConfigError(
            f"the network has no module {path!r}; {nearest(path, dict(network.named_modules()))}"
        ) from None


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint at the names most like one that does not exist."""
    from difflib import get_close_matches

    found = get_close_matches(name, list(names), n=3, cutoff=0.3)
    return f"did you mean {', '.join(map(repr, found))}?" if found else "nothing is named like it"


@cache
def functions_named(name: str) -> frozenset[Any]:
    """The functions and tensor methods of a name, in-place and operator forms included.

    Raises:
        ConfigError: There is none.
    """
    forms = (name, f"{name}_", f"__{name}__", f"__r{name}__", f"__i{name}__")
    places = ((torch, forms[:2]), (functional, forms[:2]), (Tensor, forms))
    found = {getattr(place, form, None) for place, names in places for form in names}
    if found <= {None}:
        raise ConfigError(f"there is no function {name!r} in torch, its functional or Tensor")
    return frozenset(found - {None})
