"""Forwards whose sizes follow: one call in a module's code is given sizes from attributes.

``x.reshape(B, N, C)`` names a width that other units keep while its own shrinks. A subclass of the
module's class holds the same method with the one argument replaced, ``x.reshape(B, N, self.size)``;
a module is turned into it by assigning ``__class__``, and the attribute follows the plan as any
other repeated integer does. It is ordinary Python: it is copied, trained, exported and compiled as
the stock module is, and ``isinstance`` of the stock class holds.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from rlprune.attention import adaptive_class, stock_class
from rlprune.compaction.adapters.repeats import Axis, Repeat, axis_along
from rlprune.structure.call_sites import SIZED, CallSite
from rlprune.structure.groups import Groups
from rlprune.structure.records import Step

RESHAPING = frozenset(["view", "reshape", "expand"])
SPLITTING = frozenset(["split", "split_with_sizes"])


@dataclass(frozen=True)
class Edit:
    """One size in one call of one method of a class.

    Attributes:
        kind: the class of the modules.
        method: its name.
        end: line (in the file) and column where the call ends.
        element: number of the size among those that the call is given.
        times: whether the size is scaled by the attribute rather than replaced: it is a product
            with the batch size.
        whole: whether the sizes come as one expression.
    """

    kind: type[nn.Module]
    method: str
    end: tuple[int, int]
    element: int
    times: bool = False
    whole: bool = False

    @property
    def attribute(self) -> str:
        """Name of the attribute that holds the size."""
        return f"size_{self.end[0]}_{max(self.end[1], 0)}_{self.element}"


class Sites:
    """The calls of a traced network that could be given other sizes."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self._owner = np.full(len(groups.trace.labels), -1, dtype=np.int64)
        self._names = [g.name for g in groups.prunable]
        for k, name in enumerate(self._names):
            self._owner[groups.members[name]] = k
        self._widths = {g.name: g.width for g in groups.prunable}

    def edits(self, index: int) -> list[tuple[Edit, ...]]:
        """What could be replaced in the call that runs op ``index`` or the one right after it.

        The likeliest first: sizes along which units lie, each of them, and sizes that stay but are
        computed from attributes, which may have followed a width.
        """
        steps = self.groups.trace.steps
        for at in range(index, min(index + 3, len(steps))):
            site = self.groups.trace.sites.get(at)
            if site is not None and steps[at].op in SIZED:
                follow, stay = self._edits(site, at)
                ways = [follow, *((e,) for e in follow), stay, (*follow, *stay)]
                return [w for w in dict.fromkeys(ways) if w]
        return []

    def _edits(self, site: CallSite, index: int) -> tuple[tuple[Edit, ...], tuple[Edit, ...]]:
        kind = type(self.groups.model.get_submodule(site.module))
        if adaptive_class(kind) is not None or stock_class(kind) is not kind:
            return (), ()
        step = self.groups.trace.steps[index]
        method = _method(kind, site.code.co_name, site.code)
        call = None if method is None else _find(method, site.end)
        if call is None or method is None:
            return (), ()
        follow, stay = [], []
        for element, axis in self._axes(call, step).items():
            whole = call.listed(step)
            times = not axis.fixed and not whole and self._tiled(index, element, call)
            edit = Edit(kind, site.code.co_name, site.end, element, times, whole)
            if axis.per_unit:
                follow.append(edit)
            elif not whole and _from_attributes(method, call.sizes[element]):
                stay.append(edit)
        return tuple(follow), tuple(stay)

    def repeats(self, edit: Edit) -> list[Repeat] | None:
        """The attribute of every module that makes the call; None where one makes it variously."""
        found: dict[Any, Repeat] = {}
        for index, site in self.groups.trace.sites.items():
            step = self.groups.trace.steps[index]
            module = self.groups.model.get_submodule(site.module)
            if site.end != edit.end or type(module) is not edit.kind or step.op not in SIZED:
                continue
            method = _method(edit.kind, site.code.co_name, site.code)
            call = None if method is None else _find(method, site.end)
            axes = {} if call is None else self._axes(call, step)
            axis = axes.get(edit.element)
            if axis is None and edit.whole and axes:
                continue
            if axis is None:
                return None
            known = found.get(site.module)
            if known is not None and known.axis != axis:
                return None
            found[site.module] = Repeat(
                site.module, edit.kind, edit.attribute, axis.dense, axis, self._widths
            )
        if edit.times:
            for repeat in list(found.values()):
                size = repeat.axis.dense
                attribute, fixed = f"{edit.attribute}_of", Axis(size, size, {})
                found[attribute, repeat.path] = Repeat(
                    repeat.path, edit.kind, attribute, size, fixed, self._widths
                )
        return list(found.values())

    def _axes(self, call: _Call, step: Step) -> dict[int, Axis]:
        """Sizes of a call, by number, as functions of the widths."""
        found = {}
        for element, (result, dim) in call.places(step).items():
            if result >= len(step.shapes) or not 0 <= dim < len(step.shapes[result]):
                continue
            shape, planes = step.shapes[result], step.planes[result]
            axis = axis_along(self.groups, shape, planes, dim, self._owner, self._names)
            found[element] = axis or Axis(shape[dim], shape[dim], {})
        return found

    def _tiled(self, index: int, element: int, call: _Call) -> bool:
        """Whether the units along a size are repeated as a whole, as a leading batch does."""
        step = self.groups.trace.steps[index]
        result, dim = call.places(step)[element]
        if dim != 0:
            return False
        labels = self.groups.trace.labels
        for plane in step.planes[result]:
            if plane.shape[dim] > 1:
                line = labels.find(
                    plane.movedim(dim, 0).reshape(plane.shape[dim], -1)[:, 0].numpy()
                )
                period = (
                    int(np.argmax(line[1:] == line[0])) + 1 if (line[1:] == line[0]).any() else 0
                )
                return bool(period > 1 and (line == np.resize(line[:period], len(line))).all())
        return False


