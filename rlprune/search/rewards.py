"""Shapes of the terminal reward that agents learn from."""

from __future__ import annotations

import math

import numpy as np

_TANGENT = 0.75


def squash(reward: float) -> float:
    """Compresses the rewards of ruinous plans: identity above 0, logarithmic below."""
    return reward if reward >= 0 else -math.log1p(-reward)


def log_gain(reward: float) -> float:
    """How much less is lost than by the reference, ``-log(1 - reward)``.

    From a reward of 3/4 on, where a score without an upper bound may well lie, it goes on along its
    tangent.
    """
    inside = min(reward, _TANGENT)
    return -math.log1p(-inside) + (reward - inside) / (1.0 - _TANGENT)


def shared_rewards(finals: list[float], decisions: int, kept: int) -> np.ndarray:
    """Rewards of all transitions in a ring buffer, from the rewards that end the episodes.

    Args:
        finals: one reward per episode, in order.
        decisions: transitions per episode.
        kept: episodes that the buffer holds; the newest overwrite the oldest.

    Returns:
        ``[min(episodes, kept) * decisions]``: each episode's reward, standardised over all
        episodes, in equal parts, where the buffer holds its transitions.
    """
    rewards = np.array(finals)
    standard = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
    if len(standard) > kept:
        standard = np.roll(standard[-kept:], len(standard) % kept)
    return np.repeat(standard / decisions, decisions)
