"""KeepRatio-v0: Gymnasium's protocol, the action scale, projection, clamp, rendering."""

from __future__ import annotations

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from rlprune.space import Codec
from rlprune_envs import KeepRatioEnv, ProblemHandle
from tests.search.analytic_problem import AnalyticProblem

ENV_ID = "rlprune_envs:KeepRatio-v0"


def play(env: gym.Env, actions: np.ndarray) -> tuple[list[np.ndarray], float, dict]:
    observation, info = env.reset()
    observations, reward = [observation], 0.0
    for step, action in enumerate(actions):
        observation, reward, terminated, truncated, info = env.step(
            np.array([action], dtype=np.float32)
        )
        observations.append(observation)
        assert terminated == (step == len(actions) - 1)
        assert not truncated
    return observations, float(reward), info


@pytest.mark.parametrize("options", [{}, {"project": False}, {"clamp": True}])
def test_both_env_checkers_pass_without_a_warning(options: dict) -> None:
    env = gym.make(ENV_ID, problem=AnalyticProblem(tiles=0.6), **options).unwrapped
    check_env(env)
    check_env_sb3(env)


def test_make_and_its_spec_never_copy_the_live_problem() -> None:
    problem = AnalyticProblem()
    env = gym.make(ENV_ID, problem=problem)
    assert env.spec is not None
    assert env.spec.kwargs["problem"].problem is problem
    assert env.spec.make().unwrapped.problem is problem


def test_a_factory_is_called_once_however_often_its_handle_is_copied() -> None:
    built = []

    def factory() -> AnalyticProblem:
        built.append(AnalyticProblem())
        return built[-1]

    handle = ProblemHandle(factory)
    first = gym.make(ENV_ID, problem=handle)
    second = gym.make(ENV_ID, problem=copy.deepcopy(handle))
    assert first.unwrapped.problem is second.unwrapped.problem
    assert len(built) == 1


def test_an_environment_of_a_function_pickles_and_one_of_a_live_problem_says_why_not() -> None:
    env = gym.make(ENV_ID, problem=AnalyticProblem, anchor="sensitivity", clamp=True).unwrapped
    again = pickle.loads(pickle.dumps(env))
    assert again.problem is not env.problem
    actions = np.linspace(-1, 1, 9)
    assert play(again, actions)[1] == play(env, actions)[1]
    with pytest.raises(TypeError, match="make it with a function that builds the problem"):
        pickle.dumps(KeepRatioEnv(AnalyticProblem()))


def test_something_that_is_no_problem_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a Problem"):
        gym.make(ENV_ID, problem=3)


def test_action_zero_everywhere_is_the_uniform_plan_and_earns_zero() -> None:
    from rlprune.space import uniform

    problem = AnalyticProblem(tiles=0.6)
    _, choice = uniform(problem)
    env = gym.make(ENV_ID, problem=problem, project=False)
    _, reward, info = play(env, np.zeros(9))
    assert info["evaluation"].plan == problem.space.plan(choice)
    assert reward == 0.0
    assert problem.ledger[0].plan == problem.space.plan(choice)


def test_action_zero_everywhere_earns_zero_with_projection_too() -> None:
    env = gym.make(ENV_ID, problem=AnalyticProblem())
    _, reward, info = play(env, np.zeros(9))
    assert reward == 0.0
    assert info["evaluations"] == 1


def test_the_ends_of_the_action_scale_are_smallest_and_full_width() -> None:
    problem = AnalyticProblem()
    env = gym.make(ENV_ID, problem=problem, project=False)
    for action, choice in ((-1.0, problem.space.smallest), (1.0, problem.space.largest)):
        assert play(env, np.full(9, action))[2]["evaluation"].plan == problem.space.plan(choice)


def test_keep_ratio_rises_with_the_action_and_its_inverse_finds_the_action() -> None:
    codec = Codec(AnalyticProblem())
    actions = np.linspace(-1, 1, 41)
    ratios = np.array([codec.ratios(np.full(9, a)) for a in actions])
    assert (np.diff(ratios, axis=0) > 0).all()
    np.testing.assert_allclose(codec.actions(ratios), np.tile(actions[:, None], 9), atol=1e-7)


def test_projected_plans_meet_every_budget_while_the_costs_tell_what_was_asked() -> None:
    problem = AnalyticProblem(tiles=0.6)
    env = gym.make(ENV_ID, problem=problem)
    rng = np.random.default_rng(0)
    for _ in range(20):
        info = play(env, rng.uniform(-1, 1, 9))[2]
        assert info["evaluation"].feasible
    _, _, info = play(env, np.ones(9))
    assert info["violations"]["chain"] == pytest.approx(1.0)
    assert info["costs"]["tiles"] == problem.budgets[1].dense


