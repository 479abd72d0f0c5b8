"""A reference to a pruning problem that Gymnasium may copy as often as it likes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rlprune.plan import Plan
from rlprune.space import Codec

if TYPE_CHECKING:
    from rlprune.problem import Evaluation, Problem


class ProblemHandle:
    """Shares one problem between environments.

    Gymnasium deep-copies the keyword arguments of ``make`` into ``env.spec``; a deep copy of a
    handle is the handle itself, so networks, data and caches are never duplicated and every
    environment made from the handle counts on the same ledger.

    The rule of pickling: a handle of a *function* pickles as that function, and the other process
    builds a problem of its own with it. A handle of a live problem does not pickle.

    Args:
        problem: a ``Problem``, or a function without arguments that builds one (called at most
            once in a process, when the first environment needs it).
    """

    def __init__(self, problem: Problem | Callable[[], Problem]) -> None:
        self._given: Any = problem
        self._live: Any = problem if hasattr(problem, "space") else None
        self._codecs: dict[tuple[str | Plan, bool], Codec] = {}
        self._references: dict[tuple[str | Plan, bool], Evaluation] = {}

    @classmethod
    def of(cls, problem: Any) -> ProblemHandle:
        """Returns ``problem`` as a handle, wrapping it unless it already is one."""
        return problem if isinstance(problem, cls) else cls(problem)

    @property
    def problem(self) -> Problem:
        """The problem itself, built on first use when a function was given."""
        if self._live is None:
            if not callable(self._given):
                raise TypeError(
                    "problem must be a Problem, a function without arguments that returns one, "
                    f"or a ProblemHandle; got {type(self._given).__name__}"
                )
            self._live = self._given()
        return self._live

    def codec(self, anchor: str | Plan = "uniform", *, project: bool = True) -> Codec:
        """What actions around an anchor stand for; computed once."""
        key = (anchor, project)
        if key not in self._codecs:
            costs = next((codec.costs for codec in self._codecs.values()), None)
            self._codecs[key] = Codec(self.problem, anchor, project=project, costs=costs)
        return self._codecs[key]

    def adopt(self, codec: Codec) -> None:
        """Takes a codec of the problem that somebody else has built."""
        self._codecs[codec.around, codec.project] = codec

    def reference(self, anchor: str | Plan = "uniform", *, project: bool = True) -> Evaluation:
        """Evaluation of the plan that action 0 everywhere stands for; asked for once."""
        key = (anchor, project)
        if key not in self._references:
            codec = self.codec(anchor, project=project)
            self._references[key] = self.problem.evaluate(codec.plan_of(codec.anchor))
        return self._references[key]

    def __copy__(self) -> ProblemHandle:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ProblemHandle:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self._given is self._live:
            raise TypeError(
                "an environment of a live problem cannot be pickled: its network, data and ledger "
                "belong to this process; make it with a function that builds the problem instead"
            )
        return ProblemHandle, (self._given,)

    def __repr__(self) -> str:
        return f"ProblemHandle({type(self._given).__name__})"
