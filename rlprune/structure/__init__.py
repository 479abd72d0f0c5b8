"""Structure discovery: which units of a network can be removed, and what goes with each."""

from rlprune.structure.discovery import Discovery
from rlprune.structure.groups import Group, Groups, Slice
from rlprune.structure.held import held

__all__ = ["Discovery", "Group", "Groups", "Slice", "held"]
