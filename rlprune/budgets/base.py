"""Budgets: a name, a black-box function of the network, and a limit."""

from __future__ import annotations

import copy
import logging
import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import nn

from rlprune.budgets.holders import BY_PARAMETERS, Holders
from rlprune.budgets.limits import Limit, parse_limit
from rlprune.errors import BudgetError
from rlprune.identity import changes, describe
from rlprune.inputs import ExampleInputs, cloned
from rlprune.modes import evaluating

if TYPE_CHECKING:
    from rlprune.structure import Groups

logger = logging.getLogger(__name__)

CostFunction = Callable[[nn.Module, ExampleInputs], Any]
"""``fn(model, example_inputs) -> number``: what a user writes."""


@dataclass(frozen=True)
class Estimate:
    """The exact cost of a plan as a formula in the widths of the prunable groups.

    Attributes:
        one: widths of one plan, in order -> its cost.
        many: widths ``[P, n]`` of many plans -> their costs ``[P]``.
    """

    one: Callable[[Sequence[int]], float]
    many: Callable[[np.ndarray], np.ndarray]

    def __call__(self, widths: Sequence[int]) -> float:
        """Cost of one plan."""
        return self.one(widths)


NOTHING = Estimate(one=lambda widths: 0.0, many=lambda widths: np.zeros(len(widths)))
"""What a space takes for the cost of a budget that shrinking does not help to meet."""


@dataclass(frozen=True)
class ResolvedBudget:
    """A budget bound to one dense network: everything in absolute units.

    Attributes:
        name: The budget's name.
        limit: Largest allowed value; a candidate meets the budget iff ``value <= limit``.
        dense: The dense network's value.
        unit: Unit of ``limit``, ``dense`` and values; empty for a user's function.
        fn: The cost function.
        spec: The limit as it was asked for, e.g. ``"50%"``.
        estimate: Exact fast path from widths to the value, where the structure knows it.
        measured: Whether values come from a clock, and so differ from run to run.
        guarded: Whether ``fn`` works on its own copy of the candidate, so that a function that
            converts, exports or quantises its argument in place cannot spoil what is scored.
        fractions: Whether a plain number in (0, 1] is a share of the dense value.
        holders: Which layers hold the cost, to explain a limit that cannot be met.
        cause: Description of what its values depend on besides the network.
        rising: Whether the value rises as a network gets smaller, as losses do.
    """

    name: str
    limit: float
    dense: float
    unit: str
    fn: CostFunction
    spec: str = ""
    estimate: Estimate | None = None
    measured: bool = False
    guarded: bool = True
    fractions: bool = False
    holders: Holders = BY_PARAMETERS
    cause: Any = None
    rising: bool = False

    def identity(self) -> Any:
        """What its values depend on besides the network; the limit does not count."""
        return {"fn": self.fn} if self.cause is None else self.cause

    def value(
        self,
        candidate: nn.Module,
        example_inputs: ExampleInputs,
        widths: Sequence[int] | None = None,
    ) -> float:
        """Run the budget's function on a real network.

        Args:
            candidate: The network to measure; its training flags are left as they were.
            example_inputs: What it is called with.
            widths: The candidate's widths, for error messages.

        Returns:
            The value, a finite number.

        Raises:
            BudgetError: The function raised, or returned something else than a finite number.
        """
        return measure(self.name, self.fn, candidate, example_inputs, widths, self.guarded)

    def violation(self, value: float) -> float:
        """Relative excess ``value / limit - 1``: positive when the budget is broken."""
        return value / self.limit - 1.0

    def at(self, limit: float | str | Limit) -> ResolvedBudget:
        """The same budget with another limit, written as in :class:`Budget`.

        Raises:
            BudgetError: The limit is unusable.
        """
        parsed = (
            limit
            if isinstance(limit, Limit)
            else parse_limit(limit, budget=self.name, unit=self.unit, fractions=self.fractions)
        )
        return replace(self, limit=parsed.absolute(self.dense), spec=str(parsed))

    def restored(self, limit: float, dense: float) -> ResolvedBudget:
        """The same budget with the reference values an earlier, interrupted run worked with."""
        fn = self.fn.with_reference(dense) if hasattr(self.fn, "with_reference") else self.fn
        return replace(self, limit=limit, dense=dense, fn=fn)


