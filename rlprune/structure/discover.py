"""From a traced forward pass to groups of units."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from math import gcd
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rlprune.attention import adapted
from rlprune.errors import ConfigError, StructureError
from rlprune.inputs import call
from rlprune.modes import attention_spelled_out, evaluating
from rlprune.structure.groups import Group, Groups, Polynomial, Slice
from rlprune.structure.labels import compress, compress_all, varying
from rlprune.structure.trace import Trace, Tracer, module_path

Bounds = Mapping[str, tuple[float, float]]


def discover(
    model: nn.Module,
    example_inputs: Any,
    *,
    exclude: Sequence[str] = (),
    min_width: int = 1,
    round_to: int | Mapping[str, int] = 1,
    bounds: Bounds | None = None,
) -> Groups:
    """Find every group of units of a network by tracing one forward pass.

    Args:
        model: any network; it is not changed and may be in train mode or on ``meta``.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.
        exclude: module-name globs; groups whose producing module matches are left whole.
        min_width: fewest units any group may keep.
        round_to: kept channels are multiples of it; a number, or globs to numbers.
        bounds: globs to (lowest, highest) keep ratio of matching groups, each in (0, 1].

    Returns:
        The groups in execution order, frozen ones with the reason.

    Raises:
        StructureError: the forward pass failed; names the module.
        ConfigError: a glob matches nothing, or a bound is out of range.
    """
    start = time.perf_counter()
    trace, aliases, batch = run_trace(model, example_inputs)
    return _Builder(model, example_inputs, trace, aliases, batch).build(
        _Limits(exclude, min_width, round_to, bounds or {}), start
    )


def run_trace(model: nn.Module, example_inputs: Any) -> tuple[Trace, dict[int, list[str]], int]:
    """Trace one forward pass in eval mode. Returns the trace, tensor aliases and batch size."""
    tensors = [x for x in tree_leaves(example_inputs) if isinstance(x, Tensor)]
    if not tensors:
        raise StructureError("example_inputs hold no tensor: give a tensor, a tuple or a dict")
    batch = int(tensors[0].shape[0]) if tensors[0].ndim else 1
    with (
        evaluating(model),
        adapted(model),
        attention_spelled_out(),
        module_path(model) as current,
    ):
        tracer = Tracer(model, current)
        try:
            with torch.no_grad(), tracer:
                output = call(model, example_inputs)
        except Exception as error:
            failure = StructureError(
                f"tracing {type(model).__name__} failed in {tracer.where()}: "
                f"{type(error).__name__}: {error}"
            )
            failure.steps = tracer.trace.steps
            raise failure from error
        for tensor in tensor_leaves(output):
            tracer.freeze(tracer.planes(tensor), "it is an output of the network")
    _settle_rectangles(tracer)
    return tracer.trace, tracer.aliases, max(batch, 1)


def tensor_leaves(output: Any) -> list[Tensor]:
    """Tensors in a model's output: nested tuples, dicts and dataclass-like objects."""
    found: list[Tensor] = []
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__"):
            found += tensor_leaves(list(vars(leaf).values()))
    return found


def _settle_rectangles(tracer: Tracer) -> None:
    """Where a split dimension lost no axis by itself, tie its shorter axes (the finest choice)."""
    labels = tracer.trace.labels
    pending = list(tracer.trace.rectangles)
    while True:
        before = labels.roots().copy()
        for rectangle in pending:
            plane = compress(labels, rectangle.labels)
            if plane is None or len(varying(plane)) < 2:
                continue
            unit = max(varying(plane), key=lambda d: plane.shape[d])
            for dim in varying(plane):
                if dim != unit:
                    first = plane.narrow(dim, 0, 1)
                    labels.union(
                        first.expand(plane.shape).contiguous().numpy(),
                        plane.contiguous().numpy(),
                        rectangle.where,
                    )
                    plane = first
        if np.array_equal(before, labels.roots()):
            return


