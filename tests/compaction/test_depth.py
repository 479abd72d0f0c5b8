"""Depth: plans that drop residual branches, and what may be dropped."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import MobileNetV2, ResNet, mobilenet_v3_small
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

import rlprune
from rlprune.budgets.metrics import count_macs, count_params
from rlprune.compaction import Workspace, build, discover
from rlprune.compaction.difference import difference
from rlprune.compaction.verify import masked_copy
from rlprune.errors import PlanError, StructureError
from rlprune.plan import Plan
from rlprune.structure import Groups


def encoder() -> nn.Module:
    """Two transformer encoder layers, normalised before their branches."""
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=True)
    layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return nn.Sequential(nn.Linear(8, 16), layers, nn.Linear(16, 3))


IMAGE = (2, 3, 32, 32)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "resnet18": (partial(ResNet, BasicBlock, [2, 2, 2, 2], 10), IMAGE, 5),
    "bottleneck": (partial(ResNet, Bottleneck, [3, 2, 1, 1], 10, width_per_group=16), IMAGE, 3),
    "mobilenet_v2": (partial(MobileNetV2, 10, 0.35), IMAGE, 10),
    "squeeze_excite": (mobilenet_v3_small, IMAGE, 6),
    "resnet20": (partial(rlprune.models.create, "resnet20", num_classes=10), IMAGE, 7),
    "convnext": (
        partial(ConvNeXt, [CNBlockConfig(16, 24, 2), CNBlockConfig(24, None, 2)]),
        IMAGE,
        4,
    ),
    "swin": (partial(SwinTransformer, [4, 4], 16, [2, 2], [2, 4], [4, 4]), IMAGE, 8),
    "vit": (partial(VisionTransformer, 32, 16, 2, 4, 16, 24), IMAGE, 4),
    "encoder": (encoder, (2, 5, 8), 3),
}


def network(make: Callable[[], nn.Module]) -> nn.Module:
    """A network in float64 whose every parameter and statistic is random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().double().eval()
        for parameter in model.parameters():
            if parameter.ndim == 1 or parameter.abs().max() < 1e-3:
                nn.init.uniform_(parameter, 0.2, 0.8)
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.2, 1.0)
    return model


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def random_scores(groups: Groups, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {g.name: torch.rand(g.width, generator=generator) for g in groups.prunable}


@pytest.mark.parametrize("name", NETWORKS)
def test_random_droppings_hold_law_1_and_the_predicted_costs(name: str) -> None:
    make, shape, count = NETWORKS[name]
    model, x = network(make), images(*shape)
    groups = discover(model, x)
    assert len(groups.branches) == count
    assert {groups.branch_of(g.name) for g in groups} - {""} == set(groups.branches)
    workspace = Workspace(groups)
    dense, names = workspace.build(Plan.dense_plan(groups))(x), list(groups.branches)
    for seed in range(2):
        dropped = names if seed else random.Random(seed).sample(names, len(names) // 2)
        plan = Plan.uniform(groups, 0.6, random_scores(groups, seed)).drop(groups, dropped)
        small, masked = build(groups, plan), masked_copy(groups, plan)
        assert difference(masked, small, x).agrees
        assert float(masked(x).detach().abs().max()) > 1e-3
        assert not torch.allclose(masked(x), dense)
        widths = list(plan.widths.values())
        assert groups.params(widths) == count_params(small)
        assert groups.macs(widths) == pytest.approx(count_macs(small, x))
        assert type(small) is type(model)
        assert difference(small, workspace.build(plan), x).relative == 0
    torch.testing.assert_close(workspace.build(Plan.dense_plan(groups))(x), dense)


@pytest.mark.parametrize("name", ["resnet20", "squeeze_excite", "vit"])
def test_a_network_without_some_branches_is_an_ordinary_network(name: str) -> None:
    model, x = network(NETWORKS[name][0]), images(*IMAGE)
    groups = discover(model, x)
    branch = next(iter(groups.branches.values()))
    plan = Plan.dense_plan(groups).drop(groups, [branch.name])
    small = build(groups, plan)
    assert count_macs(small, x) < count_macs(model, x)
    assert set(model.state_dict()) - set(small.state_dict()) == set(branch.tensors)
    assert torch.equal(copy.deepcopy(small)(x), small(x))
    program = torch.export.export(small, (x,))
    torch.testing.assert_close(program.module()(x), small(x))
    again = build(groups, plan)
    again.load_state_dict(small.state_dict())
    assert [g.name for g in discover(small, x).prunable] == [
        g.name for g in groups.prunable if g.name not in branch.groups
    ]
    small.train()
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
    F.cross_entropy(small(x), torch.tensor([0, 1])).backward()
    optimizer.step()
    assert all(p.grad is not None for p in small.parameters())
    assert not torch.equal(next(small.parameters()), next(again.parameters()))


@pytest.mark.parametrize("method", ["bn", "merge", ["least_squares", "bn"]])
def test_compensation_passes_over_dropped_branches(method: str | list[str]) -> None:
    model, x = network(NETWORKS["resnet20"][0]), images(4, 3, 32, 32)
    groups = discover(model, x)
    plan = Plan.uniform(groups, 0.5, random_scores(groups)).drop(groups, list(groups.branches)[:2])
    small = rlprune.compact(model, x, plan, compensation=method, calibration=[x])
    assert torch.isfinite(small(x)).all()


class Block(nn.Module):
    """A residual block between two layers; ``add`` says how the branch meets the stream."""

    seen: Tensor

    def __init__(self, add: Callable[[Block, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.head, self.add = nn.Linear(4, 8), nn.Linear(8, 2), add
        self.register_buffer("seen", torch.zeros(()))
        self.a, self.b, self.c = nn.Linear(8, 6), nn.Linear(6, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.add(self, self.stem(x)))


def branch_of(m: Block, x: Tensor) -> Tensor:
    return m.b(F.relu(m.a(x)))


def read_twice(m: Block, x: Tensor) -> Tensor:
    y = branch_of(m, x)
    return x + y + y.mean()


def shared(m: Block, x: Tensor) -> Tensor:
    return branch_of(m, x + branch_of(m, x))


def written(m: Block, x: Tensor) -> Tensor:
    return x + m.b(F.relu_(m.a(x.view(-1, 8).mul_(2))))


def other_stream(m: Block, x: Tensor) -> Tensor:
    return m.c(x) + branch_of(m, x)


def multiplied(m: Block, x: Tensor) -> Tensor:
    return x + m.b(m.a(x) @ torch.eye(6).double())


def noted(m: Block, x: Tensor) -> Tensor:
    y = F.relu(m.a(x))
    m.seen.add_(y.mean())
    return x + m.b(y)


def written_beside(m: Block, x: Tensor) -> Tensor:
    y = F.relu(m.a(x))
    x[:, :1].add_(y.mean())
    return x + m.b(y)


def test_the_simplest_block_can_be_dropped() -> None:
    groups = discover(network(lambda: Block(lambda m, x: x + branch_of(m, x))), images(3, 4))
    assert {n: b.groups for n, b in groups.branches.items()} == {"b": ("a",)}
    assert groups.branch_of("a") == "b"
    assert groups.branch_of("stem") == ""
    assert groups["a"].legal_widths()[0] == 1


@pytest.mark.parametrize(
    "add",
    [
        lambda m, x: x + torch.sigmoid(branch_of(m, x)),
        lambda m, x: x * branch_of(m, x),
        lambda m, x: branch_of(m, x),
        read_twice,
        shared,
        written,
        other_stream,
        multiplied,
        noted,
        written_beside,
    ],
)
def test_what_would_not_be_zero_or_would_still_run_is_not_offered(
    add: Callable[[Block, Tensor], Tensor],
) -> None:
    groups = discover(network(lambda: Block(add)), images(3, 4))
    assert not groups.branches
    with pytest.raises(PlanError, match="no branch 'b' can be dropped; those that can: none"):
        Plan.dense_plan(groups).drop(groups, ["b"])


class Peeking(Block):
    """Its forward looks into a module of the branch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.a.weight.ndim


def test_a_branch_that_code_looks_into_is_not_offered() -> None:
    groups = discover(network(lambda: Peeking(lambda m, x: x + branch_of(m, x))), images(3, 4))
    assert groups["a"].prunable
    assert not groups.branches


@pytest.mark.parametrize(
    "wishes",
    [{"exclude": ["b"]}, {"bounds": {"a": (0.5, 1.0)}}, {"min_width": 2}, {"exclude": ["a"]}],
)
def test_wishes_about_widths_rule_dropping_out(wishes: dict[str, object]) -> None:
    model = network(lambda: Block(lambda m, x: x + branch_of(m, x)))
    assert not discover(model, images(3, 4), **wishes).branches  # type: ignore[arg-type]


def test_a_branch_is_emptied_whole_or_not_at_all() -> None:
    model, x = network(NETWORKS["bottleneck"][0]), images(*IMAGE)
    groups = discover(model, x)
    first, second = "layer1.1.conv1", "layer1.1.conv2"
    scores = random_scores(groups)
    with pytest.raises(PlanError, match=f"'{first}' keeps nothing, but '{second}' of the same"):
        Plan.from_widths(groups, {first: 0}, scores)
    with pytest.raises(PlanError, match=r"'conv1': width 0 is not in 1\.\.64"):
        Plan.from_widths(groups, {"conv1": 0}, scores)
    plan = Plan.from_widths(groups, {first: 0, second: 0}, scores)
    assert plan == Plan.dense_plan(groups).drop(groups, "layer1.1")
    assert Plan.from_json(plan.to_json()).digest == plan.digest
    assert not plan.masks()[first].any()
    half = Plan({**plan.keep, second: (0,)}, plan.dense)
    bare = Plan({**plan.keep, "conv1": ()}, plan.dense)
    for wrong, message in (
        (half, "empty all of them, or none"),
        (bare, "'conv1': no unit is kept"),
    ):
        with pytest.raises(PlanError, match=message):
            build(groups, wrong)
        with pytest.raises(PlanError, match=message):
            rlprune.mask(model, x, wrong)
    with pytest.raises(PlanError, match="empty all of them"):
        groups.macs(list(half.widths.values()))


def test_a_wrong_network_is_told_apart_from_one_without_branches() -> None:
    model, x = network(NETWORKS["resnet20"][0]), images(*IMAGE)
    groups = discover(model, x)
    plan = Plan.dense_plan(groups).drop(groups, list(groups.branches)[:1])
    rlprune.compaction.verify(groups, build(groups, plan), plan)
    with pytest.raises(StructureError, match="the compacted network"):
        rlprune.compaction.verify(groups, build(groups, Plan.dense_plan(groups)), plan)