@dataclass(frozen=True)
class _Call:
    """A call with sizes: its node, and the expressions of the sizes."""

    name: str
    sizes: tuple[ast.expr, ...]
    whole: bool
    dim: int | None

    def listed(self, step: Step) -> bool:
        """Whether the sizes come as one expression."""
        return self.whole or (len(self.sizes) == 1 and step.op == "split_with_sizes")

    def places(self, step: Step) -> dict[int, tuple[int, int]]:
        """Result and dimension that every size which is not left to be inferred gives."""
        if self.name in SPLITTING:
            along = self._along(step)
            count = len(step.shapes) if self.listed(step) else len(self.sizes)
            return {k: (k, along) for k in range(count)}
        ndim = len(step.shapes[0])
        count = ndim if self.whole else len(self.sizes)
        first = 0
        if self.name == "unflatten":
            if self.dim is None:
                return {}
            first = self.dim if self.dim >= 0 else self.dim + ndim - count + 1
        kept = range(count)
        if not self.whole:
            kept = [k for k in kept if not _inferred(self.sizes[k])]  # type: ignore[assignment]
        return {k: (0, first + k) for k in kept}

    def _along(self, step: Step) -> int:
        given = [a for a in step.args[2:3] if isinstance(a, int)]
        dim = given[0] if given else step.kwargs.get("dim", 0)
        return int(dim) % len(step.shapes[0])


def _from_attributes(method: Callable[..., Any], size: ast.expr) -> bool:
    """Whether a size is computed from an attribute of the module, in place or a line before."""
    found = _tree(method)
    if found is None or not found[0].args.args:
        return False
    owner = found[0].args.args[0].arg

    def reads(node: ast.AST) -> bool:
        return any(
            isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == owner
            for n in ast.walk(node)
        )

    if reads(size):
        return True
    names = {n.id for n in ast.walk(size) if isinstance(n, ast.Name)}
    return any(
        isinstance(node, ast.Assign) and names & _targets(node) and reads(node.value)
        for node in ast.walk(found[0])
    )


def _targets(node: ast.Assign) -> set[str]:
    return {t.id for target in node.targets for t in ast.walk(target) if isinstance(t, ast.Name)}


def _inferred(size: ast.expr) -> bool:
    return isinstance(size, ast.UnaryOp) and isinstance(size.op, ast.USub)


def _method(kind: type, name: str, code: Any) -> Callable[..., Any] | None:
    """The function that modules of a class run under a name, if it is some code and undecorated."""
    found = next((vars(b)[name] for b in kind.__mro__ if name in vars(b)), None)
    return found if inspect.isfunction(found) and found.__code__ is code else None


def _tree(method: Callable[..., Any]) -> tuple[ast.FunctionDef, int, int] | None:
    """Syntax tree of a method, the line it starts on less one, and its indentation."""
    try:
        lines, start = inspect.getsourcelines(method)
        tree = ast.parse(textwrap.dedent("".join(lines))).body[0]
    except (OSError, TypeError, SyntaxError):
        return None
    indent = len(lines[0]) - len(lines[0].lstrip())
    return (tree, start - 1, indent) if isinstance(tree, ast.FunctionDef) else None


def _find(method: Callable[..., Any], end: tuple[int, int]) -> _Call | None:
    found = _tree(method)
    if found is None:
        return None
    tree, start, indent = found
    node = _node(tree, end, start, indent)
    return None if node is None else _sizes(node)


def _node(tree: ast.AST, end: tuple[int, int], start: int, indent: int) -> ast.Call | None:
    """The call that ends at some line and column of the file; the only one where none is told."""
    calls = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.Call)
        and (n.end_lineno or 0) + start == end[0]
        and end[1] in (-1, (n.end_col_offset or 0) + indent)
        and _sizes(n) is not None
    ]
    return calls[0] if len(calls) == 1 else None


