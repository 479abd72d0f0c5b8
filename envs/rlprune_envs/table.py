"""The ansi rendering: the plan so far as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlprune.problem import Evaluation, Problem

_BAR = 20


def plan_table(
    problem: Problem, widths: Sequence[int], evaluation: Evaluation | None = None
) -> str:
    """Draws dense width, kept width and keep ratio of every group decided so far.

    Args:
        problem: names and dense widths are read from its decisions.
        widths: kept widths of the first ``len(widths)`` groups.
        evaluation: adds quality and each budget's value and limit underneath.
    """
    name = max([len(g.name) for g in problem.decisions] + [5])
    lines = [f"{'group':<{name}}  {'dense':>6}  {'kept':>6}  {'ratio':>6}"]
    for index, group in enumerate(problem.decisions):
        if index < len(widths):
            ratio = widths[index] / group.width
            bar = "#" * round(_BAR * ratio)
            kept = f"{widths[index]:>6}  {ratio:>6.1%}  {bar}"
        else:
            kept = f"{'-':>6}  {'-':>6}"
        lines.append(f"{group.name:<{name}}  {group.width:>6}  {kept}")
    if evaluation is not None:
        lines.append(f"quality {evaluation.quality:.6g}")
        for budget in problem.budgets:
            cost = evaluation.costs[budget.name]
            verdict = "met" if evaluation.violations[budget.name] <= 0 else "exceeded"
            lines.append(f"{budget.name} {cost:.6g} of {budget.limit:.6g} ({verdict})")
    return "\n".join(lines) + "\n"
