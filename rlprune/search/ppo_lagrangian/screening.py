"""Which proposals are worth an evaluation, and what the others would have earned."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from rlprune.plan import Plan
from rlprune.problem import Evaluation
from rlprune.search.isolation import one_thread
from rlprune.search.ppo_lagrangian.algorithm import Verdict
from rlprune.search.ppo_lagrangian.config import PPOLagrangianConfig
from rlprune.search.ppo_lagrangian.forecast import Forecaster
from rlprune.search.ppo_lagrangian.freshness import Freshness
from rlprune.search.ppo_lagrangian.multiplier import PIDMultiplier
from rlprune.search.ppo_lagrangian.risen import Risen
from rlprune.search.ppo_lagrangian.surrogate import Gains, Surrogate
from rlprune.search.rewards import log_gain
from rlprune.search.session import Session
from rlprune.space import Choice, exchange

logger = logging.getLogger(__name__)

_INFORMED, _BLIND = 0.5, 1.0
_ATTEMPTS = 4
_SAME = 1e-9


class Screen:
    """Judges rollouts: spends evaluations on few proposals, forecasts the rest.

    One part of the evaluations goes to the policy's proposals as they are. For the others the
    surrogate is asked, half of the time for what it expects, half for a draw from its posterior:
    the proposal or known plan that it holds best is improved by exchanges on the surrogate and the
    cost model (:func:`rlprune.space.exchange`), evaluated, and takes a proposal's place in the
    rollout, so that the policy learns from it. All other episodes are abandoned one step before
    they would cost an evaluation and get the surrogate's expectation and the environment's
    forecast of their violations. No evaluation is spent on a plan that was evaluated before: where
    there are too few new ones, the rest is drawn around the proposals.

    Args:
        config: the agent's options.
        session: counts evaluations.
        multipliers: one per budget.

    Attributes:
        stale: whether plans were to be evaluated and the proposals held no new one.
    """

    def __init__(
        self,
        config: PPOLagrangianConfig,
        session: Session,
        multipliers: Sequence[PIDMultiplier] = (),
    ) -> None:
        self._config = config
        self._multipliers = multipliers
        self._session = session
        self._forecaster = Forecaster(session)
        spread = _INFORMED if self._forecaster.informed else _BLIND
        self._surrogate = Surrogate(self._forecaster.dimensions, spread)
        self._generator = np.random.default_rng(session.seed + 1)
        self._previews = session.codec.previews
        self._freshness = Freshness(session)
        self._rising = np.array([budget.rising for budget in session.problem.budgets])
        self._risen = Risen(session.budgets, self._rising)
        self._round = 0
        self.stale = False
        self._booked: set[Plan] = set()
        self._known: list[np.ndarray] = []
        for known in (*session.known, session.reference):
            self._learn(known)
        with one_thread():
            self._surrogate.fit()

    def __call__(self, sequences: np.ndarray) -> Verdict | None:
        """See :class:`rlprune.search.ppo_lagrangian.PPOLagrangian`."""
        if self._session.done:
            return None
        c = self._config
        previews = self._previews(sequences)
        ratios, violations = previews.ratios, previews.violations
        spend = self._round % c.updates == 0
        self._round += 1
        self.stale = False
        real: dict[int, float] = {}
        if spend:
            count = min(c.episodes, self._session.remaining)
            free = math.ceil(c.unscreened * count) if self._refines else count
            chosen, taken = self._freshness.first(sequences, self._orders(ratios, violations, free))
            for index, outcome in zip(chosen, self._play(sequences[chosen]), strict=True):
                real[index], violations[index] = outcome
            sequences = sequences.copy()
            places = [at for at in range(len(sequences))[::-1] if at not in real]
            for index, found in zip(
                places, self._improved(ratios, count - len(real)), strict=False
            ):
                sequences[index], real[index], violations[index] = found
            self.stale = not real
            if not self._wander(sequences, count - len(real), taken) and self.stale:
                logger.warning(
                    "the search ends at %d of %d evaluations: all proposals, and all draws from "
                    "the whole range of actions, lead to known plans",
                    len(self._session.ledger), self._session.evaluations,
                )  # fmt: skip
                return None
            with one_thread():
                self._surrogate.fit()
            ratios = self._previews(sequences).ratios
        damages = self._forecaster(ratios)
        guessed = np.array([index not in real for index in range(len(ratios))])
        for k, column in zip(self._risen.columns, self._risen.predict(damages).T, strict=True):
            violations[guessed, k] = column[guessed]
        rewards = self._surrogate.predict(damages)
        for index, reward in real.items():
            rewards[index] = reward
        return sequences, rewards, violations

    @property
    def _refines(self) -> bool:
        return self._session.codec.project and self._config.refine

    def _learn(self, evaluation: Evaluation) -> float:
        """Books a plan, once; returns its gain."""
        gain = log_gain(evaluation.reward(self._session.reference))
        if evaluation.plan not in self._booked:
            self._booked.add(evaluation.plan)
            ratios = self._session.space.ratios(evaluation.plan)
            damages = self._forecaster(ratios[None])[0]
            self._surrogate.add(damages, gain)
            self._risen.add(damages, evaluation)
            if evaluation.feasible:
                self._known.append(ratios)
        return gain

    def _play(self, sequences: np.ndarray) -> list[tuple[float, np.ndarray]]:
        """Spends evaluations on ``[P, n]`` actions.

        Returns:
            Gain of each, and the violations ``[m]`` of what it asked for.
        """
        session = self._session
        found = []
        plans = [session.codec.plan(sequence) for sequence in sequences]
        for sequence, evaluation in zip(sequences, session.evaluate(plans), strict=True):
            row = session.codec.costs(session.codec.ratios(sequence)[None])[0] - 1.0
            real = np.array([evaluation.violations[name] for name in session.budgets])
            row = np.where(self._rising, real, row) if session.codec.project else real
            found.append((self._learn(evaluation), row))
        return found

    def _improved(
        self, ratios: np.ndarray, count: int
    ) -> list[tuple[np.ndarray, float, np.ndarray]]:
        """Spends evaluations on what exchanges make of the best proposals and known plans.

        Returns:
            Actions ``[n]``, gain, and violations ``[m]`` of each.
        """
        session, space = self._session, self._session.space
        known = [space.ratios(e.plan) for e, _ in zip(session.archive, range(4), strict=False)]
        proposed, best = space.nearest(ratios), space.nearest(np.array(known))
        everything = np.vstack([proposed, best])
        plans: list[Plan] = []
        for slot in range(count):
            for attempt in range(_ATTEMPTS):
                greedy = slot < round(self._config.exploit * count) and attempt == 0
                gains: Gains = self._surrogate.predict
                if not greedy:
                    gains = self._surrogate.draw(self._generator, 2.0**attempt)
                climbed = self._climb(everything if greedy else proposed, gains)
                fresh = next((c for c in climbed if not self._held(c)), None)
                plan = None if fresh is None else session.codec.settled(fresh)
                if plan is not None and not session.seen(plan) and plan not in plans:
                    self._known.append(space.ratios(plan))
                    plans.append(plan)
                    break
        found = []
        for evaluation in session.evaluate(plans):
            wish = space.ratios(evaluation.plan)
            row = np.array([evaluation.violations[name] for name in session.budgets])
            actions = session.codec.actions(wish).astype(np.float32)
            found.append((actions, self._learn(evaluation), row))
        return found

    def _held(self, choice: Choice) -> bool:
        """Whether an evaluated plan that meets the budgets keeps all that this one would."""
        ratios = np.array(choice) / self._session.space.sizes
        return bool((ratios <= np.array(self._known) + _SAME).all(axis=1).any())

    def _climb(self, starts: np.ndarray, gains: Gains) -> list[Choice]:
        """What exchanges lead to from the start that is best by a function of damages."""
        space = self._session.space

        def gain(choices: np.ndarray) -> np.ndarray:
            damages = self._forecaster(choices / space.sizes)
            return np.asarray(gains(damages) - self._risen.owed(damages))

        def costs(choices: np.ndarray) -> np.ndarray:
            return self._session.codec.costs(choices / space.sizes)

        best = starts[int(gain(starts).argmax())]
        with one_thread():
            return exchange(space, tuple(best.tolist()), gain, costs, self._generator)

    def _orders(
        self, ratios: np.ndarray, violations: np.ndarray, count: int
    ) -> list[Sequence[int]]:
        """For each of ``count`` evaluations the proposals, most wanted first.

        Proposals that are not projected pay for their violations what the multipliers ask.
        """
        orders: list[Sequence[int]] = []
        free = math.ceil(self._config.unscreened * count)
        if self._refines or len(self._surrogate) < self._config.warmup:
            free = count
        damages, owed = self._forecaster(ratios), np.zeros(len(ratios))
        if not self._session.codec.project:
            owed = np.maximum(violations, 0.0) @ [m.value for m in self._multipliers]
        for slot in range(count):
            if slot < free:
                orders.append(range(len(ratios)))
                continue
            greedy = slot - free < round(self._config.exploit * count)
            gains = self._surrogate.predict if greedy else self._surrogate.draw(self._generator)
            orders.append(np.argsort(owed - gains(damages), kind="stable").tolist())
        return orders

    def _wander(self, sequences: np.ndarray, count: int, taken: set[Plan]) -> int:
        """Evaluates up to ``count`` new plans around the proposals; returns how many."""

        def wanted(drawn: np.ndarray) -> np.ndarray:
            return self._surrogate.predict(self._forecaster(self._previews(drawn).ratios))

        found = self._freshness.wander(sequences, count, taken, wanted) if count > 0 else []
        if found:
            self._play(np.array(found))
        return len(found)