def _sizes(node: ast.Call) -> _Call | None:
    """The sizes that a call is given; None for a call of another kind."""
    if not isinstance(node.func, ast.Attribute) or (node.keywords and node.func.attr != "split"):
        return None
    name = node.func.attr
    args = list(node.args)
    if isinstance(node.func.value, ast.Name) and node.func.value.id == "torch":
        args = args[1:]
    dim = None
    if name == "unflatten" and len(args) == 2:
        try:
            dim = int(ast.literal_eval(args[0]))
        except (ValueError, TypeError):
            return None
        args = args[1:]
    elif name in SPLITTING and args:
        args = args[:1]
    elif name not in RESHAPING:
        return None
    if not args:
        return None
    if len(args) == 1 and isinstance(args[0], (ast.Tuple, ast.List)):
        args = list(args[0].elts)
    elif len(args) == 1 and name != "split":
        return _Call(name, tuple(args), True, dim)
    if any(isinstance(a, ast.Starred) for a in args):
        return _Call(name, tuple(args), True, dim)
    return _Call(name, tuple(args), False, dim)


_CLASSES: dict[tuple[type, frozenset[Edit]], type[nn.Module]] = {}


def rewritten(kind: type[nn.Module], edits: Iterable[Edit]) -> type[nn.Module]:
    """The subclass of a class whose methods take some sizes from attributes."""
    chosen = frozenset(edits)
    if (kind, chosen) not in _CLASSES:
        methods: dict[str, list[Edit]] = {}
        for edit in sorted(chosen, key=lambda e: (e.method, e.end, e.element)):
            methods.setdefault(edit.method, []).append(edit)
        body: dict[str, Any] = {n: _edited(kind, n, own) for n, own in methods.items()}
        body |= {"__module__": kind.__module__, "__doc__": kind.__doc__}
        _CLASSES[kind, chosen] = type(kind.__name__, (kind,), body)
    return _CLASSES[kind, chosen]


def _edited(kind: type[nn.Module], name: str, edits: Sequence[Edit]) -> Any:
    """A method compiled anew with sizes replaced; closures and defaults are the old one's."""
    plain = next(vars(b)[name] for b in kind.__mro__ if name in vars(b))
    found = _tree(plain)
    assert found is not None
    tree, start, indent = found
    owner = tree.args.args[0].arg
    for edit in edits:
        node = _node(tree, edit.end, start, indent)
        assert node is not None
        _replace(node, edit, owner)
    tree.returns = None
    for argument in ast.walk(tree.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    tree.args.defaults = [ast.Constant(None) for _ in tree.args.defaults]
    tree.args.kw_defaults = [
        None if d is None else ast.Constant(None) for d in tree.args.kw_defaults
    ]
    free = plain.__code__.co_freevars
    outer = ast.FunctionDef(
        name="_with_cells",
        args=ast.arguments([], [ast.arg(n) for n in free], None, [], [], None, []),
        body=[tree, ast.Return(ast.Name(tree.name, ast.Load()))],
        decorator_list=[],
    )
    if hasattr(outer, "type_params"):
        outer.type_params = []
    module = ast.fix_missing_locations(ast.Module([outer], []))
    ast.increment_lineno(module, start)
    made: dict[str, Any] = {}
    exec(compile(module, plain.__code__.co_filename, "exec"), plain.__globals__, made)
    function = made["_with_cells"](*(c.cell_contents for c in plain.__closure__ or ()))
    function.__defaults__, function.__kwdefaults__ = plain.__defaults__, plain.__kwdefaults__
    function.__qualname__ = plain.__qualname__
    return function


def _replace(node: ast.Call, edit: Edit, owner: str) -> None:
    """Put the attribute in the place of one size of a call."""
    call = _sizes(node)
    assert call is not None
    held: ast.expr = ast.Attribute(ast.Name(owner, ast.Load()), edit.attribute, ast.Load())
    if edit.whole:
        given: ast.expr = call.sizes[0]
        if len(call.sizes) > 1 or isinstance(given, ast.Starred):
            given = ast.Tuple(list(call.sizes), ast.Load())
        text = ast.parse(
            f"tuple(_held if _k == {edit.element} else _n for _k, _n in enumerate(_sizes))",
            mode="eval",
        ).body
        new: ast.expr = _Names({"_held": held, "_sizes": given}).visit(text)
        first = node.args.index(call.sizes[0])
        node.args[first : first + len(call.sizes)] = [new]
        return
    for holder in (node.args, *(a.elts for a in node.args if isinstance(a, (ast.Tuple, ast.List)))):
        for k, size in enumerate(holder):
            if size is call.sizes[edit.element]:
                if edit.times:
                    dense = ast.Attribute(
                        ast.Name(owner, ast.Load()), f"{edit.attribute}_of", ast.Load()
                    )
                    product = ast.BinOp(size, ast.Mult(), held)
                    holder[k] = ast.BinOp(product, ast.FloorDiv(), dense)
                else:
                    holder[k] = held


class _Names(ast.NodeTransformer):
    """Replaces names by expressions."""

    def __init__(self, by: dict[str, ast.expr]) -> None:
        self.by = by

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """One name."""
        return self.by.get(node.id, node)
