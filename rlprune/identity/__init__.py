"""Identity: a description of everything that a stored result depends on (law 8).

Whatever is stored or resumed asks here whether it still belongs to what is asked for, and nowhere
else: the run folder, the store of evaluations, the cache of trained networks, kept orders and
curves, benchmark cells.

* Tensors and arrays are told apart by type, shape and content; above 1 GiB by a fixed sample of it.
* A function of the user's own is its code (not its comments or line numbers), its defaults, what
  its closure holds, the plain values and functions of its own package that it refers to, whatever
  it is bound to. What it is seen to change itself (``calls.append(...)``, ``nonlocal count``) is
  bookkeeping and does not count.
* Where Python cannot look inside (functions in C, files that a function reads, a device that it
  asks) only the name is known: declare the rest, as in ``Budget(fn, limit, version="2024-05")``.
* Any object may speak for itself with a method ``identity()`` that returns its ingredients.
"""

from rlprune.identity._changes import changes
from rlprune.identity._values import describe, digest

__all__ = ["changes", "describe", "digest"]
