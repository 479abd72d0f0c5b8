"""The how-to of `rlprune/ops/README.md`, followed: one record, and a new op is pruned exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rlprune.ops
from rlprune.budgets import count_macs
from rlprune.compaction import build, discover
from rlprune.compaction.verify import difference, masked_copy, verify
from rlprune.compensation.merge.paths import paths
from rlprune.ops import Op, Zeros, named, register, table
from rlprune.plan import Plan


@torch.library.custom_op("demo::project", mutates_args=())
def project(x: Tensor, weight: Tensor) -> Tensor:
    """A linear layer that PyTorch knows nothing of."""
    return x @ weight.t()


@project.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@torch.library.custom_op("demo::bare", mutates_args=())
def bare(x: Tensor, weight: Tensor) -> Tensor:
    """The same without a kernel for meta tensors."""
    return x @ weight.t()


@torch.library.custom_op("demo::swish", mutates_args=())
def swish(x: Tensor) -> Tensor:
    """Value by value."""
    return x * torch.sigmoid(2 * x)


class Network(nn.Module):
    """Layer, new activation, two new layers with a ReLU between."""

    def __init__(self, op: str) -> None:
        super().__init__()
        self.op = getattr(torch.ops.demo, op)
        self.first = nn.Linear(5, 8)
        self.middle = nn.Parameter(torch.randn(6, 8))
        self.last = nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.op(torch.ops.demo.swish(self.first(x)), self.middle))
        return self.op(x, self.last)


@contextmanager
def records_put_back() -> Iterator[None]:
    """The table as it was, afterwards."""
    before = dict(table._RECORDS)
    try:
        yield
    finally:
        table._RECORDS.clear()
        table._RECORDS.update(before)
        table._FOUND.clear()
        table._NAMED.clear()


def follow_the_page() -> None:
    """Run the example of the README as it stands there, and its one-liner."""
    page = (Path(rlprune.ops.__file__).parent / "README.md").read_text()
    lines = page.splitlines()
    code = "\n".join(x.removeprefix(" " * 8) for x in lines if x.startswith(" " * 8))
    assert "register(" in code
    exec(code, {})
    line = next(x for x in lines if "demo::swish" in x)
    assert '`register("demo::swish", zeros=Zeros.FIRST)`' in line
    register("demo::swish", zeros=Zeros.FIRST)


def example(op: str) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network(op).double(), torch.randn(4, 5, dtype=torch.float64)


def test_without_a_record_the_op_freezes_and_is_named() -> None:
    model, x = example("project")
    groups = discover(model, x)
    assert not groups.prunable
    assert "demo::swish in the model's own forward: rlprune has no rule" in groups[0].reason


@pytest.mark.parametrize("op", ["project", "bare"])
def test_one_record_and_it_is_pruned_counted_and_verified(op: str) -> None:
    with records_put_back():
        follow_the_page()
        if op == "bare":
            known: Op = named("demo::project")
            facts = {"zeros": known.zeros, "scaling": known.scaling, "operands": known.operands}
            register("demo::bare", known.labels, macs=known.macs, **facts)
        model, x = example(op)
        groups = discover(model, x)
        assert {g.name: g.width for g in groups.prunable} == {"first": 8, "middle": 6}
        assert groups.macs() == count_macs(model, x) == 5 * 8 + 8 * 6 + 6 * 3
        plan = Plan.from_widths(groups, [5, 2])
        small = build(groups, plan)
        assert small.middle.shape == (2, 5)
        verify(groups, small, plan)
        assert difference(masked_copy(groups, plan), small, x).relative < 1e-12
        assert groups.macs([5, 2]) == count_macs(small, x) == 5 * 5 + 5 * 2 + 2 * 3
        found = paths(groups)
        assert found["middle"].reason == ""
        assert found["middle"].consumers == {"last": 1.0}
        assert "demo::swish" in found["first"].reason
