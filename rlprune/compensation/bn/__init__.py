"""New statistics for batch normalisation."""

from rlprune.compensation.bn.recalibration import BatchNormRecalibration, recalibrate

__all__ = ["BatchNormRecalibration", "recalibrate"]
