"""Ops that work value by value: those of which more is known than that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlprune.ops.record import Scaling, Zeros
from rlprune.ops.table import register


def _power(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float | None:
    """The exponent, where it is a positive number."""
    exponent = args[1]
    return float(exponent) if isinstance(exponent, (int, float)) and exponent > 0 else None


def _power_zeros(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Zeros:
    return Zeros.NEVER if _power(args, kwargs) is None else Zeros.FIRST


def _bounds(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    """Lower and upper bound of a clamp."""
    low, high, *_ = (*args[1:], None, None)
    return kwargs.get("min", low), kwargs.get("max", high)


def _clamp_degree(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float | None:
    """A cut at zero, on one side or both."""
    return 1.0 if all(_is_zero(b) or b is None for b in _bounds(args, kwargs)) else None


def _clamp_zeros(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Zeros:
    low, high = _bounds(args, kwargs)
    inside = (low is None or _number(low) <= 0) and (high is None or _number(high, -1) >= 0)
    return Zeros.FIRST if inside else Zeros.NEVER


def _bound_degree(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float | None:
    return 1.0 if _is_zero(args[1]) else None


def _bound_zeros(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Zeros:
    return Zeros.FIRST if _is_zero(args[1]) else Zeros.NEVER


def _threshold_degree(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float | None:
    return 1.0 if _is_zero(args[1]) and _is_zero(args[2]) else None


def _threshold_zeros(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Zeros:
    return Zeros.FIRST if _is_zero(args[2]) or _number(args[1], 0) < 0 else Zeros.NEVER


def _hardtanh_zeros(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Zeros:
    low = args[1] if len(args) > 1 else -1
    high = args[2] if len(args) > 2 else 1
    return _clamp_zeros((args[0], low, high), {})


def _number(value: Any, otherwise: float = 1) -> float:
    """A number as it is; ``otherwise`` for what is not known while tracing."""
    return value if isinstance(value, (int, float)) else otherwise


def _is_zero(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == 0


_FIRST, _EACH = Zeros.FIRST, Scaling.EACH

register("add sub", scaling=Scaling.SUM)
register("mul", zeros=Zeros.ANY, scaling=Scaling.PRODUCT)
register("div", zeros=_FIRST, scaling=Scaling.QUOTIENT)
register("neg abs relu leaky_relu", zeros=_FIRST, scaling=_EACH)
register("square", zeros=_FIRST, scaling=_EACH, degree=2.0)
register("sqrt", zeros=_FIRST, scaling=_EACH, degree=0.5)
register("pow", zeros=_power_zeros, scaling=_EACH, degree=_power)
register("maximum minimum", scaling=Scaling.ALL)
register("clamp", zeros=_clamp_zeros, scaling=_EACH, degree=_clamp_degree)
register("clamp_min clamp_max", zeros=_bound_zeros, scaling=_EACH, degree=_bound_degree)
register("threshold", zeros=_threshold_zeros, scaling=_EACH, degree=_threshold_degree)
register("hardtanh", zeros=_hardtanh_zeros)
register("_prelu_kernel prelu", zeros=_FIRST, scaling=Scaling.SLOPES)
register("sign sgn gelu silu mish elu celu selu tanh hardswish", zeros=_FIRST)
register("sin sinh asin asinh tan atan erf expm1 log1p", zeros=_FIRST)
register("rrelu_with_noise", zeros=_FIRST)
register("copy complex polar masked_fill rsub log_sigmoid_forward max.other min.other")
