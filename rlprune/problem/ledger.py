"""What one search has paid for, in the two units in which searches are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import overload

from rlprune.plan import Plan
from rlprune.problem.evaluation import Evaluation


class Ledger(Sequence[Evaluation]):
    """Unique evaluations in the order of their first request, and calls of black-box budgets.

    What a store answers counts as if it had been computed: a replayed search has the same ledger.

    Args:
        black_boxes: names of the budgets whose calls are counted.

    Attributes:
        calls: budget name -> distinct plans that it was called for.
        seconds: budget name -> what these calls took.
        priced: plan -> values of the black boxes, in the order of the first request.
    """

    def __init__(self, black_boxes: Iterable[str] = ()) -> None:
        self.calls = dict.fromkeys(black_boxes, 0)
        self.seconds = dict.fromkeys(self.calls, 0.0)
        self._evaluations: list[Evaluation] = []
        self._by_plan: dict[Plan, Evaluation] = {}
        self.priced: dict[Plan, dict[str, float]] = {}

    def find(self, plan: Plan) -> Evaluation | None:
        """The evaluation of a plan, if it was asked for."""
        return self._by_plan.get(plan)

    def add(self, evaluation: Evaluation) -> None:
        """Books a new evaluation."""
        self._by_plan[evaluation.plan] = evaluation
        self._evaluations.append(evaluation)

    def called(self, plan: Plan, values: Mapping[str, float], seconds: Mapping[str, float]) -> None:
        """Books what the black boxes said of a plan; the same plan counts once."""
        if plan in self.priced:
            return
        self.priced[plan] = dict(values)
        for name in self.calls:
            self.calls[name] += 1
            self.seconds[name] += seconds.get(name, 0.0)

    def __len__(self) -> int:
        return len(self._evaluations)

    @overload
    def __getitem__(self, at: int) -> Evaluation: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Evaluation]: ...

    def __getitem__(self, at: int | slice) -> Evaluation | Sequence[Evaluation]:
        return self._evaluations[at]