class _Limits:
    """The caller's wishes about widths, by module-name globs."""

    def __init__(
        self,
        exclude: Sequence[str],
        min_width: int,
        round_to: int | Mapping[str, int],
        bounds: Bounds,
    ) -> None:
        if isinstance(exclude, str):
            exclude = (exclude,)
        if min_width < 1:
            raise ConfigError(f"min_width is {min_width}; it must be at least 1")
        self.exclude = tuple(exclude)
        self.min_width = min_width
        self.round_to = {"*": round_to} if isinstance(round_to, int) else dict(round_to)
        self.bounds = dict(bounds)
        for glob, step in self.round_to.items():
            if step < 1:
                raise ConfigError(f"round_to for '{glob}' is {step}; it must be at least 1")
        for glob, (low, high) in self.bounds.items():
            if not 0 < low <= high <= 1:
                raise ConfigError(
                    f"bounds for '{glob}' are ({low}, {high}); need 0 < lowest <= highest <= 1"
                )

    def check(self, names: Sequence[str]) -> None:
        globs = [*self.exclude, *self.bounds, *(g for g in self.round_to if g != "*")]
        for glob in globs:
            if not any(fnmatch(n, glob) for n in names):
                raise ConfigError(
                    f"the glob '{glob}' matches no group; groups are {', '.join(names[:12])}, ..."
                )

    def apply(self, group: Group, per_unit: int) -> Group:
        hit = next((g for g in self.exclude if fnmatch(group.name, g)), None)
        if hit is not None and group.prunable:
            return _frozen(group, f"excluded by '{hit}'")
        if not group.prunable:
            return group
        step = next((s for g, s in reversed(self.round_to.items()) if fnmatch(group.name, g)), 1)
        divisor = step // gcd(step, per_unit)
        low, high = 1, group.width
        for glob, (a, b) in self.bounds.items():
            if fnmatch(group.name, glob):
                low, high = max(1, round(a * group.width)), max(1, round(b * group.width))
        low = min(max(low, self.min_width), group.width)
        if high < group.width:
            high = max(high // divisor * divisor, divisor)
        if low > high or (divisor > high and high < group.width):
            return _frozen(group, f"no width in [{low}, {high}] is a multiple of {divisor}")
        if divisor >= group.width or low >= group.width:
            return _frozen(group, f"min width {low}, multiples of {divisor}: no smaller width")
        return Group(
            group.name, group.kind, group.width, True, "", low, high, divisor, group.modules
        )


def _frozen(group: Group, reason: str) -> Group:
    w = group.width
    return Group(group.name, group.kind, w, False, reason, w, w, 1, group.modules)


class _Builder:
    """Turns the joined labels of a trace into groups, slices and cost polynomials."""

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        trace: Trace,
        aliases: dict[int, list[str]],
        batch: int,
    ) -> None:
        self.model, self.inputs, self.trace, self.batch = model, example_inputs, trace, batch
        self.aliases = aliases
        self.labels = trace.labels
        self.roots = self.labels.roots()
        self.frozen = self.labels.frozen()

    def build(self, limits: _Limits, start: float) -> Groups:
        signature = self._signatures()
        groups, members = self._collect(signature)
        limits.check([g.name for g in groups])
        slices = self._slices(groups, members)
        final = []
        for group in groups:
            out = [s for s in slices.get(group.name, ()) if s.role == "out"]
            per_unit = out[0].index.shape[1] if out else 1
            final.append(limits.apply(group, per_unit))
        final = [self._with_modules(g, slices.get(g.name, ())) for g in final]
        kept = {g.name: slices[g.name] for g in final if g.prunable}
        costs = self._costs([g for g in final if g.prunable], members)
        names = {self.trace.names[i]: tuple(a) for i, a in self.aliases.items()}
        return Groups(
            self.model,
            self.inputs,
            final,
            kept,
            names,
            dict(self.trace.grouped),
            costs,
            self.trace,
            members,
            time.perf_counter() - start,
        )

    def _signatures(self) -> np.ndarray:
        """For every root a hash of the (tensor, dimension, count) triples of its positions."""
        out = np.zeros(len(self.labels), dtype=np.uint64)
        rng = np.random.default_rng(0)
        for origin in self.labels.origins:
            roots = self.roots[origin.start : origin.start + origin.size]
            unique, counts = np.unique(roots, return_counts=True)
            salt = rng.integers(1, 2**63, dtype=np.uint64) | np.uint64(1)
            with np.errstate(over="ignore"):
                mixed = (counts.astype(np.uint64) * salt) ^ (salt >> np.uint64(7))
                out[unique] += mixed * np.uint64(0x9E3779B97F4A7C15)
        return out

    def _collect(self, signature: np.ndarray) -> tuple[list[Group], dict[str, np.ndarray]]:
        """Groups in execution order and their units' roots, in order of position."""
        seen = np.zeros(len(self.labels), dtype=bool)
        groups: list[Group] = []
        members: dict[str, np.ndarray] = {}
        used: dict[str, int] = {}
        for index in dict.fromkeys(self.trace.producers):
            origin = self.labels.origins[index]
            roots = self.roots[origin.start : origin.start + origin.size]
            roots = roots[np.sort(np.unique(roots, return_index=True)[1])]
            roots = roots[~seen[roots]]
            keys = list(zip(signature[roots].tolist(), self.frozen[roots].tolist(), strict=True))
            for key in dict.fromkeys(keys):
                units = roots[[k == key for k in keys]]
                seen[units] = True
                name = self._name(origin.tensor, used)
                members[name] = units
                groups.append(self._group(name, index, units, key[1]))
        return groups, members

    def _group(self, name: str, origin: int, units: np.ndarray, reason: int) -> Group:
        kind = self.trace.kinds.get(origin, "channels")
        width = len(units)
        if reason < 0 and width == 1:
            return Group(name, kind, 1, False, "a single unit", 1, 1)
        if reason < 0:
            return Group(name, kind, width, True, "", 1, width)
        return Group(name, kind, width, False, self.labels.reasons[reason], width, width)

    def _name(self, tensor: int, used: dict[str, int]) -> str:
        path = self.trace.names[tensor].split(".parametrizations.")[0]
        base = path.rsplit(".", 1)[0] if "." in path else path
        used[base] = used.get(base, 0) + 1
        return base if used[base] == 1 else f"{base}#{used[base]}"

    def _slices(
        self, groups: Sequence[Group], members: dict[str, np.ndarray]
    ) -> dict[str, tuple[Slice, ...]]:
        owner = np.full(len(self.labels), -1, dtype=np.int64)
        unit = np.zeros(len(self.labels), dtype=np.int64)
        for g, group in enumerate(groups):
            if group.prunable:
                owner[members[group.name]] = g
                unit[members[group.name]] = np.arange(group.width)
        found: dict[str, list[Slice]] = {}
        for k, origin in enumerate(self.labels.origins):
            roots = self.roots[origin.start : origin.start + origin.size]
            for g in np.unique(owner[roots]):
                if g < 0:
                    continue
                at = np.flatnonzero(owner[roots] == g)
                order = np.argsort(unit[roots[at]], kind="stable")
                index = torch.from_numpy(at[order].reshape(groups[g].width, -1))
                role = self.trace.roles.get(k, "tied")
                found.setdefault(groups[g].name, []).append(
                    Slice(self.trace.names[origin.tensor], origin.dim, role, index)
                )
        return {n: tuple(s) for n, s in found.items()}

    def _with_modules(self, group: Group, slices: Sequence[Slice]) -> Group:
        owners = dict.fromkeys(s.tensor.rsplit(".", 1)[0] for s in slices)
        modules = tuple(owners) or (group.name.split("#")[0],)
        return Group(
            group.name,
            group.kind,
            group.width,
            group.prunable,
            group.reason,
            group.min_width,
            group.max_width,
            group.divisor,
            modules,
        )

    def _costs(
        self, prunable: Sequence[Group], members: dict[str, np.ndarray]
    ) -> dict[str, Polynomial]:
        column = np.full(len(self.labels), -1, dtype=np.int64)
        for c, group in enumerate(prunable):
            column[members[group.name]] = c
        widths = np.array([g.width for g in prunable], dtype=np.float64)
        macs = _Terms(column, self.roots, widths)
        for contraction in self.trace.contractions:
            rows, scale = [], 1.0 / self.batch
            for f in contraction.factors:
                scale *= f.size
                for plane in compress_all(self.labels, f.planes):
                    if plane.shape[f.dim] > 1:
                        others = [0 if d != f.dim else slice(None) for d in range(plane.ndim)]
                        rows.append(plane[tuple(others)].numpy())
                        scale /= f.size
            macs.add(rows, scale)
        params = _Terms(column, self.roots, widths)
        touched: dict[int, list[Any]] = {}
        for origin in self.labels.origins:
            labels = np.arange(origin.start, origin.start + origin.size)
            touched.setdefault(origin.tensor, []).append(labels)
        parameters = {id(p) for p in self.model.parameters()}
        for i, tensor in enumerate(self.trace.tensors):
            if id(tensor) in parameters:
                rows = touched.get(i, [])
                params.add(rows, tensor.numel() / float(np.prod([len(r) for r in rows] or [1])))
        return {"macs": macs.polynomial(), "params": params.polynomial()}


