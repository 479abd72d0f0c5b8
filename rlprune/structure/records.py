"""What a trace keeps: labels, ops, products to count, and conditions to settle at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from rlprune.ops.labels import Planes
from rlprune.ops.notes import Notes
from rlprune.structure.call_sites import CallSite


@dataclass(frozen=True)
class Operand:
    """An operand's origin: result ``result`` of step ``step``, or ``Trace.tensors[tensor]``.

    Both numbers are -1 for an input of the network or a constant.
    """

    step: int = -1
    result: int = 0
    tensor: int = -1


@dataclass(frozen=True)
class Step:
    """One op of the trace, kept to find the op where a compacted network departs from it.

    ``args`` and ``kwargs`` are those of the call with every tensor replaced by its `Operand`.
    ``free`` holds, for every result, dimensions along which it is one value: a constant whose size
    may follow a width that it meets.
    """

    module: str
    op: str
    shapes: tuple[tuple[int, ...], ...]
    planes: tuple[Planes, ...]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    free: tuple[frozenset[int], ...] = ()


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module.

    Attributes:
        module: its path.
        start: number of its first step.
        end: number of the step after its last.
        input: its first tensor argument; None when it has none, or was given an object that it may
            leave something in.
        output: the tensor it returned; None when it returned something else.
        nones: Nones that followed the tensor in a returned tuple; -1 when it was no tuple.
    """

    module: str
    start: int
    end: int
    input: Operand | None
    output: Operand | None
    nones: int = -1


@dataclass(frozen=True)
class Branch:
    """A residual branch that a plan may drop: what it adds is then zero and it does not run.

    Attributes:
        name: path of the module that all of it lies in.
        groups: the groups inside, which are emptied together.
        zeros: modules that a network without the branch replaces by `Zeros`, with their ``nones``.
        skips: modules after the zeros, replaced by `Skip`.
        silence: parameters that, set to zero, make the branch's result exactly zero.
        tensors: state-dict names of all tensors that go with the branch.
        covered: numbers of the steps that are not run without the branch.
        loose: numbers of the steps that then run on tensors of another size.
    """

    name: str
    groups: tuple[str, ...]
    zeros: Mapping[str, int]
    skips: tuple[str, ...]
    silence: tuple[str, ...]
    tensors: frozenset[str]
    covered: frozenset[int]
    loose: frozenset[int]

    @property
    def modules(self) -> tuple[str, ...]:
        """Paths of all modules that are replaced when the branch is dropped."""
        return (*self.zeros, *self.skips)

    def holds(self, path: str) -> bool:
        """Whether a module path or state-dict name goes with the branch."""
        return any(path == m or path.startswith(f"{m}.") for m in self.modules)


@dataclass(frozen=True)
class Whole:
    """A module left whole because its units cannot be told apart, and why."""

    module: str
    width: int
    reason: str


@dataclass
class Trace(Notes):
    """Everything one traced forward pass has established.

    Attributes:
        computed: whether the forward looks at values that products give, so that with other
            weights it may take other ways.
        sites: where steps that are told sizes are called, by their numbers.
    """

    names: list[str] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    roles: dict[int, str] = field(default_factory=dict)
    producers: list[int | Whole] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    calls: list[ModuleCall] = field(default_factory=list)
    outputs: set[int] = field(default_factory=set)
    computed: bool = False
    sites: dict[int, CallSite] = field(default_factory=dict)

    def state(self) -> tuple[Any, ...]:
        """What `restore` needs to forget everything that happens from now on."""
        return (
            self.labels.state(),
            (len(self.producers), len(self.rectangles), len(self.meetings)),
            (dict(self.roles), dict(self.kinds), dict(self.grouped), set(self.outputs)),
        )

    def restore(self, state: tuple[Any, ...]) -> None:
        """Go back to an earlier `state`; ops and contractions recorded since then stay."""
        labels, (producers, rectangles, meetings), rest = state
        self.labels.restore(labels)
        del self.producers[producers:], self.rectangles[rectangles:], self.meetings[meetings:]
        self.roles, self.kinds, self.grouped, self.outputs = rest
