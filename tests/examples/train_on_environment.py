"""stable-baselines3's PPO and SAC trained on the environment, as any of its users would.

    python tests/examples/train_on_environment.py

Both act on one problem, so they share one ledger: what one has evaluated, the other gets for free.
"""

import gymnasium as gym
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm

import rlprune
from rlprune import data, models, training
from rlprune.budgets import parse
from rlprune.problem import Problem, create

BUDGETS = {"macs": 0.5, "params": "60%"}


def build(epochs: int = 8) -> Problem:
    """A small network that knows its digits, and its pruning problem."""
    digits = data.load("digits")
    network = models.create("digits_cnn", num_classes=10, in_channels=1, width=8, seed=0)
    recipe = training.Pretrain(epochs=epochs, batch_size=64)
    trained = training.pretrain(network, digits, recipe, progress=False).model.eval()
    groups = rlprune.discover(trained, digits.example_inputs)
    return create(groups, parse(BUDGETS), data=digits)


def train(problem: Problem, episodes: int) -> dict[str, float]:
    """Trains both algorithms; returns the best feasible quality after each."""
    env = gym.make("rlprune_envs:KeepRatio-v0", problem=problem)
    steps = len(problem.space)
    algorithms: dict[str, BaseAlgorithm] = {
        "PPO": PPO("MlpPolicy", env, n_steps=4 * steps, batch_size=steps, gamma=1.0, seed=0),
        "SAC": SAC("MlpPolicy", env, learning_starts=2 * steps, gamma=1.0, seed=0),
    }
    best = {}
    for name, algorithm in algorithms.items():
        algorithm.learn(total_timesteps=episodes * steps)
        best[name] = max(e.quality for e in problem.ledger if e.feasible)
    return best


if __name__ == "__main__":
    torch.set_num_threads(1)
    problem = build()
    for name, quality in train(problem, episodes=24).items():
        print(f"{name}: {quality:.4f} after {len(problem.ledger)} unique evaluations")
    print(f"uniform plan: {problem.ledger[0].quality:.4f}")
