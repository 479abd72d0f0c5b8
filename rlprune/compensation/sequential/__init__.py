"""Layer after layer refitted to what the smaller network feeds it."""

from rlprune.compensation.sequential.method import SequentialLeastSquares

__all__ = ["SequentialLeastSquares"]
