"""Descriptions of values: JSON that is equal when, and only when, the values are."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import math
from collections import deque
from collections.abc import Mapping, Sequence, Set
from os import PathLike, fspath
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.identity import _code
from rlprune.identity._functions import describe_callable
from rlprune.identity._json import digest_of_json

_WHOLE = 1 << 30
_BLOCKS, _BLOCK = 1024, 1 << 16
_MOST_ITEMS = 10_000


def describe(value: Any) -> Any:
    """What a value is, as JSON: everything about it that a result can depend on.

    Args:
        value: Numbers, text, tensors, containers, dataclasses, functions, networks, objects with
            ``identity()``, or any other object, which is its class and its attributes.

    Returns:
        JSON. Typed values are mappings with their kind under ``"@"``.

    Example:
        >>> def tiles(side):
        ...     return lambda model, x: side
        >>> describe(tiles(4)) == describe(tiles(4)), describe(tiles(4)) == describe(tiles(8))
        (True, False)
    """
    return _Walk().describe(value)


def digest(value: Any) -> str:
    """SHA-256 of a value's description, in 64 hexadecimal digits."""
    return digest_of_json(describe(value))


class _Walk:
    """One description under way, which knows the objects it is inside of."""

    def __init__(self) -> None:
        self._inside: set[int] = set()
        self._known: dict[int, tuple[Any, Any]] = {}

    def describe(self, value: Any) -> Any:
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"@": "float", "value": repr(value)}
        if id(value) in self._known:
            return self._known[id(value)][1]
        if id(value) in self._inside:
            return {"@": "itself", "type": _code.qualified_name(type(value))}
        self._inside.add(id(value))
        try:
            return self._describe(value)
        finally:
            self._inside.discard(id(value))

    def keep(self, value: Any, told: Any) -> Any:
        """Remember the description of a large value, which is met again in other places."""
        self._known[id(value)] = (value, told)
        return told

    def _describe(self, value: Any) -> Any:
        if _code.speaks(value):
            return self._speaking(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._dataclass(value)
        for kinds, way in _WAYS:
            if isinstance(value, kinds):
                return way(self, value)
        found = describe_callable(value, self.describe)
        return self._object(value) if found is None else found

    def _speaking(self, value: Any) -> Any:
        told, kind = self.describe(value.identity()), type(value)
        if not isinstance(told, dict) or "@" in told:
            told = {"is": told}
        own = {} if _code.is_ours(kind.__module__) else {"class": self.describe(kind)}
        return {"@": _code.qualified_name(kind), **own, **told}

    def _mapping(self, value: Mapping[Any, Any]) -> Any:
        if all(type(key) is str for key in value):
            return {key: self.describe(item) for key, item in value.items()}
        pairs = [[self.describe(key), self.describe(item)] for key, item in value.items()]
        return {"@": "mapping", "items": sorted(pairs, key=digest_of_json)}

    def _sequence(self, value: Sequence[Any]) -> Any:
        if len(value) <= _MOST_ITEMS:
            return [self.describe(item) for item in value]
        step = len(value) / _MOST_ITEMS
        some = [self.describe(value[int(at * step)]) for at in range(_MOST_ITEMS)]
        return {"@": "list", "length": len(value), "sample": digest_of_json(some)[:16]}

    def _set(self, value: Set[Any]) -> Any:
        return {"@": "set", "items": sorted(map(self.describe, value), key=digest_of_json)}

    def _dataclass(self, value: Any) -> Any:
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"@": _code.qualified_name(type(value)), **self._mapping(fields)}

    def _network(self, value: nn.Module) -> Any:
        """Classes, options and weights; the device does not count."""
        kinds = sorted({type(m) for m in value.modules()}, key=_code.qualified_name)
        told = [self.describe(kind) for kind in kinds]
        options = {
            f"{path}.{name}": item
            for path, module in value.named_modules()
            for name, item in vars(module).items()
            if isinstance(item, (bool, int, float, str, tuple))
            and not name.startswith("_")
            and name != "training"
            and name not in _code.changed_attributes(type(module))
        }
        return {
            "@": _code.qualified_name(type(value)),
            "layers": digest_of_json([str(value), self.describe(options)])[:16],
            "code": digest_of_json(told)[:16],
            "weights": digest_of_tensors(value.state_dict()),
        }

    def _object(self, value: Any) -> Any:
        kind = type(value)
        found: dict[str, Any] = {"@": "object", "type": self.describe(kind)}
        if _code.is_standard(_code.package_of(kind.__module__)):
            shown = repr(value)
            return found if " at 0x" in shown else {**found, "value": shown}
        changed = _code.changed_attributes(kind)
        state = {n: item for n, item in _attributes(value).items() if n not in changed}
        return {**found, "state": self.describe(state)} if state else found


