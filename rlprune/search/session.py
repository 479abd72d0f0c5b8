"""One search in progress: the environment, the count of unique evaluations, the records."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from rlprune.problem import Evaluation
from rlprune.search.archive import Archive
from rlprune.search.progress import ProgressBar

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from rlprune.problem import Problem

logger = logging.getLogger(__name__)

_ENV_ID = "rlprune_envs:KeepRatio-v0"
_PATIENCE = 60


@dataclass(frozen=True)
class Outcome:
    """How one episode ended: terminal reward, evaluation, violations of what was asked for."""

    reward: float
    evaluation: Evaluation
    violations: np.ndarray


class Session:
    """Counts, records and reports; agents act through the environments it makes.

    Args:
        problem: what is searched.
        evaluations: unique evaluations to spend, the uniform reference plan included.
        seed: seed of every random choice of the agent.
        env_options: keyword arguments of the environment.
        progress: show a bar; None shows it on a terminal only.
        tensorboard: folder for TensorBoard events, or None.
        known: evaluations that other searches on the same network paid for, with their violations
            here. They count as seen, and those that meet every budget join the archive.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        evaluations: int,
        seed: int,
        env_options: dict[str, Any],
        progress: bool | None = None,
        tensorboard: str | Path | None = None,
        known: Sequence[Evaluation] = (),
    ) -> None:
        from rlprune_envs import ProblemHandle

        self.evaluations = evaluations
        self.seed = seed
        self.rng = np.random.default_rng(seed)
        self.archive = Archive()
        self.ledger: list[Evaluation] = []
        self.history: list[dict[str, float]] = []
        self.episodes = 0
        self.budgets = tuple(b.name for b in problem.budgets)
        self._handle = ProblemHandle.of(problem)
        self._env_options = env_options
        self.known = tuple(known)
        for evaluation in self.known:
            self.archive.add(evaluation)
        self._seen: set[tuple[int, ...]] = {evaluation.widths for evaluation in self.known}
        self._repeats = 0
        self._latest: dict[str, float] = {}
        self._started = time.monotonic()
        self._bar = ProgressBar(evaluations, show=progress)
        self._writer = _writer(tensorboard)
        self.env = self.make_env()

    def make_env(self) -> gym.Env[np.ndarray, np.ndarray]:
        """Makes an environment of the problem whose episodes are counted here."""
        env = gym.make(_ENV_ID, problem=self._handle, disable_env_checker=True, **self._env_options)
        return Recorder(env, self)

    @property
    def decisions(self) -> int:
        """Episode length."""
        return int(self.env.get_wrapper_attr("layout").decisions)

    @property
    def remaining(self) -> int:
        """Unique evaluations left."""
        return max(self.evaluations - len(self.ledger), 0)

    @property
    def done(self) -> bool:
        """Whether to stop: the evaluations are spent, or nothing new comes up any more."""
        return self.remaining == 0 or self._repeats >= _PATIENCE

    def seen(self, widths: tuple[int, ...]) -> bool:
        """Whether a plan was evaluated already, in this search or in one known to it."""
        return widths in self._seen

    def reward(self, quality: float) -> float:
        """Terminal reward of an episode whose plan has this quality; no evaluation is spent."""
        return float(self.env.get_wrapper_attr("reward")(quality))

    def play(self, actions: np.ndarray) -> Outcome:
        """Plays one episode with ``[n]`` actions in [-1, 1]."""
        env = self.env
        env.reset()
        reward: Any = 0.0
        info: dict[str, Any] = {}
        for action in np.clip(actions, -1.0, 1.0):
            _, reward, _, _, info = env.step(np.array([action], dtype=np.float32))
        return self.outcome(float(reward), info)

    def outcome(self, reward: float, info: dict[str, Any]) -> Outcome:
        """Reads the ``info`` of a terminal step."""
        violations = np.array([info["violations"][name] for name in self.budgets])
        return Outcome(reward, info["evaluation"], violations)

    def record(self, evaluation: Evaluation, reward: float | None) -> None:
        """Books an evaluation that the environment reports."""
        if reward is not None:
            self.episodes += 1
        if evaluation.widths in self._seen:
            if reward is not None:
                self._repeats += 1
                if self._repeats == _PATIENCE:
                    logger.warning(
                        "the search ends at %d of %d evaluations: its last %d proposals were all "
                        "known plans", len(self.ledger), self.evaluations, _PATIENCE,
                    )  # fmt: skip
            return
        if self.remaining == 0:
            return
        self._repeats = 0
        self._seen.add(evaluation.widths)
        self.ledger.append(evaluation)
        self.archive.add(evaluation)
        best = self.archive.best
        row = {
            "evaluation": float(len(self.ledger)),
            "quality": evaluation.quality,
            "feasible": float(evaluation.feasible),
            "best_feasible": best.quality if best is not None else float("nan"),
            "repeats": float(self.episodes + 1 - len(self.ledger)),
            "seconds": time.monotonic() - self._started,
            **{f"cost/{name}": evaluation.costs[name] for name in self.budgets},
            **self._latest,
        }
        self.history.append(row)
        self._bar.update(len(self.ledger), best.quality if best is not None else None)
        if reward is not None:
            self._scalar("search/reward", reward)
        self._scalar("search/evaluations", float(len(self.ledger)))
        self._scalar("search/cache_hits", max(row["repeats"], 0.0))
        if best is not None:
            self._scalar("search/best_feasible", best.quality)

    def log(self, name: str, value: float) -> None:
        """Logs a scalar of the agent; it also joins the following rows of the history."""
        self._latest[name] = value
        self._scalar(name, value)

    def close(self) -> None:
        """Ends the progress bar and flushes the TensorBoard events."""
        self._bar.close()
        self.env.close()
        if self._writer is not None:
            self._writer.close()

    def _scalar(self, name: str, value: float) -> None:
        if self._writer is not None:
            self._writer.add_scalar(name, value, len(self.ledger))


class Recorder(gym.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """Tells the session about every evaluation that an environment makes."""

    def __init__(self, env: gym.Env[np.ndarray, np.ndarray], session: Session) -> None:
        super().__init__(env)
        self._session = session

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Resets and books the reference plan."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._session.record(info["reference"], None)
        return observation, info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """Steps and books the evaluation that ends an episode."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated:
            self._session.record(info["evaluation"], float(reward))
        return observation, reward, terminated, truncated, info


def _writer(folder: str | Path | None) -> SummaryWriter | None:
    if folder is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
