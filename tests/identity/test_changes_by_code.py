"""What a function is seen to change outside itself: the same on every version of Python."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from rlprune.identity._code import changed_names

calls: list[Any] = []
counts: dict[Any, Any] = {}
nested: dict[str, Any] = {}
total, LOW, HIGH = 0, 0.2, 0.8
seen: list[Any] = []
holder: dict[str, Any] = {}


def in_a_closure() -> dict[Callable[..., Any], set[str]]:
    kept: list[Any] = []
    table: dict[Any, Any] = {}
    count = 0

    def appends(x: Any) -> None:
        kept.append(x)

    def rebinds() -> None:
        nonlocal count
        count += 1

    def sets(x: Any) -> None:
        table[x] = LOW

    def updates(x: Any) -> None:
        table[x] += 1
        table["LOW"] += HIGH

    def deletes(x: Any) -> None:
        del table[x]

    def only_reads(x: Any) -> Any:
        own = {"kept": 0}
        own["kept"] += len(kept)
        mine = alias = [table[x]]
        mine.append(kept[0])
        mine[0:1] = alias[1:2]
        return own[kept[0]] if LOW < x < HIGH else count

    found = {appends: "kept", rebinds: "count", sets: "table", updates: "table", deletes: "table"}
    return {**{fn: {name} for fn, name in found.items()}, only_reads: set()}


def in_a_module() -> dict[Callable[..., Any], set[str]]:
    def appends(x: Any) -> None:
        calls.append(len(x) + LOW)

    def appends_in_a_loop(x: Any) -> None:
        for item in x:
            if item:
                continue
            calls.append(item)
        counts["loops"] = HIGH

    def appends_in_a_comprehension(x: Any) -> Any:
        return [calls.append(item) for item in x]

    def appends_in_a_lambda(x: Any) -> Any:
        return (lambda: calls.append(x))()

    def appends_below(x: Any) -> None:
        nested["a"]["b"].append(x)

    def rebinds(x: Any) -> Any:
        global total
        total += x
        return LOW

    def chooses_the_key(x: Any) -> None:
        counts[x if x else LOW] = x or HIGH
        counts["k"] += LOW if x else HIGH

    def slices(x: Any) -> None:
        calls[0:2] = [x]
        calls[1:] += [LOW]

    def handles(x: Any) -> None:
        try:
            x()
        except ValueError as error:
            calls.append(error)
        finally:
            counts["done"] = LOW

    def opens(x: Any) -> None:
        with contextlib.suppress(OSError):
            counts[x] = LOW

    def own_in_a_closure(x: Any) -> Any:
        seen: list[Any] = []

        def inner() -> None:
            seen.append(holder[x])

        inner()
        return seen

    return {
        appends: {"calls"},
        appends_in_a_loop: {"calls", "counts"},
        appends_in_a_comprehension: {"calls"},
        appends_in_a_lambda: {"calls"},
        appends_below: {"nested"},
        rebinds: {"total"},
        chooses_the_key: {"counts"},
        slices: {"calls"},
        handles: {"calls", "counts"},
        opens: {"counts"},
        own_in_a_closure: set(),
    }


class Meter:
    def counts_calls(self) -> None:
        self.calls += 1

    def keeps(self, x: Any) -> None:
        self.cache[x] = LOW
        self.cache[HIGH] += x

    def deletes(self) -> None:
        del self.cache

    def keeps_below(self, x: Any) -> None:
        self.log["x"].append(x)

    def reads(self, x: Any) -> Any:
        own = dict(self.cache)
        own[self.calls] = self.log
        return own.get(x)


IN_A_CLASS = {
    Meter.counts_calls: {"calls"},
    Meter.keeps: {"cache"},
    Meter.deletes: {"cache"},
    Meter.keeps_below: {"log"},
    Meter.reads: set(),
}
EXPECTED = {**in_a_closure(), **in_a_module(), **IN_A_CLASS}


@pytest.mark.parametrize("function", EXPECTED, ids=lambda function: function.__qualname__)
def test_what_a_function_changes(function: Callable[..., Any]) -> None:
    assert changed_names(function.__code__) == EXPECTED[function]


def test_arguments_beyond_one_byte_are_followed() -> None:
    names = "".join(f"x{at} = other{at}\n    " for at in range(300))
    space: dict[str, Any] = {}
    exec(f"def f(key):\n    {names}table[key if key else low] += low\n    log.append(x1)\n", space)
    assert changed_names(space["f"].__code__) == {"table", "log"}