def test_clamped_actions_meet_a_budget_that_has_a_formula() -> None:
    problem = AnalyticProblem()
    env = gym.make(ENV_ID, problem=problem, project=False, clamp=True)
    rng = np.random.default_rng(0)
    for _ in range(20):
        info = play(env, rng.uniform(0, 1, 9))[2]
        assert info["violations"]["chain"] <= 0


def test_observations_say_what_is_decided_used_and_left() -> None:
    problem = AnalyticProblem(tiles=0.6)
    env = gym.make(ENV_ID, problem=problem)
    fields = env.unwrapped.layout.fields()
    actions = np.linspace(-0.9, 0.9, 9)
    observations, _, _ = play(env, actions)
    for step, observation in enumerate(observations[:-1]):
        assert observation[fields["position"]].argmax() == step
        np.testing.assert_allclose(
            observation[fields["features"]], problem.space.features[step], 1e-6
        )
    assert [o[fields["previous"]][0] for o in observations] == pytest.approx([0.0, *actions])
    assert observations[0][fields["progress"]] == -1
    assert observations[-1][fields["progress"]] == 1
    outlook = observations[0][fields["outlook"]]
    uniform = problem.violations(problem.space.plan(env.unwrapped.codec.costs.uniform))
    assert outlook[0] == pytest.approx(uniform["chain"], abs=0.05)
    used = np.array([o[fields["used"]] for o in observations])
    assert (np.diff(used, axis=0) >= -1e-6).all(), "decisions only ever use a budget up"


def test_no_budget_is_measured_before_the_last_step() -> None:
    problem = AnalyticProblem(tiles=0.6)
    env = gym.make(ENV_ID, problem=problem)
    env.reset()
    measured = problem.ledger.calls["tiles"]
    for _ in range(8):
        env.step(np.array([0.33], dtype=np.float32))
    assert problem.ledger.calls["tiles"] == measured > 0


def test_drafts_give_the_observations_of_the_environment() -> None:
    env = gym.make(ENV_ID, problem=AnalyticProblem(tiles=0.6))
    actions = np.random.default_rng(1).uniform(-1, 1, (5, 9)).astype(np.float32)
    drafts = env.unwrapped.drafts(5)
    seen = [drafts.reset()] + [drafts.step(actions[:, t]) for t in range(8)]
    for episode in range(5):
        observations, _, _ = play(env, actions[episode])
        for step in range(9):
            np.testing.assert_allclose(seen[step][episode], observations[step], atol=1e-6)


def test_previews_forecast_the_projected_plan_for_free() -> None:
    problem = AnalyticProblem()
    env = gym.make(ENV_ID, problem=problem)
    actions = np.random.default_rng(2).uniform(-1, 1, (10, 9))
    spent = len(problem.ledger)
    previews = env.unwrapped.codec.previews(actions)
    assert len(problem.ledger) == spent
    for row, ratios, violations in zip(actions, previews.ratios, previews.violations, strict=True):
        info = play(env, row)[2]
        np.testing.assert_allclose(ratios, problem.space.ratios(info["evaluation"].plan), atol=0.08)
        assert violations[0] == pytest.approx(info["violations"]["chain"], abs=1e-9)


@pytest.mark.parametrize("options", [{}, {"tiles": 0.6}, {"limit": 0.999}, {"limit": 0.01}])
@pytest.mark.parametrize("project", [True, False])
def test_a_forecast_does_not_depend_on_the_others_beside_it(options: dict, project: bool) -> None:
    previews = Codec(AnalyticProblem(**options), project=project).previews
    actions = np.random.default_rng(3).uniform(-1, 1, (40, 9)) * np.linspace(0, 1, 40)[:, None]
    together = previews(actions)
    alone = [previews(row[None]) for row in actions]
    np.testing.assert_allclose(together.ratios, [p.ratios[0] for p in alone], rtol=1e-12)
    np.testing.assert_allclose(together.violations, [p.violations[0] for p in alone], atol=1e-12)


def test_rendering_draws_the_plan_so_far_and_the_verdict_at_the_end() -> None:
    env = gym.make(ENV_ID, problem=AnalyticProblem(), render_mode="ansi")
    env.reset()
    env.step(np.array([1.0], dtype=np.float32))
    table = env.render()
    assert "conv0" in table
    assert "100.0%" in table
    assert "quality" not in table
    for _ in range(8):
        env.step(np.array([0.0], dtype=np.float32))
    assert "chain" in env.render()
    assert "(met)" in env.render()