def _attributes(value: Any) -> dict[str, Any]:
    declared = (vars(base).get("__slots__", ()) for base in type(value).__mro__)
    slots = [n for names in declared for n in ([names] if isinstance(names, str) else names)]
    found = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return {**found, **getattr(value, "__dict__", {})}


def _describe_tensor(walk: _Walk, value: Tensor) -> Any:
    given = value
    if isinstance(value, nn.Parameter):
        value = value.data
    form = {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
    if value.is_meta:
        return {"@": "tensor", **form}
    if value.layout != torch.strided:
        form["layout"] = str(value.layout)
        value = value.to_dense()
    if value.is_quantized:
        value = value.dequantize()
    return walk.keep(given, {"@": "tensor", **form, "content": _content(value)})


def _content(value: Tensor) -> str:
    """Digest of a tensor's elements in order; of a fixed sample of blocks where they are many."""
    flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return _content_of_bytes(flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0))


def _content_of_bytes(raw: np.ndarray) -> str:
    sha = hashlib.sha256()
    if raw.nbytes <= _WHOLE:
        sha.update(raw.data)
    else:
        for start in np.linspace(0, raw.nbytes - _BLOCK, _BLOCKS).astype(np.int64):
            sha.update(raw[start : start + _BLOCK].data)
    return sha.hexdigest()[:32]


def digest_of_tensors(tensors: Mapping[str, Any]) -> str:
    """One digest over names, types, shapes and contents, whatever their order."""
    return digest_of_json(describe(dict(tensors)))[:32]


def _describe_array(walk: _Walk, value: np.ndarray) -> Any:
    if value.dtype.hasobject:
        return walk.describe(value.tolist())
    form = {"dtype": value.dtype.str, "shape": list(value.shape)}
    raw = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    return {"@": "array", **form, "content": _content_of_bytes(raw)}


_WAYS: tuple[tuple[Any, Any], ...] = (
    (enum.Enum, lambda w, v: {"@": _code.qualified_name(type(v)), "value": w.describe(v.value)}),
    (bool, lambda w, v: bool(v)),
    (int, lambda w, v: int(v)),
    (str, lambda w, v: str(v)),
    (np.generic, lambda w, v: w.describe(v.item())),
    (float, lambda w, v: w.describe(float(v))),
    (complex, lambda w, v: {"@": "complex", "value": repr(v)}),
    ((bytes, bytearray, memoryview), lambda w, v: {"@": "bytes", "content": _sha(bytes(v))}),
    (PathLike, lambda w, v: str(fspath(v))),
    ((torch.dtype, torch.device, torch.layout, torch.memory_format), lambda w, v: str(v)),
    (torch.Generator, lambda w, v: {"@": "generator", "seed": v.initial_seed()}),
    (Tensor, _describe_tensor),
    (np.ndarray, _describe_array),
    (nn.Module, _Walk._network),
    (Mapping, _Walk._mapping),
    ((list, tuple, deque, range), _Walk._sequence),
    (Set, _Walk._set),
    (ModuleType, lambda w, v: {"@": "module", "name": v.__name__}),
)


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