class Budget:
    """Any function of a network, with a limit.

    Args:
        fn: ``fn(model, example_inputs) -> float``. It sees the compacted candidate itself (a copy
            of it, in eval mode) and may do what it likes with it.
        limit: Largest allowed value, positive: a number in the function's own unit, or a string
            such as ``"50%"``, relative to the dense network's value.
        name: Shown in reports; defaults to the function's name. A key in a ``budgets`` mapping
            takes precedence.
        version: What ``fn`` depends on beyond its code, in any words: the date of a table that it
            reads, a device's firmware. Stored results are used again for the same version only;
            see :mod:`rlprune.identity` for what is seen without it.
        rising: The value rises as a network gets smaller: a loss that may not grow beyond the
            limit. Plans are not scaled onto such a budget; it is measured on what is evaluated,
            compensated, and what exceeds it is not returned.

    Raises:
        BudgetError: ``fn`` is not callable, or the limit is unusable.

    Example:
        >>> tiles = Budget(lambda model, x: sum(-(-m.out_channels // 32) for m in model.modules()
        ...                                     if hasattr(m, "out_channels")), limit=40)
    """

    unit: ClassVar[str] = ""
    fractions: ClassVar[bool] = False
    measured: ClassVar[bool] = False
    guarded: ClassVar[bool] = True
    holders: ClassVar[Holders] = BY_PARAMETERS
    rising: bool = False

    def __init__(
        self,
        fn: CostFunction,
        limit: float | str,
        name: str | None = None,
        version: str | int | float | None = None,
        rising: bool = False,
    ) -> None:
        if not callable(fn):
            raise BudgetError(
                f"budget {name or 'budget'!r}: fn must be a function of (model, example_inputs), "
                f"got {fn!r}"
            )
        self.fn = fn
        self.version = version
        if rising:
            self.rising = True
        self.name = name or _name_of(fn)
        self.limit: Limit = parse_limit(
            limit, budget=self.name, unit=self.unit, fractions=self.fractions
        )

    def identity(self) -> dict[str, Any]:
        """Class, function, options, declared version and limit (see :mod:`rlprune.identity`)."""
        own = getattr(self.fn, "__self__", None) is self
        options = {k: v for k, v in vars(self).items() if k not in ("fn", "name", "version")}
        fn = None if own else self.fn
        return {"type": type(self), "fn": fn, "version": self.version, **options}

    def named(self, name: str) -> Budget:
        """The same budget under another name."""
        renamed = copy.copy(self)
        renamed.name = name
        return renamed

    def limited(self, limit: float | str) -> Budget:
        """The same budget with another limit."""
        other = copy.copy(self)
        other.limit = parse_limit(limit, budget=self.name, unit=self.unit, fractions=self.fractions)
        return other

    def resolve(
        self, model: nn.Module, example_inputs: ExampleInputs, groups: Groups | None = None
    ) -> ResolvedBudget:
        """Measure the dense network and turn the limit into an absolute number.

        Args:
            model: The dense network.
            example_inputs: What it is called with.
            groups: The network's groups; with them some metrics get an exact fast path.

        Returns:
            The budget bound to this network.

        Raises:
            BudgetError: The function fails on the dense network, or a relative limit meets a
                dense value that is not positive.
        """
        cause = describe({k: v for k, v in self.identity().items() if k != "limit"})
        fn = self._bind(model, example_inputs)
        dense = measure(self.name, fn, model, example_inputs, None, self.guarded)
        if self.guarded:
            self._require_unspoilt(cause)
        if self.limit.relative and dense <= 0:
            raise BudgetError(
                f"budget {self.name!r}: the limit {self.limit} is relative to the dense network, "
                f"whose value is {dense:g}; give an absolute limit"
            )
        limit = self.limit.absolute(dense)
        if limit >= dense:
            logger.info("budget %r: the dense network already meets it (%g)", self.name, dense)
        estimate = None if groups is None else self._estimate(groups)
        if self.rising:
            estimate = NOTHING
        return ResolvedBudget(
            name=self.name,
            limit=limit,
            dense=dense,
            unit=self.unit,
            fn=fn,
            spec=str(self.limit),
            estimate=estimate,
            measured=self.measured,
            guarded=self.guarded,
            fractions=self.fractions,
            holders=self.holders,
            cause=cause,
            rising=self.rising,
        )

    def value_of(self, model: nn.Module, example_inputs: ExampleInputs) -> float:
        """What the function says of a network, whatever the limit.

        Raises:
            BudgetError: It raises, or returns something else than a finite number.
        """
        fn = self._bind(model, example_inputs)
        return measure(self.name, fn, model, example_inputs, None, self.guarded)

    def _require_unspoilt(self, before: Any) -> None:
        """Refuse a function that has overwritten its own data in its first call."""
        now = describe({k: v for k, v in self.identity().items() if k != "limit"})
        spoilt = [line for line in changes(before, now) if line.endswith(".content changed")]
        if spoilt:
            raise BudgetError(
                f"budget {self.name!r}: its function overwrites its own data ({spoilt[0]}), so "
                "that every network would be measured on other data; let it work on a copy"
            )

    def _bind(self, model: nn.Module, example_inputs: ExampleInputs) -> CostFunction:
        """The function that measures candidates; metrics that need the dense network hook in."""
        return self.fn

    def _estimate(self, groups: Groups) -> Estimate | None:
        """The exact fast path, where the metric has one."""
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, limit={str(self.limit)!r})"


def measure(
    name: str,
    fn: CostFunction,
    model: nn.Module,
    example_inputs: ExampleInputs,
    widths: Sequence[int] | None,
    guarded: bool,
) -> float:
    """Call a cost function and insist on a finite number.

    Args:
        name: The budget's name, for messages.
        fn: The cost function.
        model: The network to measure.
        example_inputs: What it is called with.
        widths: The candidate's widths, or None for the dense network.
        guarded: Whether to hand the function a copy.

    Returns:
        The value.

    Raises:
        BudgetError: The function raised, or did not return a finite number.
    """
    target = copy.deepcopy(model) if guarded else model
    inputs = cloned(example_inputs) if guarded else example_inputs
    where = "the dense network" if widths is None else f"the candidate with widths {list(widths)}"
    try:
        with evaluating(target), torch.no_grad():
            result = fn(target, inputs)
    except BudgetError:
        raise
    except Exception as error:
        raise BudgetError(
            f"budget {name!r}: its function raised {type(error).__name__} for {where}: {error}"
        ) from error
    value = _number(result)
    if value is None or not math.isfinite(value):
        raise BudgetError(
            f"budget {name!r}: its function returned {result!r} for {where}; "
            "it must return a finite number"
        )
    return value


def _number(result: Any) -> float | None:
    """A real scalar as a float; None for anything else (booleans and strings included)."""
    if isinstance(result, torch.Tensor):
        return float(result) if result.numel() == 1 and not result.is_complex() else None
    if isinstance(result, bool):
        return None
    if isinstance(result, numbers.Real):
        return float(result)
    if getattr(result, "shape", None) == ():
        return _number(result.item())
    return None


def _name_of(fn: CostFunction) -> str:
    name = getattr(fn, "__name__", None) or type(fn).__name__
    return "budget" if name == "<lambda>" else name
