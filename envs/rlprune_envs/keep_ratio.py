"""KeepRatio-v0: how much of each layer to keep, decided layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlprune_envs.handle import ProblemHandle
from rlprune_envs.observation import Drafts, Layout, Observer
from rlprune_envs.preview import Previews, forecast, relative_costs
from rlprune_envs.setting import Setting
from rlprune_envs.table import plan_table

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec

    from rlprune.problem import Evaluation, Problem

_CLAMP_BISECTIONS = 12


class KeepRatioEnv(gym.Env[np.ndarray, np.ndarray]):
    """A constrained decision process over the keep ratios of a network's groups.

    One step per group in execution order. The action in [-1, 1] is a keep ratio on a scale where
    -1 is the group's smallest legal width, 0 its anchor and +1 the full width. All rewards but the
    last are 0; the last is ``(quality - q0) / |q0|`` where ``q0`` is the quality of the plan that
    action 0 everywhere yields, so that plan earns exactly 0 (it is evaluated once, at the first
    reset, and is the ledger's first entry). An episode always ends by ``terminated``. Which metric
    a budget measures is unknown to the environment.

    The observation is described by :class:`rlprune_envs.observation.Layout`.

    The ``info`` of ``reset`` holds that plan's evaluation as ``reference``. The ``info`` of the
    last step holds ``evaluation`` (:class:`rlprune.problem.Evaluation`),
    ``widths``, ``evaluations`` (length of the ledger), and per budget ``costs`` and ``violations``
    *of what the actions asked for*: with ``project=True`` these may exceed a limit that the
    evaluated, projected plan keeps, which lets an agent learn to need no projection.

    Args:
        problem: a ``Problem``, a function that builds one, or a :class:`ProblemHandle`.
        project: evaluate the proposal scaled onto the budgets by ``projection.project`` (True) or
            as it is, feasible or not (False).
        clamp: limit each action so that the groups still to come can, at their smallest widths,
            still meet every budget (AMC, He et al., ECCV 2018, Algorithm 1). The limit rests on
            estimates where a budget has no formula; combine with ``project`` to be certain.
        anchor: what action 0 stands for: ``"uniform"``, the largest keep ratio that, used
            everywhere, meets every budget, or ``"sensitivity"``, the plan with the least predicted
            damage that does (:func:`rlprune.sensitivity.sensitivity`).
        render_mode: ``"ansi"`` or None.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012  (Gymnasium's protocol)

    def __init__(
        self,
        problem: Problem | Callable[[], Problem] | ProblemHandle,
        *,
        project: bool = True,
        clamp: bool = False,
        anchor: str = "uniform",
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be 'ansi' or None, got {render_mode!r}")
        self.render_mode = render_mode
        self._handle = ProblemHandle.of(problem)
        self._project = project
        self._clamp = clamp
        self._anchor = anchor
        self._setting: Setting = self._handle.setting(anchor)
        self._observer = Observer(self._setting)
        self._ratios: list[float] = []
        self._evaluation: Evaluation | None = None
        self._reference: Evaluation | None = None
        self.action_space = spaces.Box(-1.0, 1.0, shape=(1,), dtype=np.float32)
        self.observation_space = spaces.Box(-1.0, 1.0, shape=(self.layout.size,), dtype=np.float32)

    @property
    def spec(self) -> EnvSpec | None:
        """How to make this environment again; holds the problem by handle, so copies are cheap."""
        return self._spec

    @spec.setter
    def spec(self, value: EnvSpec | None) -> None:
        if value is not None and "problem" in value.kwargs:
            value.kwargs["problem"] = self._handle
        self._spec = value

    _spec: EnvSpec | None = None

    @property
    def problem(self) -> Problem:
        """The problem behind the environment."""
        return self._handle.problem

    @property
    def layout(self) -> Layout:
        """Where each field lies in the observation."""
        return self._observer.layout

    @property
    def setting(self) -> Setting:
        """The constants of the problem: action anchors, features, cheap cost model."""
        return self._setting

    def previews(self, actions: np.ndarray) -> Previews:
        """Forecasts what ``[P, n]`` actions would be evaluated as; free: nothing is measured."""
        ratios = self._setting.ratios(np.asarray(actions, dtype=np.float64))
        return forecast(self.problem, self._setting, ratios, project=self._project)

    def reward(self, quality: float) -> float:
        """The last reward of an episode whose plan has this quality.

        Raises:
            RuntimeError: before the first reset, which evaluates the plan of reward 0.
        """
        if self._reference is None:
            raise RuntimeError("rewards are relative to the reference plan: call reset() first")
        origin = self._reference.quality
        return float((quality - origin) / max(abs(origin), 1e-6))

    def destination(self, actions: np.ndarray) -> tuple[int, ...]:
        """Widths that ``[n]`` actions are evaluated at; free: nothing is measured.

        With ``project``, and a budget without a formula, they are a forecast.
        """
        if self._project and any(budget.estimate is None for budget in self.problem.budgets):
            return self._setting.widths(self.previews(actions[None]).ratios[0])
        ratios = self._setting.ratios(np.asarray(actions, dtype=np.float64))
        return self._handle.final_widths(ratios, project=self._project)

    def drafts(self, count: int) -> Drafts:
        """``count`` episodes to think through without ever evaluating one."""
        return Drafts(self._setting, count)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode. See :class:`gymnasium.Env`."""
        super().reset(seed=seed)
        self._reference = self._handle.reference(self._anchor, project=self._project)
        self._ratios = []
        self._evaluation = None
        return self._observer.reset()[0], {"reference": self._reference}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Decides one group. See :class:`gymnasium.Env`.

        Raises:
            RuntimeError: when the episode is over or was never started.
        """
        n = self.layout.decisions
        if self._reference is None or len(self._ratios) >= n:
            raise RuntimeError("the episode is over: call reset() before step()")
        value = float(np.asarray(action, dtype=np.float64).reshape(-1)[0])
        if not np.isfinite(value):
            raise ValueError(
                f"action for group {self.problem.decisions[len(self._ratios)].name!r} is {value}; "
                "it must be a number in [-1, 1]"
            )
        value = min(max(value, -1.0), 1.0)
        decision = len(self._ratios)
        ratio = self._setting.ratio(decision, value)
        if self._clamp:
            ratio = self._clamped(decision, ratio)
            value = self._action_of(decision, ratio)
        self._ratios.append(ratio)
        observation = self._observer.advance(np.array([value]), np.array([ratio]))[0]
        if decision < n - 1:
            return observation, 0.0, False, False, {}
        reward, info = self._finish()
        return observation, reward, True, False, info

    def render(self) -> str | None:
        """Draws the plan as a table when ``render_mode="ansi"``."""
        if self.render_mode is None:
            return None
        if self._evaluation is not None:
            return plan_table(self.problem, self._evaluation.widths, self._evaluation)
        padded = np.concatenate([self._ratios, self._setting.lowest[len(self._ratios) :]])
        return plan_table(self.problem, self._setting.widths(padded)[: len(self._ratios)])

    def _finish(self) -> tuple[float, dict[str, Any]]:
        ratios = np.array(self._ratios)
        asked = self._setting.widths(ratios)
        costs = self.problem.costs(asked)
        evaluation = self.problem.evaluate(self._handle.final_widths(ratios, project=self._project))
        self._evaluation = evaluation
        reward = self.reward(evaluation.quality)
        info = {
            "evaluation": evaluation,
            "widths": evaluation.widths,
            "evaluations": len(self.problem.ledger),
            "costs": dict(costs),
            "violations": {b.name: costs[b.name] / b.limit - 1.0 for b in self.problem.budgets},
        }
        return reward, info

    def _action_of(self, decision: int, ratio: float) -> float:
        ratios = self._setting.anchor.copy()
        ratios[decision] = ratio
        return float(self._setting.actions(ratios)[decision])

    def _clamped(self, decision: int, ratio: float) -> float:
        """Largest ratio up to ``ratio`` that leaves room for the rest at their minimum."""
        ratios = self._setting.lowest.copy()
        ratios[:decision] = self._ratios

        def fits(value: float) -> bool:
            ratios[decision] = value
            return bool(relative_costs(self.problem, self._setting, ratios[None]).max() <= 1.0)

        if fits(ratio):
            return ratio
        low, high = float(self._setting.lowest[decision]), ratio
        for _ in range(_CLAMP_BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low
