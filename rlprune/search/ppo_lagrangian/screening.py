"""Which proposals are worth an evaluation, and what the others would have earned."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch

from rlprune.plan import Plan
from rlprune.problem import Evaluation
from rlprune.search.isolation import one_thread
from rlprune.search.ppo_lagrangian.config import PPOLagrangianConfig
from rlprune.search.ppo_lagrangian.forecast import Forecaster
from rlprune.search.ppo_lagrangian.freshness import Freshness
from rlprune.search.ppo_lagrangian.surrogate import Surrogate
from rlprune.search.rewards import squash
from rlprune.search.session import Session

logger = logging.getLogger(__name__)

_FEWEST = 3

Verdict = tuple[np.ndarray, np.ndarray]


class Screen:
    """Judges rollouts: spends evaluations on few proposals, forecasts the rest.

    Evaluated episodes keep their real reward and violations. All others are abandoned one step
    before they would cost an evaluation and get the surrogate's mean reward and the environment's
    forecast of their violations. Of the plans to evaluate, one part is best by the surrogate's
    mean, one is best in joint samples of its posterior (batch Thompson sampling, so uncertain
    proposals get their turn), and one is taken as the policy proposes, whatever the surrogate
    says. All are the policy's own proposals, so candidates stay within its reach, and none leads
    to a plan that was evaluated before: where the proposals hold too few new plans, the rest is
    drawn around them.

    Args:
        config: the agent's options.
        session: counts evaluations.

    Attributes:
        stale: whether plans were to be evaluated and the proposals held no new one.
    """

    def __init__(self, config: PPOLagrangianConfig, session: Session) -> None:
        self._config = config
        self._session = session
        self._forecaster = Forecaster(session)
        self._surrogate = Surrogate(self._forecaster.dimensions)
        self._generator = torch.Generator().manual_seed(session.seed + 1)
        self._previews = session.codec.previews
        self._freshness = Freshness(session)
        self._round = 0
        self.stale = False
        self._booked: set[Plan] = set()
        self._learn_known()

    def __call__(self, sequences: np.ndarray) -> Verdict | None:
        """See :class:`rlprune.search.ppo_lagrangian.PPOLagrangian`."""
        if self._session.done:
            return None
        c = self._config
        previews = self._previews(sequences)
        ratios, violations = previews.ratios, previews.violations
        trusted = len(self._surrogate) >= max(c.warmup, _FEWEST)
        spend = (self._round % c.updates == 0) or not trusted
        self._round += 1
        self.stale = False
        real: dict[int, float] = {}
        if spend:
            count = min(c.episodes, self._session.remaining)
            orders = self._orders(ratios, count, trusted)
            chosen, taken = self._freshness.first(sequences, orders)
            for index, outcome in zip(chosen, self._play(sequences[chosen]), strict=True):
                real[index], violations[index] = outcome
            self.stale = not chosen
            drawn = self._wander(sequences, count - len(chosen), taken, trusted)
            if not chosen and not drawn:
                logger.warning(
                    "the search ends at %d of %d evaluations: all proposals, and all draws from "
                    "the whole range of actions, lead to known plans",
                    len(self._session.ledger), self._session.evaluations,
                )  # fmt: skip
                return None
        rewards = self._forecast(ratios, refit=spend)
        for index, reward in real.items():
            rewards[index] = reward
        return rewards, violations

    def _learn_known(self) -> None:
        """Books plans of earlier searches: their quality holds here, their reward follows."""
        for known in self._session.known:
            self._learn(known)
        if len(self._surrogate) >= _FEWEST:
            with one_thread():
                self._surrogate.fit()

    def _forecast(self, ratios: np.ndarray, *, refit: bool) -> np.ndarray:
        with one_thread():
            if refit and len(self._surrogate) >= _FEWEST:
                self._surrogate.fit()
            if len(self._surrogate) < _FEWEST:
                return np.zeros(len(ratios))
            return self._surrogate.predict(*self._forecaster(ratios))

    def _learn(self, evaluation: Evaluation) -> float:
        """Books a plan, once; returns its squashed reward."""
        reward = squash(evaluation.reward(self._session.reference))
        if evaluation.plan not in self._booked:
            self._booked.add(evaluation.plan)
            inputs, predicted = self._forecaster(self._session.space.ratios(evaluation.plan)[None])
            self._surrogate.add(inputs[0], float(predicted[0]), reward)
        return reward

    def _play(self, sequences: np.ndarray) -> list[tuple[float, np.ndarray]]:
        """Spends evaluations on ``[P, n]`` actions.

        Returns:
            Squashed reward of each, and the violations ``[m]`` of what it asked for.
        """
        session = self._session
        found = []
        plans = [session.codec.plan(sequence) for sequence in sequences]
        for sequence, evaluation in zip(sequences, session.evaluate(plans), strict=True):
            row = session.codec.costs(session.codec.ratios(sequence)[None])[0] - 1.0
            if not session.codec.project:
                row = np.array([evaluation.violations[name] for name in session.budgets])
            found.append((self._learn(evaluation), row))
        return found

    def _orders(self, ratios: np.ndarray, count: int, trusted: bool) -> list[Sequence[int]]:
        """For each of ``count`` evaluations the proposals, most wanted first."""
        as_proposed = range(len(ratios))
        free = math.ceil(self._config.unscreened * count) if trusted else count
        orders: list[Sequence[int]] = [as_proposed] * min(free, count)
        if len(orders) == count:
            return orders
        described = self._forecaster(ratios)
        with one_thread():
            samples = self._surrogate.sample(*described, count, self._generator)
        mean = self._surrogate.predict(*described)
        greedy = round(self._config.exploit * count)
        for slot, sample in enumerate(samples[len(orders) :]):
            orders.append(np.argsort(-(mean if slot < greedy else sample), kind="stable").tolist())
        return orders

    def _wander(self, sequences: np.ndarray, count: int, taken: set[Plan], trusted: bool) -> int:
        """Evaluates up to ``count`` new plans around the proposals; returns how many."""

        def wanted(drawn: np.ndarray) -> np.ndarray:
            if not trusted:
                return np.zeros(len(drawn))
            return self._surrogate.predict(*self._forecaster(self._previews(drawn).ratios))

        found = self._freshness.wander(sequences, count, taken, wanted) if count else []
        if found:
            self._play(np.array(found))
        return len(found)
