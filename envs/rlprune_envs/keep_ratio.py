"""KeepRatio-v0: how much of each layer to keep, decided layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlprune.plan import Plan
from rlprune_envs.handle import ProblemHandle
from rlprune_envs.observation import Drafts, Layout, Observer
from rlprune_envs.table import plan_table

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec

    from rlprune.problem import Evaluation, Problem
    from rlprune.space import Codec


class KeepRatioEnv(gym.Env[np.ndarray, np.ndarray]):
    """A constrained decision process over the decisions of a network's space.

    One step per decision in execution order. The action in [-1, 1] is a keep ratio on the scale
    of :class:`rlprune.space.Codec`, where -1 is the smallest legal ratio, 0 the anchor and +1 the
    largest. All rewards but the last are 0; the last is ``(quality - q0) / |q0|`` where ``q0`` is
    the quality of the plan that action 0 everywhere yields, so that plan earns exactly 0 (it is
    evaluated once, at the first reset, and is the ledger's first entry). An episode always ends by
    ``terminated``. Which metric a budget measures is unknown to the environment.

    The observation is described by :class:`rlprune_envs.observation.Layout`.

    The ``info`` of ``reset`` holds that plan's evaluation as ``reference``. The ``info`` of the
    last step holds ``evaluation`` (:class:`rlprune.problem.Evaluation`), ``evaluations`` (length
    of the ledger), and per budget ``costs`` and ``violations`` *of what the actions asked for*:
    with ``project=True`` these may exceed a limit that the evaluated, projected plan keeps, which
    lets an agent learn to need no projection.

    An environment can be pickled, for ``SubprocVecEnv`` and the like, if its problem is given as a
    function: every process then builds a problem of its own (see :class:`ProblemHandle`).

    Args:
        problem: a ``Problem``, a function that builds one, or a :class:`ProblemHandle`.
        project: evaluate the proposal scaled onto the budgets by :func:`rlprune.space.project`
            (True) or as it is, feasible or not (False).
        clamp: limit each action so that the decisions still to come can, at their smallest, still
            meet every budget (AMC, He et al., ECCV 2018, Algorithm 1). The limit rests on
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
        anchor: str | Plan = "uniform",
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be 'ansi' or None, got {render_mode!r}")
        self.render_mode = render_mode
        self._options: dict[str, Any] = {
            "project": project, "clamp": clamp, "anchor": anchor, "render_mode": render_mode,
        }  # fmt: skip
        self._handle = ProblemHandle.of(problem)
        self._project, self._clamp, self._anchor = project, clamp, anchor
        self.codec: Codec = self._handle.codec(anchor, project=project)
        self._observer = Observer(self.codec)
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

    def drafts(self, count: int) -> Drafts:
        """``count`` episodes to think through without ever evaluating one."""
        return Drafts(self.codec, count, clamp=self._clamp)

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
        """Takes one decision. See :class:`gymnasium.Env`.

        Raises:
            RuntimeError: when the episode is over or was never started.
            ValueError: the action is not a number.
        """
        n = self.layout.decisions
        if self._reference is None or len(self._ratios) >= n:
            raise RuntimeError("the episode is over: call reset() before step()")
        decision = len(self._ratios)
        value = float(np.asarray(action, dtype=np.float64).reshape(-1)[0])
        if not np.isfinite(value):
            raise ValueError(
                f"action for {self.codec.space.decisions[decision].name!r} is {value}; "
                "it must be a number in [-1, 1]"
            )
        value = min(max(value, -1.0), 1.0)
        ratio = self.codec.ratio(decision, value)
        if self._clamp:
            ratio = self.codec.clamped(np.array(self._ratios), ratio)
            value = self.codec.action(decision, ratio)
        self._ratios.append(ratio)
        observation = self._observer.advance(np.array([value]), np.array([ratio]))[0]
        if decision < n - 1:
            return observation, 0.0, False, False, {}
        reward, info = self._finish(self._reference)
        return observation, reward, True, False, info

    def render(self) -> str | None:
        """Draws the plan as a table when ``render_mode="ansi"``."""
        if self.render_mode is None:
            return None
        space = self.codec.space
        if self._evaluation is not None:
            return plan_table(self.problem, self._evaluation.plan, len(space), self._evaluation)
        padded = np.concatenate([self._ratios, space.highest[len(self._ratios) :]])
        return plan_table(self.problem, space.plan(space.choice(padded)), len(self._ratios))

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self._handle, self._options)

    def _finish(self, reference: Evaluation) -> tuple[float, dict[str, Any]]:
        space, ratios = self.codec.space, np.array(self._ratios)
        costs = self.problem.costs(space.plan(space.choice(ratios)))
        evaluation = self.problem.evaluate(self.codec.plan_of(ratios))
        self._evaluation = evaluation
        info = {
            "evaluation": evaluation,
            "evaluations": len(self.problem.ledger),
            "costs": dict(costs),
            "violations": {b.name: b.violation(costs[b.name]) for b in self.problem.budgets},
        }
        return evaluation.reward(reference), info


def _made(handle: ProblemHandle, options: dict[str, Any]) -> KeepRatioEnv:
    return KeepRatioEnv(handle, **options)
