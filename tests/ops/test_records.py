"""Records say what operations do: every op that a subset of torchvision runs, tried out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from rlprune.ops import Makes, Moves, Op, Scaling, Zeros, find, named, records, register
from rlprune.ops.record import overloads
from rlprune.ops.table import unknown
from tests.ops.met import Met, met

T = 1.7
MEMORY = {"as_strided_"}
"""Ops that read memory around their operand: no function of its values."""

HAPPEN_TO_CHANGE_NOTHING = {"clamp", "clamp_min", "constant_pad_nd", "upsample_nearest2d", "zero"}


def tensors(out: Any) -> list[Tensor]:
    return [x for x in tree_leaves(out) if isinstance(x, Tensor)]


def floating(call: Met) -> bool:
    first = next(iter(tensors(call.args)), None)
    return first is not None and first.is_floating_point()


def changed(call: Met, op: Op, change: Callable[[int, Tensor], Tensor]) -> list[Tensor]:
    """What comes out when floating-point operands are changed; indices and masks left aside."""
    out = tensors(call.again(lambda k, x: change(k, x) if x.is_floating_point() else x)[1])
    return out if op.listed else out[:1]


def all_calls(wanted: Callable[[Op, Met], bool] = lambda op, call: True) -> list[tuple[Op, Met]]:
    return [
        (find(call.func), call)
        for name, calls in met().items()
        for call in calls
        if name not in MEMORY and wanted(find(call.func), call)
    ]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(
        x.shape == y.shape and torch.allclose(x, y, rtol=1e-9, atol=1e-12)
        for x, y in zip(a, b, strict=True)
    )


def test_every_op_met_is_described() -> None:
    assert len(met()) > 50
    without = {n for n, calls in met().items() if find(calls[0].func).labels is unknown}
    assert without == set()


def test_zeros() -> None:
    """Where a record promises zeros they come; where it does not, some call shows none."""
    unpromised: dict[str, bool] = {}
    for op, call in all_calls(lambda op, call: floating(call) and op.makes is Makes.NOTHING):
        promised = op.zeros_in(call.args, call.kwargs)
        count = len(tensors(call.args)) if promised is Zeros.ANY else 1
        for place in range(count):
            out = changed(call, op, lambda k, x, p=place: x * 0 if k == p else x)
            if not out[0].is_floating_point():
                continue
            kept = not any(bool(x.any()) for x in out)
            if promised is Zeros.NEVER:
                unpromised[op.name] = unpromised.get(op.name, True) and kept
            else:
                assert kept, (op.name, place)
    assert len(unpromised) > 10
    assert {name for name, kept in unpromised.items() if kept} == set()


def test_scaling() -> None:
    """A scaled operand scales the result by the degree; elsewhere some call shows that it does not.

    Of layers the bias is left away.
    """
    alone = {Scaling.PRODUCT, Scaling.QUOTIENT, Scaling.SLOPES, Scaling.LAYER}
    others: dict[str, bool] = {}
    for op, call in all_calls(lambda op, call: floating(call) and op.makes is Makes.NOTHING):
        degree = op.degree_in(call.args, call.kwargs)
        if op.scaling is Scaling.NORM:
            continue
        at = op.operands
        quiet = None if at is None or at.bias is None else call.args[at.bias]
        places = {id(x): k for k, x in enumerate(tensors((call.args, call.kwargs)))}
        bias = None if quiet is None else places[id(quiet)]
        x = places[id(call.args[at.x])] if op.scaling is Scaling.LAYER and at else 0
        first = op.scaling in alone or op.moves is not Moves.NO

        def plain(k: int, value: Tensor, bias: int | None = bias) -> Tensor:
            return value * 0 if k == bias else value

        def scaled(k: int, value: Tensor, first: bool = first, x: int = x) -> Tensor:
            return plain(k, value) * (T if k == x or not first else 1)

        before, after = changed(call, op, plain), changed(call, op, scaled)
        if before[0].dtype is not torch.float64:
            continue
        told = op.moves is not Moves.NO or (op.scaling is not Scaling.NONE and degree is not None)
        power = T ** (degree if degree is not None else 1.0)
        holds = same([b * power for b in before], after)
        if told:
            assert holds, op.name
        else:
            others[op.name] = others.get(op.name, True) and holds
    assert len(others) > 5
    assert {name for name, holds in others.items() if holds} <= HAPPEN_TO_CHANGE_NOTHING


def test_moves() -> None:
    """The result holds the operand's values; of ops that say no, some call shows it."""
    others: dict[str, bool] = {}
    for op, call in all_calls(lambda op, call: bool(tensors(call.args))):
        out = call.again()[1]
        given, result = call.args[0], tensors(out)[0]
        if not isinstance(given, Tensor):
            continue
        if op.moves is Moves.COPIES:
            assert torch.equal(given, result.to(given.dtype)), op.name
        elif op.moves is Moves.REARRANGES:
            assert torch.equal(given.flatten().sort()[0], result.flatten().sort()[0]), op.name
        elif op.moves is Moves.REPEATS:
            assert torch.equal(given.expand(result.shape), result), op.name
        else:
            alike = given.numel() == result.numel() and torch.equal(
                given.flatten().sort()[0], result.flatten().sort()[0].to(given.dtype)
            )
            others[op.name] = others.get(op.name, True) and alike
    assert {name for name, alike in others.items() if alike} <= HAPPEN_TO_CHANGE_NOTHING


