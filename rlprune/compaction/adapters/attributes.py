"""Everything outside tensors that has to change with a plan, prepared once per network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from weakref import WeakKeyDictionary

from torch import nn

from rlprune.compaction.adapters._registry import follower_of
from rlprune.compaction.adapters.repeats import Axis, Repeat, find_repeats
from rlprune.compaction.adapters.rewriting import Edit, Sites, rewritten
from rlprune.plan import Plan
from rlprune.structure.groups import Groups
from rlprune.structure.records import Branch


class Attributes:
    """The attributes of a network's modules as functions of a plan.

    Attributes:
        repeats: integers that repeat a size for certain.
        unsure: integers that may or may not; off until a trial run shows they are needed.
        sites: calls in the modules' code that could be given other sizes.
        edits: sizes that the code of modules takes from attributes, by path.
    """

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._dense = groups.model
        self._grouped = groups.grouped
        self.paths = paths_of(groups)
        self.repeats, self.unsure = find_repeats(groups, self.paths)
        self.sites = Sites(groups)
        self.edits: dict[str, frozenset[Edit]] = {}

    def apply(self, model: nn.Module, plan: Plan, dropped: Sequence[Branch] = ()) -> None:
        """Set the attributes of a cut copy of the network without some of its branches."""
        self.bind(model, dropped)(plan)

    def bind(self, model: nn.Module, dropped: Sequence[Branch] = ()) -> Callable[[Plan], None]:
        """The same for one copy that is cut again and again: its modules are found once."""

        def gone(path: str) -> bool:
            return any(branch.holds(path) for branch in dropped)

        found = [(p, model.get_submodule(p)) for p in self.paths if not gone(p)]
        following = [
            (follower, self._dense.get_submodule(path), small, self._grouped.get(path))
            for path, small in found
            if (follower := follower_of(small)) is not None
        ]
        repeats = [repeat for repeat in self.repeats if not gone(repeat.path)]
        for path, edits in self.edits.items():
            if not gone(path):
                kind = type(self._dense.get_submodule(path))
                model.get_submodule(path).__class__ = rewritten(kind, edits)

        def apply(plan: Plan) -> None:
            for follower, dense, small, grouped in following:
                follower(dense, small, grouped)
            widths = plan.widths
            for repeat in repeats:
                repeat.apply(model, widths)

        return apply

    @contextmanager
    def with_more(self, chosen: Iterable[Repeat], edits: Iterable[Edit]) -> Iterator[None]:
        """Treat some unsure integers as repeated sizes, and edit some calls, for a while."""
        kept, unsure, before = list(self.repeats), list(self.unsure), dict(self.edits)
        self.enable(chosen)
        self.edit(edits)
        try:
            yield
        finally:
            self.repeats, self.unsure, self.edits = kept, unsure, before

    def take_over(self, other: Attributes, names: Mapping[str, str | None]) -> None:
        """Hold what trials have shown of the same network's groups before some were left whole.

        An integer that counts a group left whole keeps its value, though it may by accident equal
        another group's width.

        Args:
            other: the attributes that the trials were made with.
            names: of groups by the name that they had in ``other``; None for those left whole.
        """
        widths = {g.name: g.width for g in self._groups.prunable}
        self.repeats = [_renamed(repeat, names, widths) for repeat in other.repeats]
        self.unsure, self.edits = [], dict(other.edits)

    def edit(self, edits: Iterable[Edit]) -> None:
        """Give some calls sizes from attributes, in all modules of their class that agree on it."""
        known = frozenset().union(*self.edits.values())
        for edit in dict.fromkeys(e for e in edits if e not in known):
            repeats = self.sites.repeats(edit)
            for repeat in repeats or ():
                self.edits[repeat.path] = self.edits.get(repeat.path, frozenset()) | {edit}
            self.repeats += repeats or ()

    def enable(self, chosen: Iterable[Repeat]) -> None:
        """Treat some unsure integers as repeated sizes from now on."""
        chosen = list(chosen)
        self.repeats += chosen
        self.unsure = [r for r in self.unsure if r not in chosen]


def _renamed(repeat: Repeat, names: Mapping[str, str | None], widths: Mapping[str, int]) -> Repeat:
    """A repeat as it stands after some groups were left whole, tied or named anew."""
    fixed, per_unit = repeat.axis.fixed, dict[str, int]()
    for old, count in repeat.axis.per_unit.items():
        name = names[old]
        if name is None:
            fixed += count * repeat.dense_widths[old]
        else:
            per_unit[name] = (
                per_unit.get(name, 0) + count * repeat.dense_widths[old] // widths[name]
            )
    axis = Axis(repeat.axis.dense, fixed, per_unit)
    return replace(repeat, axis=axis, dense_widths=widths)


_PREPARED: WeakKeyDictionary[Groups, Attributes] = WeakKeyDictionary()


def attributes_of(groups: Groups) -> Attributes:
    """The attributes of a network's groups, worked out on first use."""
    if groups not in _PREPARED:
        _PREPARED[groups] = Attributes(groups)
    return _PREPARED[groups]


def paths_of(groups: Groups) -> list[str]:
    """Modules that own cut tensors and all modules above them, deepest first."""
    found: dict[str, None] = {}
    for group in groups.prunable:
        for s in groups.slices(group):
            for alias in groups.aliases.get(s.tensor, (s.tensor,)):
                path = alias.rpartition(".")[0].split(".parametrizations")[0]
                while path not in found:
                    found[path] = None
                    if not path:
                        break
                    path = path.rpartition(".")[0]
    return sorted(found, key=lambda p: -p.count(".") - bool(p))
