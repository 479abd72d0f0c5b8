"""Least squares on the dense network's moments: a plan costs one linear solve per layer."""

from rlprune.compensation.least_squares.method import LeastSquares

__all__ = ["LeastSquares"]
