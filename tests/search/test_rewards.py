"""What agents learn from: squashed and shared rewards."""

import math

import numpy as np
import pytest

from rlprune.search.rewards import shared_rewards, squash


def test_ruinous_rewards_are_compressed_and_keep_their_order():
    rewards = [-1000.0, -10.0, -0.1, 0.0, 0.7, 3.0]
    squashed = [squash(reward) for reward in rewards]
    assert squashed == sorted(squashed)
    assert squashed[0] == pytest.approx(-math.log(1001.0))
    assert squashed[4:] == [0.7, 3.0]


def test_an_episode_shares_its_standardised_reward_among_its_transitions():
    shared = shared_rewards([1.0, 3.0], decisions=4, kept=10).reshape(2, 4)
    np.testing.assert_allclose(shared.sum(axis=1), [-1.0, 1.0], atol=1e-5)
    assert (shared == shared[:, :1]).all()


def test_a_full_ring_holds_the_newest_episodes_where_they_were_written():
    finals = [0.0, 1.0, 2.0, 3.0, 4.0]
    ring = shared_rewards(finals, decisions=1, kept=3)
    written = [None, None, None]
    for episode, reward in enumerate(finals):
        written[episode % 3] = reward
    assert list(np.argsort(ring)) == list(np.argsort(written))
