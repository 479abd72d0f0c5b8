"""Shapes of the terminal reward that agents learn from."""

from __future__ import annotations

import math

import numpy as np


def squash(reward: float) -> float:
    """Compresses the rewards of ruinous plans: identity above 0, logarithmic below."""
    return reward if reward >= 0 else -math.log1p(-reward)


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
