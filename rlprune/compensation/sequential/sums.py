"""Where a network adds what a layer answers to something else: residual additions."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from rlprune.compensation.statistics import batch_norms
from rlprune.observe import Call, Watch


@dataclass(frozen=True)
class Addend:
    """A layer whose answer is added to something.

    Attributes:
        layer: Path of the layer.
        norm: Path of the batch normalisation between the layer and the addition, if there is one.
    """

    layer: str
    norm: str | None = None


Replace = Callable[[Addend, Tensor], "Tensor | None"]
Result = Callable[[Addend, Tensor], None]


class Sums:
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
        self._prefer, self._replace, self._result = prefer, replace, result
        self._known: dict[int, tuple[weakref.ref[Tensor], int, Addend]] = {}
        self._entering: Addend | None = None
        self._adding: Addend | None = None
        self.calls: Counter[str] = Counter()
        self.normalised: set[str] = set()
        self._watch = Watch(network)
        norms = {id(norm) for norm in batch_norms(network)}
        for path, module in network.named_modules():
            if path in layers:
                self._watch.module(path, after=self._answered)
            elif id(module) in norms:
                self._watch.module(path, before=self._entered, after=self._left)
        self._watch.function("add", before=self._add, after=self._added)

    def __enter__(self) -> Sums:
        """Begin to look."""
        self._watch.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        """Look no more."""
        self._watch.__exit__(*details)

    def _add(self, call: Call) -> None:
        self._adding = None
        if call.kwargs or len(call.args) != 2:
            return
        found = self._term(call.args)
        if found is None:
            return
        place, self._adding = found
        new = None
        if self._replace is not None:
            new = self._replace(self._adding, call.args[1 - place])
        if new is not None:
            call.args = (new, call.args[1]) if place == 0 else (call.args[0], new)

    def _added(self, call: Call) -> None:
        if self._adding is not None and self._result is not None:
            self._result(self._adding, call.output)

    def _term(self, args: tuple[Any, ...]) -> tuple[int, Addend] | None:
        if not all(isinstance(x, Tensor) for x in args) or args[0].shape != args[1].shape:
            return None
        terms = [(place, term) for place in (0, 1) if (term := self.origin(args[place]))]
        return max(terms, key=lambda found: self._prefer(found[1].layer), default=None)

    def origin(self, value: Tensor) -> Addend | None:
        """The layer that a tensor comes from, where nothing has touched it since."""
        reference, version, term = self._known.get(id(value), (None, 0, None))
        if reference is None or reference() is not value or _version(value) != version:
            return None
        return term

    def _note(self, value: Any, term: Addend) -> None:
        if isinstance(value, Tensor):
            self._known[id(value)] = (weakref.ref(value), _version(value), term)

    def _answered(self, call: Call) -> None:
        self._note(call.output, Addend(call.name))

    def _entered(self, call: Call) -> None:
        lead = call.args[0] if call.args else None
        term = self.origin(lead) if isinstance(lead, Tensor) else None
        self._entering = term if term is not None and term.norm is None else None
        if self._entering is not None:
            self.normalised.add(self._entering.layer)

    def _left(self, call: Call) -> None:
        self.calls[call.name] += 1
        if self._entering is not None:
            self._note(call.output, Addend(self._entering.layer, call.name))
            self._entering = None


def _version(value: Tensor) -> int:
    """How often a tensor was changed in place; inference tensors do not tell."""
    return 0 if value.is_inference() else value._version
