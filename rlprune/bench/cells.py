"""Cells of the search benchmark: what is asked for, and what one search left behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlprune.bench.workbench import Workbench
from rlprune.budgets import ResolvedBudget
from rlprune.compaction import build
from rlprune.errors import ConfigError
from rlprune.files import plain, read_json, write_json, write_text
from rlprune.plan import Plan
from rlprune.problem import Problem
from rlprune.run import values_of
from rlprune.search import SearchResult, resolve_agent, search

_PARTS = ("build", "compensate", "forward", "cost")


@dataclass(frozen=True)
class Cell:
    """One search.

    Attributes:
        label: Name of the row, the agent's unless the configuration gives another.
        agent: The agent's name and every option.
        evaluations: Unique evaluations.
        seed: Decides every random choice.
    """

    label: str
    agent: dict[str, Any]
    evaluations: int
    seed: int

    @property
    def file(self) -> str:
        """Name of the cell's JSON file."""
        return f"{self.label}-{self.evaluations}-{self.seed}.json"

    def finished(self, bench: Workbench) -> dict[str, Any] | None:
        """The cell's result, if it is there and was made for this problem with these options."""
        content = read_json(bench.folder / "cells" / self.file)
        if not isinstance(content, dict) or content.get("agent") != plain(self.agent):
            return None
        return content if content.get("identity") == bench.identity else None


def planned(options: Mapping[str, Any]) -> list[Cell]:
    """The cells that a configuration asks for, fewest evaluations first.

    The uniform plan needs one evaluation and no seed, so it has one cell.

    Args:
        options: The ``bench`` part of the configuration.

    Raises:
        ConfigError: An agent or one of its options is unknown, or there is no cell.
    """
    cells = []
    agents = [_agent(entry) for entry in options["agents"]]
    labels = [label for label, _ in agents]
    if len(set(labels)) < len(labels):
        raise ConfigError(f"bench.agents={labels}: give every entry a label of its own")
    for evaluations in sorted(int(count) for count in options["evaluations"]):
        if evaluations < 1:
            raise ConfigError(f"bench.evaluations: {evaluations} is not at least 1")
        for seed in options["seeds"]:
            cells += [
                Cell(label, agent, evaluations, int(seed))
                for label, agent in agents
                if agent["name"] != "uniform"
            ]
    uniform = [Cell(label, agent, 1, 0) for label, agent in agents if agent["name"] == "uniform"]
    if not cells and not uniform:
        raise ConfigError("bench: agents, evaluations and seeds leave no cell to run")
    return uniform + cells


def run_cell(cell: Cell, bench: Workbench, problem: Problem) -> dict[str, Any]:
    """Search, and write the cell's file.

    Evaluations that other cells made are taken from the common store. They count in this cell's
    ledger, and the time they took counts in its seconds, as if the cell had run alone.

    Args:
        cell: The cell.
        bench: The problem.
        problem: Its evaluator.

    Returns:
        The content of the file.
    """
    before = dict(problem.stats["seconds"])
    found = search(problem, cell.agent, cell.evaluations, cell.seed)
    after = problem.stats["seconds"]
    computed = {part: after[part] - before[part] for part in _PARTS}
    ledger = sum(evaluation.seconds for evaluation in found.ledger)
    overhead = max(found.seconds - sum(computed.values()), 0.0)
    content = {
        "label": cell.label,
        "agent": cell.agent,
        "evaluations": cell.evaluations,
        "seed": cell.seed,
        "identity": bench.identity,
        "unique": len(found.ledger),
        "feasible": sum(evaluation.feasible for evaluation in found.ledger),
        "quality": found.score,
        "search_quality": found.best.quality,
        "curve": best_so_far(found),
        **outcome(bench, found.plan, problem.budgets),
        "seconds": {
            "total": ledger + overhead,
            "evaluations": ledger,
            "env_and_agent": overhead,
            "clock": found.seconds,
            "computed": computed,
            "replayed_evaluations": problem.stats["replayed"],
        },
        "calls": problem.stats["calls"],
        "call_seconds": problem.stats["call_seconds"],
    }
    content = plain(content)
    write_json(bench.folder / "cells" / cell.file, content)
    return content


def outcome(bench: Workbench, plan: Plan, budgets: Sequence[ResolvedBudget]) -> dict[str, Any]:
    """A plan and what its compacted network costs; the plan itself goes to ``plans/``."""
    write_text(bench.folder / "plans" / f"{plan.digest[:16]}.json", plan.to_json() + "\n")
    values = values_of(budgets, build(bench.job.groups, plan), bench.job.example_inputs)
    return {"plan": plan.digest[:16], "widths": plan.widths, "budgets": adherence(budgets, values)}


def adherence(
    budgets: Sequence[ResolvedBudget], values: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Limit, value and slack (share of the limit that is left) of every budget."""
    return {
        budget.name: {
            "limit": budget.limit,
            "dense": budget.dense,
            "value": values[budget.name],
            "slack": 1.0 - values[budget.name] / budget.limit,
        }
        for budget in budgets
    }


def best_so_far(found: SearchResult) -> list[float | None]:
    """The best feasible quality after each unique evaluation; None before there is one."""
    return list(_running_best(found))


def _running_best(found: SearchResult) -> Iterator[float | None]:
    best: float | None = None
    for evaluation in found.ledger:
        if evaluation.feasible and (best is None or evaluation.quality > best):
            best = evaluation.quality
        yield best


def _agent(entry: Any) -> tuple[str, dict[str, Any]]:
    """Label, and name with every option, of an entry of ``bench.agents``."""
    given = {"name": entry} if isinstance(entry, str) else dict(entry)
    label = given.pop("label", None)
    agent = resolve_agent(given)
    name = given.pop("name", None) or given.pop("_target_")
    return str(label or agent.name), {"name": name, **asdict(agent.config), **given}
