"""From plans to quality and costs: cached, counted, replayable."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from rlprune.batches import Batch, as_batches
from rlprune.budgets import Limit, ResolvedBudget
from rlprune.errors import BudgetError
from rlprune.plan import Plan
from rlprune.problem.assessor import PARTS, Answer, Assessor, Request
from rlprune.problem.evaluation import Evaluation
from rlprune.problem.executors import Executor, HasClock, SerialExecutor
from rlprune.problem.ledger import Ledger
from rlprune.problem.quality import Quality
from rlprune.problem.store import Store
from rlprune.space import feasibility

if TYPE_CHECKING:
    from rlprune.space import Space
    from rlprune.structure import Groups
    from rlprune.tasks import Task

logger = logging.getLogger(__name__)


class Problem:
    """The problem a search works on: which plans cost what and are worth what.

    Args:
        space: The decisions; a plan need not be one that they reach.
        budgets: Budgets bound to the network.
        quality: Scores a candidate, higher is better.
        rescore: Scores finalists on more data; ``quality`` when None.
        compensation: Methods applied to every candidate before it is scored.
        calibration: Calibration data for them.
        store: A JSONL file that results are appended to as they come. A search that starts again
            with the same seed replays from it and ends as if it had never been interrupted.
        open_limits: Names of budgets whose limits the store is not bound to, because it serves
            several of them (see :meth:`at`).
        sensitivity: Computes what :attr:`sensitivity` holds, when it is first asked for.
        executor: Where candidates are measured; this process when None. Budgets that read a clock
            are measured in this process, while no worker is at work, unless the executor has a
            worker for them alone.
        samples: Training samples for agents that learn from them, in any form
            :func:`rlprune.batches.as_batches` reads; no result depends on them.
        task: What the network is for; None where nobody has said.

    Attributes:
        space: As given.
        budgets: As given; measured ones carry the reference values of the store.
        ledger: What the search at hand has paid for.
        executor: As given.
        task: As given.

    Raises:
        BudgetError: There is nothing to prune, or no budget.
        InfeasibleBudgetError: Even the smallest network breaks a budget.
        CheckpointError: The store belongs to another problem.
    """

    def __init__(
        self,
        space: Space,
        budgets: Sequence[ResolvedBudget],
        quality: Quality,
        *,
        rescore: Quality | None = None,
        compensation: Any = None,
        calibration: Any = None,
        store: Path | str | None = None,
        open_limits: Collection[str] = (),
        sensitivity: Callable[[], Mapping[str, np.ndarray]] | None = None,
        executor: Executor | None = None,
        samples: Any = None,
        task: Task | None = None,
    ) -> None:
        if not space.groups.prunable:
            raise BudgetError("no group of the network can be pruned; see groups.table()")
        if not budgets:
            raise BudgetError("no budget given")
        self.space = space
        self.budgets = tuple(budgets)
        self.executor = executor or SerialExecutor()
        self.task = task
        self._given_samples = samples
        self._quality = quality
        self._rescore = rescore or quality
        self._calibration = as_batches(calibration)
        self._open_limits = frozenset(open_limits)
        self._sensitivity = sensitivity
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._workers: dict[str, dict[str, float]] = {}
        self._assessor = Assessor(
            space.groups, budgets, quality, self._rescore, compensation, self._calibration
        )
        self._store = Store(
            None if store is None else Path(store),
            self._causes(),
            self._reference(),
            {group.name: group.width for group in space.groups.prunable},
        )
        self.budgets = tuple(
            budget.restored(**self._store.reference[budget.name]) for budget in self.budgets
        )
        self._assessor.budgets = {budget.name: budget for budget in self.budgets}
        self.restart()
        try:
            self._check_estimates()
            feasibility.check(self)
        except BaseException:
            self.close()
            raise

    @property
    def folder(self) -> Path | None:
        """Where the store lies; None where results are kept in memory only."""
        return self._store.folder

    @property
    def groups(self) -> Groups:
        """The network's groups."""
        return self.space.groups

    def costs(self, plan: Plan) -> dict[str, float]:
        """Budget values of a candidate.

        Exact structural estimates where there are any, otherwise the budget's function on the
        compacted candidate, remembered; the ledger counts its calls.

        Args:
            plan: What the candidate keeps.

        Returns:
            Budget name -> value, in the order of ``budgets``.

        Raises:
            BudgetError: A budget's function fails; names it and the candidate.
            PlanError: The plan does not fit the network, or the legal widths.
        """
        self.space.check(plan)
        if self._black_boxes and self._stored_costs(plan) is None:
            clocks, others = self._unknown(plan)
            answers = list(self._timed([Request(plan, None, clocks)] if clocks else []))
            if others:
                answers += self._answers([Request(plan, None, others)])
            self._put_costs(plan, answers)
        return self._costs(plan)

    def all_costs(self, plan: Plan) -> dict[str, float]:
        """As :meth:`costs`, with those that rise as networks shrink, which nothing foretells.

        There they are 0; here the compensated candidate is measured, once for every plan.
        """
        costs = self.costs(plan)
        if self._rising and self._store.get("rising", plan) is None:
            request = Request(plan, None, (), self._rising)
            self._put_risen(plan, next(iter(self._answers([request]))))
        return self._with_risen(plan, costs)

    @property
    def priced(self) -> Mapping[Plan, Mapping[str, float]]:
        """Values of the black boxes of every plan measured in this search, in order."""
        return self.ledger.priced

    def violations(self, plan: Plan) -> dict[str, float]:
        """Budget name -> ``value / limit - 1`` of a candidate."""
        costs = self.costs(plan)
        return {budget.name: budget.violation(costs[budget.name]) for budget in self.budgets}

    def evaluate(self, plan: Plan) -> Evaluation:
        """Score a candidate; every distinct one counts once in the ledger.

        Args:
            plan: What the candidate keeps: any units, and without some branches.

        Returns:
            The evaluation; ``cached`` tells whether this search had asked before.

        Raises:
            ScoreError: The score raised or is not finite.
            BudgetError: A budget's function fails.
            PlanError: The plan does not fit the network, or the legal widths.
        """
        return next(self.stream([plan]))

    def evaluate_many(self, plans: Iterable[Plan]) -> list[Evaluation]:
        """Score several candidates, at the same time where the executor can.

        Ledger and results are those of :meth:`evaluate` called for one after the other.
        """
        return list(self.stream(plans))

    def stream(self, plans: Iterable[Plan]) -> Iterator[Evaluation]:
        """The evaluations of :meth:`evaluate_many` in the order of the plans, as they come."""
        asked = list(plans)
        for plan in asked:
            self.space.check(plan)
        fresh = [
            plan
            for plan in dict.fromkeys(asked)
            if self.ledger.find(plan) is None and self._store.get("evaluation", plan) is None
        ]
        timed: list[Request] = []
        requests: dict[Plan, Request] = {}
        for plan in fresh:
            clocks, others = self._unknown(plan)
            timed += [Request(plan, None, clocks)] if clocks else []
            risen = not self._rising or self._store.get("rising", plan) is not None
            requests[plan] = Request(plan, "quality", others, () if risen else self._rising)
        timings = self._timed(timed)
        with_clocks = {request.plan for request in timed}
        answers = self._answers(list(requests.values()))
        for plan in asked:
            known = self.ledger.find(plan)
            if known is not None:
                self._hits += 1
                yield known.again()
                continue
            request = requests.get(plan)
            yield self._book(
                plan,
                None if request is None else next(answers),
                [next(timings)] if plan in with_clocks else [],
            )

    def rescore(self, plan: Plan) -> float:
        """Quality on the larger held-out set, for finalists; not counted in the ledger."""
        return self.rescore_many([plan])[0]

    def rescore_many(self, plans: Sequence[Plan]) -> list[float]:
        """:meth:`rescore` of several plans, at the same time where the executor can."""
        fresh = [p for p in dict.fromkeys(plans) if self._store.get("rescore", p) is None]
        for plan in fresh:
            self.space.check(plan)
        answers = self._answers([Request(plan, "rescore") for plan in fresh])
        for plan, answer in zip(fresh, answers, strict=True):
            self._store.put("rescore", plan, answer.score)
        return [float(self._store.get("rescore", plan)) for plan in plans]

    def candidate(self, plan: Plan) -> nn.Module:
        """The compacted network of a plan, in eval mode, valid until the next call."""
        self.space.check(plan)
        return self._assessor.candidate(plan)

    @cached_property
    def sensitivity(self) -> tuple[np.ndarray, ...] | None:
        """Predicted damage of every prunable group by kept units, ``[width + 1]`` each.

        None where there is no calibration data to predict from, or it cannot be done on this
        network. No evaluation is spent. See :func:`rlprune.sensitivity.sensitivity`.
        """
        if self._sensitivity is None:
            return None
        start = time.perf_counter()
        try:
            curves = self._sensitivity()
        except (RuntimeError, TypeError, ValueError) as error:
            logger.warning("no sensitivity curves for this network: %s", error)
            return None
        logger.info("sensitivity curves, %.1f s", time.perf_counter() - start)
        return tuple(curves[group.name] for group in self.groups.prunable)

    @cached_property
    def samples(self) -> list[Batch]:
        """Training samples in batches, for agents that learn from them; empty without any."""
        return as_batches(self._given_samples)

    @property
    def qualities(self) -> dict[Plan, float]:
        """Quality of every candidate ever scored, by this search or another one."""
        stored = self._store.all("evaluation")
        return {plan: float(result["quality"]) for plan, result in stored.items()}

    @property
    def stats(self) -> dict[str, Any]:
        """What the search at hand has done so far.

        Unique evaluations, cache hits, replayed results, calls of budgets, seconds by part, and by
        worker (``""`` is this process) its answers, its seconds and its peak of memory in MiB.
        """
        return {
            "unique": len(self.ledger),
            "cache_hits": self._hits,
            "replayed": self._replayed,
            "calls": dict(self.ledger.calls),
            "call_seconds": dict(self.ledger.seconds),
            "seconds": dict(self._seconds),
            "workers": {name: dict(told) for name, told in self._workers.items()},
        }

    def at(self, limits: Mapping[str, float | str | Limit]) -> Problem:
        """The same problem under other limits, with a ledger of its own.

        What is known of a candidate does not depend on a limit: results, store, executor and
        network are shared, and closing one closes all.

        Args:
            limits: Budget name -> limit, written as in :class:`rlprune.Budget`; budgets that are
                not named keep theirs.

        Raises:
            BudgetError: A name is unknown, or a limit is unusable.
            InfeasibleBudgetError: Even the smallest network breaks a budget.
        """
        names = [budget.name for budget in self.budgets]
        unknown = [name for name in limits if name not in names]
        if unknown:
            raise BudgetError(
                f"the problem has no budget {unknown[0]!r}; its budgets are {', '.join(names)}"
            )
        other = copy.copy(self)
        other.budgets = tuple(b.at(limits[b.name]) if b.name in limits else b for b in self.budgets)
        other._seconds = dict.fromkeys(PARTS, 0.0)
        other._workers = {}
        other.restart()
        feasibility.check(other)
        return other

    def restart(self) -> None:
        """Begin another search on the same problem: an empty ledger, results kept."""
        self.ledger = Ledger(budget.name for budget in self._black_boxes)
        self._hits = self._replayed = 0

    def close(self) -> None:
        """Close the store, and let the executor's workers go."""
        self._store.close()
        self.executor.close()

    @property
    def _black_boxes(self) -> tuple[ResolvedBudget, ...]:
        return tuple(budget for budget in self.budgets if budget.estimate is None)

    @property
    def _rising(self) -> tuple[str, ...]:
        return tuple(budget.name for budget in self.budgets if budget.rising)

    def _put_risen(self, plan: Plan, answer: Answer) -> None:
        self._store.put("rising", plan, {name: answer.costs[name] for name in self._rising})

    def _with_risen(self, plan: Plan, costs: dict[str, float]) -> dict[str, float]:
        return {**costs, **self._store.get("rising", plan)} if self._rising else costs

    def _stored_costs(self, plan: Plan) -> dict[str, Any] | None:
        """``values`` and ``seconds`` of the black boxes, if they were called for this plan."""
        found: dict[str, Any] | None = self._store.get("costs", plan)
        return found

    def _unknown(self, plan: Plan) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Black boxes to call for a plan: those that read a clock, and the others."""
        if not self._black_boxes or self._stored_costs(plan) is not None:
            return (), ()
        here = tuple(b.name for b in self._black_boxes if b.measured)
        return here, tuple(b.name for b in self._black_boxes if not b.measured)

    def _put_costs(self, plan: Plan, answers: Sequence[Answer]) -> None:
        values = {name: value for answer in answers for name, value in answer.costs.items()}
        seconds = {name: s for answer in answers for name, s in answer.cost_seconds.items()}
        self._store.put("costs", plan, {"values": values, "seconds": seconds})

    def _costs(self, plan: Plan) -> dict[str, float]:
        """All costs of a plan whose black boxes are known."""
        known: dict[str, Any] = {}
        if self._black_boxes:
            stored = self._stored_costs(plan)
            assert stored is not None
            known = stored["values"]
            self.ledger.called(plan, known, stored["seconds"])
        widths = list(plan.widths.values())
        return {
            budget.name: known[budget.name] if budget.estimate is None else budget.estimate(widths)
            for budget in self.budgets
        }

    def _book(self, plan: Plan, answer: Answer | None, clocked: list[Answer]) -> Evaluation:
        """Enter a plan into the ledger, from its answer or from the store."""
        if answer is not None:
            if any(name in answer.costs for name in self._rising):
                self._put_risen(plan, answer)
                rest = {n: v for n, v in answer.costs.items() if n not in self._rising}
                answer = replace(answer, costs=rest)
            if answer.costs or clocked:
                self._put_costs(plan, [*clocked, answer])
            costs = self._with_risen(plan, self._costs(plan))
            result = {"quality": answer.score, "seconds": answer.seconds, "costs": costs}
            self._store.put("evaluation", plan, result)
        else:
            costs = self.all_costs(plan)
            self._replayed += 1
        stored = self._store.get("evaluation", plan)
        evaluation = Evaluation(
            index=len(self.ledger),
            plan=plan,
            quality=float(stored["quality"]),
            costs=costs,
            violations={b.name: b.violation(costs[b.name]) for b in self.budgets},
            seconds=float(stored["seconds"]),
        )
        self.ledger.add(evaluation)
        return evaluation

    def _answers(self, requests: Sequence[Request]) -> Iterator[Answer]:
        return map(self._spend, self.executor.answer(self._assessor, requests))

    def _timed(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """Answers of budgets that read a clock.

        Where the executor has a worker for them alone, that one begins at once; otherwise they are
        measured here, now, before any worker is given work.
        """
        executor = self.executor
        if requests and isinstance(executor, HasClock) and executor.has_clock:
            return map(self._spend, executor.clocked(self._assessor, requests))
        return iter([self._spend(self._assessor.answer(request)) for request in requests])

    def _spend(self, answer: Answer) -> Answer:
        for part, seconds in answer.parts.items():
            self._seconds[part] += seconds
        told = self._workers.setdefault(answer.worker, {"answers": 0, "seconds": 0.0, "peak": 0.0})
        told["answers"] += 1
        told["seconds"] += sum(answer.parts.values())
        told["peak"] = max(told["peak"], answer.peak)
        return answer

    def _check_estimates(self) -> None:
        """Hold every estimate against the real candidate once, at the smallest choice."""
        plan = self.space.plan(self.space.smallest)
        widths = list(plan.widths.values())
        candidate = self.candidate(plan)
        for budget in self.budgets:
            if budget.estimate is None or budget.rising:
                continue
            real = budget.value(candidate, self.groups.example_inputs, widths)
            guess = budget.estimate(widths)
            if abs(real - guess) > 1e-6 * max(abs(real), 1.0):
                raise BudgetError(
                    f"budget {budget.name!r}: the structural estimate {guess:g} differs from the "
                    f"candidate's value {real:g} at the minimum widths; please report this network"
                )

    def _causes(self) -> dict[str, Any]:
        """What stored results depend on, by name."""
        groups = self.groups.prunable
        return {
            "network": self.groups.model,
            "groups or widths": [(group.name, group.legal_widths()) for group in groups],
            "budgets": [
                (b.name, "any" if b.name in self._open_limits else b.spec, b) for b in self.budgets
            ],
            "quality": self._quality,
            "rescoring": self._rescore,
            "importance": self.space.scores,
            "compensation": self._assessor.methods,
            "calibration": self._calibration,
        }

    def _reference(self) -> dict[str, dict[str, float]]:
        return {b.name: {"limit": b.limit, "dense": b.dense} for b in self.budgets}
