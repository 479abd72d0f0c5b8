"""Structure discovery: which units of a network can be removed, and what goes with each."""

from rlprune.structure.discover import discover
from rlprune.structure.groups import Group, Groups, Slice

__all__ = ["Group", "Groups", "Slice", "discover"]
