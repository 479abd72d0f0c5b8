"""Where a network adds what a layer answers to something else: residual additions."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rlprune.compensation.statistics import batch_norms

_ADDITIONS = frozenset(
    [torch.add, *(getattr(torch.Tensor, f) for f in "add add_ __add__ __radd__ __iadd__".split())]
)


@dataclass(frozen=True)
class Term:
    """A layer whose answer is added to something.

    Attributes:
        layer: Path of the layer.
        norm: Path of the batch normalisation between the layer and the addition, if there is one.
    """

    layer: str
    norm: str | None = None


Replace = Callable[[Term, Tensor], "Tensor | None"]
Result = Callable[[Term, Tensor], None]


class Sums(TorchFunctionMode):
    """Finds, while a network runs, additions of a layer's output and a tensor of the same shape.

    The output has to arrive as the layer left it, or through one batch normalisation. Of two layers
    that meet, the one that ``prefer`` ranks higher counts. Enter it around the forward pass.

    Args:
        network: The network that will run.
        layers: Paths of the layers to look out for.
        prefer: Rank of a layer.
        replace: Called before an addition with the term and the other operand; a tensor that it
            returns is added in place of the term's.
        result: Called with the term and the sum.

    Attributes:
        calls: How often each batch normalisation was called, by path.
        normalised: Layers whose output went straight into batch normalisation.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Collection[str],
        prefer: Callable[[str], float],
        *,
        replace: Replace | None = None,
        result: Result | None = None,
    ) -> None:
        super().__init__()
        self._network, self._layers, self._prefer = network, layers, prefer
        self._replace, self._result = replace, result
        self._known: dict[int, tuple[weakref.ref[Tensor], int, Term]] = {}
        self._entering: Term | None = None
        self._stack = ExitStack()
        self.calls: Counter[str] = Counter()
        self.normalised: set[str] = set()

    def __enter__(self) -> Sums:
        """Put hooks on the layers and batch normalisations."""
        norms = {id(norm) for norm in batch_norms(self._network)}
        for path, module in self._network.named_modules():
            if path in self._layers:
                hook = module.register_forward_hook(self._answered(path))
                self._stack.callback(hook.remove)
            elif id(module) in norms:
                before = module.register_forward_pre_hook(self._entered)
                after = module.register_forward_hook(self._normalised(path))
                self._stack.callback(before.remove)
                self._stack.callback(after.remove)
        super().__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        """Take the hooks off."""
        self._stack.close()
        super().__exit__(*details)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Look at additions; everything else passes."""
        if func not in _ADDITIONS or kwargs or len(args) != 2:
            return func(*args, **(kwargs or {}))
        found = self._term(args)
        if found is None:
            return func(*args)
        place, term = found
        new = None if self._replace is None else self._replace(term, args[1 - place])
        if new is not None:
            args = (new, args[1]) if place == 0 else (args[0], new)
        total = func(*args)
        if self._result is not None:
            self._result(term, total)
        return total

    def _term(self, args: tuple[Any, ...]) -> tuple[int, Term] | None:
        if not all(isinstance(x, Tensor) for x in args) or args[0].shape != args[1].shape:
            return None
        terms = [(place, term) for place in (0, 1) if (term := self.origin(args[place]))]
        return max(terms, key=lambda found: self._prefer(found[1].layer), default=None)

    def origin(self, value: Tensor) -> Term | None:
        """The layer that a tensor comes from, where nothing has touched it since."""
        reference, version, term = self._known.get(id(value), (None, 0, None))
        if reference is None or reference() is not value or _version(value) != version:
            return None
        return term

    def _note(self, value: Any, term: Term) -> None:
        if isinstance(value, Tensor):
            self._known[id(value)] = (weakref.ref(value), _version(value), term)

    def _answered(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self._note(output, Term(path))

        return hook

    def _entered(self, module: nn.Module, args: Any) -> None:
        term = self.origin(args[0]) if args and isinstance(args[0], Tensor) else None
        self._entering = term if term is not None and term.norm is None else None
        if self._entering is not None:
            self.normalised.add(self._entering.layer)

    def _normalised(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self.calls[path] += 1
            if self._entering is not None:
                self._note(output, Term(self._entering.layer, path))
                self._entering = None

        return hook


def _version(value: Tensor) -> int:
    """How often a tensor was changed in place; inference tensors do not tell."""
    return 0 if value.is_inference() else value._version
