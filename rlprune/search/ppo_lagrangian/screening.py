"""Which proposals are worth an evaluation, and what the others would have earned."""

from __future__ import annotations

import math

import numpy as np
import torch

from rlprune.search.isolation import one_thread
from rlprune.search.ppo_lagrangian.config import PPOLagrangianConfig
from rlprune.search.ppo_lagrangian.surrogate import Surrogate
from rlprune.search.session import Session

_FEWEST = 3

Verdict = tuple[np.ndarray, np.ndarray]


class Screen:
    """Judges rollouts: spends evaluations on few proposals, forecasts the rest.

    Evaluated episodes keep their real reward and violations. All others are abandoned one step
    before they would cost an evaluation and get the surrogate's mean reward and the environment's
    forecast of their violations. Of the plans to evaluate, one part is best by the surrogate's
    mean, one is best in joint samples of its posterior (batch Thompson sampling, so uncertain
    proposals get their turn), and one is taken as the policy proposes, whatever the surrogate
    says. All are the policy's own proposals, so candidates stay within its reach.

    Args:
        config: the agent's options.
        session: counts evaluations.

    Attributes:
        stale: whether the latest batch of evaluations held no new plan.
    """

    def __init__(self, config: PPOLagrangianConfig, session: Session) -> None:
        self._config = config
        self._session = session
        self._surrogate = Surrogate(session.decisions)
        self._generator = torch.Generator().manual_seed(session.seed + 1)
        self._previews = session.env.get_wrapper_attr("previews")
        self._setting = session.env.get_wrapper_attr("setting")
        self._round = 0
        self.stale = False
        self._booked: set[tuple[int, ...]] = set()

    def __call__(self, sequences: np.ndarray) -> Verdict | None:
        """See :class:`rlprune.search.ppo_lagrangian.PPOLagrangian`."""
        if self._session.done:
            return None
        c = self._config
        previews = self._previews(sequences)
        ratios, violations = previews.ratios, previews.violations
        trusted = len(self._surrogate) >= c.warmup
        spend = (self._round % c.updates == 0) or not trusted
        self._round += 1
        chosen = self._choose(ratios, trusted) if spend else []
        known = len(self._session.ledger)
        real: dict[int, float] = {}
        for index in chosen:
            outcome = self._session.play(sequences[index])
            real[index] = squash(outcome.reward)
            violations[index] = outcome.violations
            widths = outcome.evaluation.widths
            if widths not in self._booked:
                self._booked.add(widths)
                self._surrogate.add(np.array(widths) / self._setting.dense, real[index])
        self.stale = bool(chosen) and len(self._session.ledger) == known
        rewards = self._forecast(ratios, refit=bool(chosen))
        for index, reward in real.items():
            rewards[index] = reward
        return rewards, violations

    def _forecast(self, ratios: np.ndarray, *, refit: bool) -> np.ndarray:
        with one_thread():
            if refit and len(self._surrogate) >= _FEWEST:
                self._surrogate.fit()
            if len(self._surrogate) < _FEWEST:
                return np.zeros(len(ratios))
            return self._surrogate.predict(ratios)

    def _choose(self, ratios: np.ndarray, trusted: bool) -> list[int]:
        count = min(self._config.episodes, self._session.remaining)
        if not trusted:
            return list(range(count))
        fresh = [
            i for i, r in enumerate(ratios) if not self._session.seen(self._setting.widths(r))
        ] or list(range(len(ratios)))
        free = math.ceil(self._config.unscreened * count) if self._config.unscreened else 0
        chosen = fresh[: min(free, count)]
        with one_thread():
            samples = self._surrogate.sample(ratios, count, self._generator)
        mean = self._surrogate.predict(ratios)
        greedy = round(self._config.exploit * count)
        for slot, sample in enumerate(samples[len(chosen) :]):
            sample = mean if slot < greedy else sample
            order = sorted(fresh, key=lambda i: -sample[i])
            pick = next((i for i in order if i not in chosen), None)
            if pick is not None:
                chosen.append(pick)
        return chosen


def squash(reward: float) -> float:
    """Compresses the rewards of ruinous plans: identity above 0, logarithmic below."""
    return reward if reward >= 0 else -math.log1p(-reward)
