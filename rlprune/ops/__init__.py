"""What is known of ATen operations: one record each, asked by every other room.

`README.md` beside this file says how to add one. A record says what the operation does to labels
(structure), what it multiplies (budgets), where it keeps zeros and how it scales (branches,
compensation), and how it treats memory (compaction): see `Op`.
"""

from __future__ import annotations

from rlprune.ops.families import load
from rlprune.ops.record import Makes, Moves, Op, Operands, Scaling, Zeros
from rlprune.ops.table import find, name_of, named, records, register

load()

__all__ = [
    "Makes",
    "Moves",
    "Op",
    "Operands",
    "Scaling",
    "Zeros",
    "find",
    "name_of",
    "named",
    "records",
    "register",
]
