"""What compiled code changes outside itself, read from its instructions.

The stack is followed by name, instruction by instruction, with the effects that `dis` gives for
the running version of Python; few instructions are known by name. Where it is not known what lies
on the stack, nothing is said to be changed: results are then computed again once too often, never
used once too often.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import CodeType

_MUTATORS = frozenset(
    "append appendleft extend insert update add setdefault pop popleft popitem remove discard "
    "clear sort reverse subtract".split()
)
_JUMPS = frozenset((*dis.hasjrel, *dis.hasjabs))
_ENDS = ("RETURN", "RAISE", "RERAISE", "JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_ABSOLUTE")
"""Beginnings of the names of instructions after which the next one is reached by a jump alone."""
_UNTOUCHED = frozenset(
    "NOP RESUME EXTENDED_ARG CACHE KW_NAMES MAKE_CELL COPY_FREE_VARS PRECALL GEN_START".split()
)
_CONSUME = (
    "POP_", "STORE_", "DELETE_", "LIST_", "SET_", "MAP_", "DICT_", "END_", "JUMP", "FOR_ITER",
)  # fmt: skip
"""Beginnings of the names of instructions that push no value of their own."""
_REBIND = ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR")
_AT = {"STORE_SUBSCR": 2, "DELETE_SUBSCR": 2, "STORE_SLICE": 3}
"""Where a container lies, from the top, when an item of it is set."""

Stack = list[str | None]
"""For every value the variable from outside, or the attribute, that it was read from."""


def changed_in(code: CodeType) -> Iterator[str]:
    """Globals, variables of a closure, and attributes that code changes; not what it calls."""
    for step, stack in _followed(code):
        name, kind = step.argval, step.opname
        found: str | None = None
        free = kind == "STORE_DEREF" and name in code.co_freevars
        if free or kind in _REBIND:
            found = name
        elif kind in ("LOAD_ATTR", "LOAD_METHOD") and name in _MUTATORS:
            found = _seen(stack, 1)
        elif kind in _AT:
            found = _seen(stack, _AT[kind])
        if found is not None:
            yield found


def _followed(code: CodeType) -> Iterator[tuple[dis.Instruction, Stack]]:
    """Every instruction with the stack that it finds."""
    stack: Stack = []
    at_target: dict[int, Stack] = {}
    reached = True
    for step in dis.get_instructions(code):
        if step.offset in at_target and not reached:
            stack = list(at_target[step.offset])
        elif not reached:
            stack = []  # an exception's handler: what is below is of no interest there
        reached = True
        yield step, stack
        if step.opcode in _JUMPS:
            jumped = list(stack)
            _apply(jumped, step, code, jump=True)
            at_target.setdefault(step.argval, jumped)
        _apply(stack, step, code, jump=False)
        reached = not step.opname.startswith(_ENDS)


def _apply(stack: Stack, step: dis.Instruction, code: CodeType, *, jump: bool) -> None:
    """Do to the stack of names what an instruction does to the stack of values."""
    kind, arg = step.opname, step.arg or 0
    if kind in ("COPY", "DUP_TOP"):
        stack.append(_seen(stack, arg or 1))
    elif kind == "DUP_TOP_TWO":
        stack += [_seen(stack, 2), _seen(stack, 1)]
    elif kind in ("SWAP", "ROT_TWO"):
        depth = max(arg, 2)
        _fill(stack, depth)
        stack[-1], stack[-depth] = stack[-depth], stack[-1]
    elif kind.startswith("ROT_"):
        depth = {"ROT_THREE": 3, "ROT_FOUR": 4}.get(kind, arg)
        _fill(stack, depth)
        stack.insert(len(stack) - depth, stack.pop())
    elif kind in ("BINARY_SUBSCR", "BINARY_SLICE"):
        _drop(stack, 2 if kind == "BINARY_SUBSCR" else 3, _seen(stack, 2 + (kind[-1] == "E")))
    elif kind == "PUSH_NULL":
        stack.append(None)
    else:
        _general(stack, step, code, dis.stack_effect(step.opcode, step.arg, jump=jump))


def _general(stack: Stack, step: dis.Instruction, code: CodeType, effect: int) -> None:
    """Any instruction, by its effect on the number of values."""
    kind = step.opname
    if kind in ("LOAD_ATTR", "LOAD_METHOD"):
        _drop(stack, 1, step.argval)
        stack += [None] * effect
    elif kind in ("LOAD_GLOBAL", "LOAD_NAME"):
        stack += [step.argval] * effect  # one of two is the null of a call
    elif kind == "LOAD_DEREF":
        stack.append(step.argval if step.argval in code.co_freevars else None)
    elif kind.startswith("LOAD_") and effect > 0:
        stack += [None] * effect
    elif kind in _UNTOUCHED or (effect < 0 and kind.startswith((*_CONSUME, *_ENDS))):
        _drop(stack, -effect)
    elif effect <= 0 and not kind.startswith("JUMP"):
        _drop(stack, 1 - effect, *([] if kind.startswith("RETURN") else [None]))
    elif effect > 0:
        _drop(stack, 0 if kind.startswith(("FOR_ITER", "SETUP_")) else 1)
        stack += [None] * (effect + (not kind.startswith(("FOR_ITER", "SETUP_"))))


def _seen(stack: Stack, depth: int) -> str | None:
    """The name at a depth from the top, 1 for the top itself."""
    return stack[-depth] if len(stack) >= depth else None


def _fill(stack: Stack, depth: int) -> None:
    stack[:0] = [None] * (depth - len(stack))


def _drop(stack: Stack, count: int, *pushed: str | None) -> None:
    if count:
        del stack[-count:]
    stack += pushed
