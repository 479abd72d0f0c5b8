"""A plan as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlprune.plan import Plan
    from rlprune.problem import Evaluation, Problem

_BAR = 20


def plan_table(
    problem: Problem, plan: Plan, decided: int, evaluation: Evaluation | None = None
) -> str:
    """Draws dense width, kept width and keep ratio of every group decided so far.

    Args:
        problem: names and dense widths are read from its groups.
        plan: what is kept.
        decided: decisions taken; groups of later ones are left open.
        evaluation: adds quality and each budget's value and limit underneath.
    """
    known = {c for d in problem.space.decisions[:decided] for c in d.columns}
    groups = problem.space.groups.prunable
    name = max([len(g.name) for g in groups] + [5])
    lines = [f"{'group':<{name}}  {'dense':>6}  {'kept':>6}  {'ratio':>6}"]
    for column, group in enumerate(groups):
        kept = f"{'-':>6}  {'-':>6}"
        if column in known:
            width = plan.widths[group.name]
            ratio = width / group.width
            kept = f"{width:>6}  {ratio:>6.1%}  {'#' * round(_BAR * ratio)}"
        lines.append(f"{group.name:<{name}}  {group.width:>6}  {kept}")
    if evaluation is not None:
        lines.append(f"quality {evaluation.quality:.6g}")
        for budget in problem.budgets:
            cost = evaluation.costs[budget.name]
            verdict = "met" if evaluation.violations[budget.name] <= 0 else "exceeded"
            lines.append(f"{budget.name} {cost:.6g} of {budget.limit:.6g} ({verdict})")
    return "\n".join(lines) + "\n"
