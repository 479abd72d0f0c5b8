"""Merging by what units hold: each removed unit goes to the kept one that says most of the same."""

from rlprune.compensation.cluster.method import ClusterMerge

__all__ = ["ClusterMerge"]