def test_memory() -> None:
    """Views share their operand's memory and nothing else does; layout ops change no value."""
    for op, call in all_calls(lambda op, call: bool(tensors(call.args))):
        args, out = call.again()
        first = args[0]
        if isinstance(first, Tensor) and not call.func._schema.is_mutable:
            shared = {x.untyped_storage().data_ptr() for x in tensors(out)}
            assert (first.untyped_storage().data_ptr() in shared) == op.view, op.name
        if op.layout:
            assert op.moves is not Moves.NO, op.name


def test_new_tensors() -> None:
    for op, call in all_calls(lambda op, call: op.makes in (Makes.ONE_VALUE, Makes.ZEROS)):
        (result,) = tensors(call.again()[1])
        assert result.unique().numel() <= 1, op.name
        assert op.makes is not Makes.ZEROS or not result.any(), op.name


def test_multiply_accumulates_are_half_of_what_pytorch_counts_as_flops() -> None:
    counted = set()
    for op, call in all_calls():
        formula = flop_registry.get(call.func.overloadpacket)
        if op.name == "_scaled_dot_product_flash_attention_for_cpu":
            formula = flop_registry[torch.ops.aten._scaled_dot_product_flash_attention]
        assert (formula is not None) == (op.macs is not None), op.name
        if formula is not None and op.macs is not None:
            args, out = call.again()
            assert 2 * op.macs(args, out) == formula(*args, **call.kwargs, out_val=out), op.name
            counted.add(op.name)
    assert counted >= {"convolution", "mm", "addmm", "bmm"}


def test_layers_and_normalisations_without_weight_and_bias_are_silent() -> None:
    tried = set()
    for op, call in all_calls(lambda op, call: op.operands is not None):
        at = op.operands
        assert at is not None
        silent = [
            call.args[k] for k in (at.weight, at.bias) if k is not None and k < len(call.args)
        ]
        places = [k for k, x in enumerate(tensors(call.args)) if any(x is s for s in silent)]
        (result,) = changed(call, op, lambda k, x, p=places: x * 0 if k in p else x)
        assert not result.any(), op.name
        tried.add(op.name)
    assert tried >= {"convolution", "addmm", "native_layer_norm", "native_batch_norm", "mm"}


def test_random_and_looking_ops() -> None:
    """In eval mode only attention, which may drop, is met; tags and calls tell which they are."""
    assert not any(op.looks_in(call.args) for op, call in all_calls())
    drawing = {op.name for op, call in all_calls() if op.random}
    assert drawing <= {"_scaled_dot_product_flash_attention_for_cpu"}
    assert all(named(n).random for n in ("native_dropout", "bernoulli_", "rand_like", "randn"))
    assert named("nonzero").looks_in(())
    x, mask = torch.zeros(3), torch.tensor([True, False, True])
    assert named("index").looks_in((x, [mask]))
    assert not named("index").looks_in((x, [mask.nonzero()[:, 0]]))


def test_every_name_is_an_op_of_some_pytorch() -> None:
    """A misspelt name would silently describe nothing; a few belong to other builds."""
    elsewhere = {"convolution_overrideable", "numpy_T"}
    missing = {op.name for op in records() if not overloads(op.name)} - elsewhere
    assert missing == set()


def test_a_second_record_is_refused_and_unknown_ops_are_left_whole() -> None:
    with pytest.raises(ValueError, match="'relu' has a record already"):
        register("relu")
    assert named("sigmoid").pointwise
    assert named("relu_") is named("relu")
    assert named("_cdist_forward").labels is unknown
