"""The zoo: public networks by name, and a table of how well each of them is covered.

``python -m rlprune.zoo --help`` runs it from a shell.
"""

from __future__ import annotations

from rlprune.zoo.cover import Coverage, cover, coverage
from rlprune.zoo.networks import create, names
from rlprune.zoo.table import markdown

__all__ = ["Coverage", "cover", "coverage", "create", "markdown", "names"]
