"""A reference to the live pruning problem that Gymnasium may copy as often as it likes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from rlprune.problem import Evaluation, Problem
    from rlprune_envs.setting import Setting

_REMEMBERED = 1024


class ProblemHandle:
    """Shares one problem between environments.

    Gymnasium deep-copies the keyword arguments of ``make`` into ``env.spec``; a deep copy of a
    handle is the handle itself, so networks, data and caches are never duplicated and every
    environment made from the handle counts on the same ledger.

    Args:
        problem: a ``Problem``, or a function without arguments that builds one (called at most
            once, when the first environment needs it).
    """

    def __init__(self, problem: Problem | Callable[[], Problem]) -> None:
        self._problem: Any = problem
        self._built = hasattr(problem, "decisions")
        self._settings: dict[str, Setting] = {}
        self._references: dict[tuple[str, bool], Evaluation] = {}
        self._projected: dict[bytes, tuple[int, ...]] = {}

    @classmethod
    def of(cls, problem: Any) -> ProblemHandle:
        """Returns ``problem`` as a handle, wrapping it unless it already is one."""
        return problem if isinstance(problem, cls) else cls(problem)

    @property
    def problem(self) -> Problem:
        """The problem itself, built on first use when a factory was given."""
        if not self._built:
            if not callable(self._problem):
                raise TypeError(
                    "problem must be a Problem, a function without arguments that returns one, "
                    f"or a ProblemHandle; got {type(self._problem).__name__}"
                )
            self._problem = self._problem()
            self._built = True
        return self._problem

    def setting(self, anchor: str = "uniform") -> Setting:
        """What environments of this problem with one anchor share; computed once."""
        if anchor not in self._settings:
            from rlprune_envs.setting import Setting

            if anchor == "uniform":
                self._settings[anchor] = Setting.of(self.problem)
            else:
                self._settings[anchor] = self.setting().anchored(self.problem, anchor)
        return self._settings[anchor]

    def reference(self, anchor: str = "uniform", *, project: bool) -> Evaluation:
        """Evaluation of the plan that action 0 everywhere stands for; asked for once."""
        key = (anchor, project)
        if key not in self._references:
            self._references[key] = self.problem.evaluate(
                self.final_widths(self.setting(anchor).anchor, project=project)
            )
        return self._references[key]

    def final_widths(self, ratios: np.ndarray, *, project: bool) -> tuple[int, ...]:
        """Legal widths that ``[n]`` keep ratios are evaluated at."""
        if not project:
            return self.setting().widths(ratios)
        from rlprune.problem import projection

        key = ratios.tobytes()
        if key not in self._projected:
            if len(self._projected) >= _REMEMBERED:
                self._projected.clear()
            widths = projection.project(self.problem, ratios.tolist())
            self._projected[key] = tuple(int(width) for width in widths)
        return self._projected[key]

    def __copy__(self) -> ProblemHandle:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ProblemHandle:
        return self

    def __repr__(self) -> str:
        return f"ProblemHandle({type(self._problem).__name__})"
