"""Biases carry what removed inputs contribute on average."""

from rlprune.compensation.bias.method import BiasCompensation

__all__ = ["BiasCompensation"]