def test_misuse_is_named() -> None:
    env = gym.make(ENV_ID, problem=AnalyticProblem()).unwrapped
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros(1, dtype=np.float32))
    env.reset()
    with pytest.raises(ValueError, match="conv0"):
        env.step(np.array([np.nan], dtype=np.float32))
    with pytest.raises(ValueError, match="render_mode"):
        KeepRatioEnv(AnalyticProblem(), render_mode="human")


def predicting(**options: object) -> AnalyticProblem:
    return AnalyticProblem(predicts=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"tiles": 0.6}, {"limit": 0.2}])
@pytest.mark.parametrize("project", [True, False])
def test_action_zero_is_the_plan_of_least_predicted_damage(options: dict, project: bool) -> None:
    problem = predicting(**options)
    env = gym.make(ENV_ID, problem=problem, anchor="sensitivity", project=project)
    _, reward, info = play(env, np.zeros(9))
    assert reward == 0.0
    assert info["evaluation"].feasible
    assert info["evaluations"] == 1
    uniform = gym.make(ENV_ID, problem=problem, project=project)
    assert info["evaluation"].quality > play(uniform, np.zeros(9))[2]["evaluation"].quality


def test_the_ends_of_the_scale_and_its_inverse_do_not_depend_on_the_anchor() -> None:
    problem = predicting()
    env = gym.make(ENV_ID, problem=problem, anchor="sensitivity", project=False)
    for action, choice in ((-1.0, problem.space.smallest), (1.0, problem.space.largest)):
        assert play(env, np.full(9, action))[2]["evaluation"].plan == problem.space.plan(choice)
    roots = [np.sqrt(curve) for curve in problem.sensitivity or ()]
    for mine, root in zip(env.unwrapped.codec.damage_roots, roots, strict=True):
        np.testing.assert_allclose(mine, root)
    check_env(env.unwrapped)


def test_without_a_prediction_the_anchor_is_the_uniform_plan() -> None:
    problem = AnalyticProblem()
    env = gym.make(ENV_ID, problem=problem, anchor="sensitivity")
    codec = env.unwrapped.codec
    np.testing.assert_array_equal(codec.anchor, Codec(problem).anchor)
    assert codec.damage_roots is None
    assert play(env, np.zeros(9))[1] == 0.0


@pytest.mark.parametrize("first", ["uniform", "sensitivity"])
def test_two_anchors_of_one_handle_are_independent(first: str) -> None:
    second = {"uniform": "sensitivity", "sensitivity": "uniform"}[first]
    handle = ProblemHandle(predicting())
    envs = {a: gym.make(ENV_ID, problem=handle, anchor=a) for a in (first, second)}
    rewards, plans = {}, {}
    for anchor in (first, second, first):
        _, rewards[anchor], info = play(envs[anchor], np.zeros(9))
        plans[anchor] = info["evaluation"].plan
        assert rewards[anchor] == 0.0
    assert len(handle.problem.ledger) == 2
    assert plans["uniform"] != plans["sensitivity"]
    for anchor, env in envs.items():
        alone = gym.make(ENV_ID, problem=predicting(), anchor=anchor)
        assert play(alone, np.full(9, 0.3))[1] == play(env, np.full(9, 0.3))[1]


def test_an_unknown_anchor_is_named() -> None:
    with pytest.raises(ValueError, match="anchor must be one of uniform, sensitivity, got 'mean'"):
        KeepRatioEnv(AnalyticProblem(), anchor="mean")


def test_a_real_problem_with_and_without_calibration_data() -> None:
    from rlprune.problem import EvaluatorConfig, create
    from tests.problem.problems import digits, groups, held_out

    class Samples:
        holdout = held_out(32)
        calibration = digits()[0][:64], digits()[1][:64]

    config = EvaluatorConfig(compensation=("least_squares",), images=32)
    problem = create(groups(), {"macs": 0.5, "params": 0.6}, data=Samples(), config=config)
    env = gym.make(ENV_ID, problem=problem, anchor="sensitivity")
    _, reward, info = play(env, np.zeros(len(problem.space)))
    assert reward == 0.0
    assert info["evaluation"].feasible
    assert len(env.unwrapped.codec.damage_roots) == len(problem.space)

    own = ProblemHandle(create(groups(), {"macs": 0.5}, score=lambda model: 1.5))
    anchors = [own.codec(anchor).anchor for anchor in ("uniform", "sensitivity")]
    np.testing.assert_array_equal(*anchors)
