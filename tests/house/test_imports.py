"""The house: which room may use which, and no way round.

Rooms are folders and single modules of ``rlprune``. They stand on floors; imports run down only.
Imports inside functions count as well: they are there for speed, not to go round the contract.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import rlprune
import rlprune_envs

FLOORS = """
errors
files locate locks memory modes once options progress inputs version
plugins batches identity exporting
callbacks
tasks
ops attention
structure
observe
linear
importance
sensitivity
plan
compaction
compensation
budgets
data models
training
space
problem
rlprune_envs
search sparse
gates
analysis
export
report
run
integrations
oneshot
cli bench zoo
"""
"""From the ground up; rooms of one line do not use one another."""

CORE = "ops structure observe importance compaction compensation budgets tasks space problem"
NOT_IN_THE_CORE = {"gymnasium", "stable_baselines3", "hydra", "omegaconf"}

ROOTS = {
    "rlprune": Path(rlprune.__file__).parent,
    "rlprune_envs": Path(rlprune_envs.__file__).parent,
}
FLOOR = {room: at for at, line in enumerate(FLOORS.split("\n")) for room in line.split()}


@cache
def modules() -> dict[str, Path]:
    """Every module by its dotted name."""
    found = {}
    for package, root in ROOTS.items():
        for path in root.rglob("*.py"):
            parts = (package, *path.relative_to(root).with_suffix("").parts)
            found[".".join(p for p in parts if p != "__init__")] = path
    return found


@cache
def imports(module: str, *, typing: bool = False) -> tuple[tuple[str, int], ...]:
    """What a module imports and in which line; with ``typing``, for types only too."""
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            skipped |= {id(child) for child in ast.walk(node)}
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped and not typing:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append((whole if whole in modules() else node.module, node.lineno))
    return tuple(found)


def room(module: str) -> str:
    """The room that a module lies in."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == "rlprune" and rest else package


def own() -> Iterator[tuple[str, str, int]]:
    """Imports among the project's own modules."""
    for module in modules():
        for name, line in imports(module):
            if name.partition(".")[0] in ROOTS:
                yield module, name, line


def test_every_room_has_a_floor() -> None:
    rooms = {room(module) for module in modules()} - {"rlprune", "__main__"}
    assert rooms == set(FLOOR) & rooms
    assert set(FLOOR) - rooms == set(), "rooms without a module"


def test_imports_run_down_only() -> None:
    wrong = []
    for module, name, line in own():
        here, there = room(module), room(name)
        if here in ("rlprune", "__main__") or here == there:
            continue
        # The package itself is the public interface: for those on top alone.
        top = there == "rlprune" and FLOOR[here] >= FLOOR["run"]
        if not (top or FLOOR.get(there, 99) < FLOOR[here]):
            wrong.append(f"{module}:{line} ({here}) uses {name} ({there})")
    assert not wrong, "\n" + "\n".join(sorted(wrong))


def test_the_core_knows_no_agent_and_no_command_line() -> None:
    wrong = [
        f"{module}:{line} imports {name}"
        for module in modules()
        for name, line in imports(module)
        if room(module) in CORE.split() and name.partition(".")[0] in NOT_IN_THE_CORE
    ]
    assert not wrong, "\n" + "\n".join(wrong)


HOOKS = {"register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"}
HOOKS |= {f"register_module_{name.removeprefix('register_')}" for name in HOOKS}
BELOW_OBSERVE = {"rlprune.structure.calls", "rlprune.structure.recording"}
"""They note which module runs an op of their trace, and stand a floor below the observer."""


def test_one_observer() -> None:
    hooked = {
        module
        for module in modules()
        for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in HOOKS
    }
    assert {m for m in hooked if room(m) != "observe"} == BELOW_OBSERVE


CLIENTS = {"bench", "zoo"}
"""Rooms that use what any user may: names in a room's ``__all__``, or those of a single module."""


def public(module: str) -> set[str]:
    """The public names of a package or of a room that is one module."""
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    assert modules()[module].name != "__init__.py", f"{module} says nowhere what is public"
    names = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in tree.body:
        found = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in found if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_benchmarks_use_the_public_interface() -> None:
    wrong = []
    for module in modules():
        tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
        for node in ast.walk(tree) if room(module) in CLIENTS else ():
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(
                "rlprune"
            ):
                continue
            there, names = str(node.module), {alias.name for alias in node.names}
            if room(there) == room(module) or (there == "rlprune" and names <= set(FLOOR)):
                continue
            inner = there.count(".") > 1 or not names <= public(there)
            wrong += [f"{module}:{node.lineno} {ast.unparse(node)}"] if inner else []
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("name", sorted({r for line in FLOORS.split("\n") for r in line.split()}))
def test_no_module_of_a_room_needs_itself(name: str) -> None:
    """No cycles inside a room among imports made when modules load."""
    inside = [m for m in modules() if room(m) == name]
    graph = {m: {t for t, _ in top_level(m) if t in inside and t != m} for m in inside}
    for start in inside:
        queue, seen = [start], set()
        while queue:
            for target in graph[queue.pop()] - seen:
                assert target != start, f"{start} imports itself by way of {sorted(seen)}"
                seen.add(target)
                queue.append(target)


def top_level(module: str) -> list[tuple[str, int]]:
    """Imports that run when the module is loaded; a package's own ``__init__`` is left out."""
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
    lines = {node.lineno for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))}
    packages = {m for m, path in modules().items() if path.name == "__init__.py"}
    return [(n, line) for n, line in imports(module) if line in lines and n not in packages]
