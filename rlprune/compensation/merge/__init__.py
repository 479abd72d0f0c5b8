"""Neuron merging, without data."""

from rlprune.compensation.merge.method import Merge

__all__ = ["Merge"]