class _Terms:
    """Collects products of affine dimension lengths."""

    def __init__(self, column: np.ndarray, roots: np.ndarray, widths: np.ndarray) -> None:
        self.column, self.roots, self.widths = column, roots, widths
        self.rows: dict[bytes, int] = {}
        self.matrix: list[np.ndarray] = [np.zeros(len(widths))]
        self.offset: list[float] = [1.0]
        self.terms: list[list[int]] = []
        self.scale: list[float] = []

    def add(self, rows: Sequence[np.ndarray], scale: float) -> None:
        """Add ``scale * prod(length of each row of labels)``."""
        self.terms.append([self._row(r) for r in rows])
        self.scale.append(scale)

    def _row(self, labels: np.ndarray) -> int:
        columns = np.where(labels > 0, self.column[self.roots[labels]], -1)
        counts = np.bincount(columns[columns >= 0], minlength=len(self.widths))
        affine = counts / np.maximum(self.widths, 1)
        offset = float((columns < 0).sum())
        key = affine.tobytes() + np.float64(offset).tobytes()
        if key not in self.rows:
            self.rows[key] = len(self.matrix)
            self.matrix.append(affine)
            self.offset.append(offset)
        return self.rows[key]

    def polynomial(self) -> Polynomial:
        deep = max((len(t) for t in self.terms), default=0)
        terms = np.zeros((len(self.terms), max(deep, 1)), dtype=np.int64)
        for i, t in enumerate(self.terms):
            terms[i, : len(t)] = t
        return Polynomial(
            np.stack(self.matrix), np.array(self.offset), terms, np.array(self.scale)
        )
