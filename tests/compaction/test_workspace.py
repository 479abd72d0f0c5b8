"""The workspace: one copy of a network, cut anew for every candidate."""

from __future__ import annotations

import torch
from torch import nn

from rlprune import problem
from rlprune.compaction import Workspace, build, discover, masked_copy, verify
from rlprune.data import Data
from rlprune.plan import Plan
from rlprune.problem import EvaluatorConfig


def test_a_candidate_does_not_remember_what_compensation_did_to_the_last_one() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.randn(64, 6)
    groups = discover(model, x[:2])
    workspace = Workspace(groups)
    scores = {group.name: torch.arange(group.width).float() for group in groups.prunable}
    whole = workspace.build(Plan.from_widths(groups, [8], scores))(x)
    narrow = workspace.build(Plan.from_widths(groups, [3], scores))
    with torch.no_grad():
        for parameter in narrow.parameters():
            parameter.add_(1.0)
    narrow[2].bias = nn.Parameter(torch.full((3,), 7.0))
    again = workspace.build(Plan.from_widths(groups, [8], scores))(x)
    assert torch.equal(whole, again)
    assert torch.allclose(again, model(x), atol=1e-6)


def test_quality_does_not_depend_on_what_was_evaluated_before() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x, y = torch.randn(400, 6), torch.randint(0, 3, (400,))
    groups = discover(model, x[:2])
    config = EvaluatorConfig(compensation=("least_squares",), images=64, rescore_images=64)
    used, fresh = (
        problem.create(groups, {"macs": 0.9}, data=Data(train=(x, y)), config=config)
        for _ in range(2)
    )
    scores = {group.name: torch.arange(group.width).float() for group in groups.prunable}
    three, five, eight = (Plan.from_widths(groups, [n], scores) for n in (3, 5, 8))
    used.evaluate(three)
    used.evaluate(five)
    assert used.evaluate(eight).quality == fresh.evaluate(eight).quality
    assert fresh.evaluate(five).quality == used.evaluate(five).quality


class Cached(nn.Module):
    """Keeps what it computes from its weights, until its mode is set, as timm's attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.o = nn.Linear(6, 8), nn.Linear(8, 3)
        self.gain = nn.Parameter(torch.rand(8))
        self.cache: dict[str, torch.Tensor] = {}

    def train(self, mode: bool = True) -> Cached:
        self.cache = {}
        return super().train(mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return self.o(self.a(x) * self.gain.exp())
        if "gain" not in self.cache:
            self.cache["gain"] = self.gain.detach().exp()
        return self.o(self.a(x) * self.cache["gain"])


def test_what_the_dense_network_has_cached_is_not_handed_on() -> None:
    torch.manual_seed(0)
    model, x = Cached().eval(), torch.randn(4, 6)
    model(x)
    groups = discover(model, x)
    workspace = Workspace(groups)
    scores = {group.name: torch.arange(group.width).float() for group in groups.prunable}
    for width in (3, 5):
        plan = Plan.from_widths(groups, [width], scores)
        small = build(groups, plan)
        assert torch.equal(small(x), workspace.build(plan)(x))
        torch.testing.assert_close(small(x), masked_copy(groups, plan)(x))
    verify(groups, small, plan)
    small.load_state_dict({n: 2 * t for n, t in small.state_dict().items()})
    fresh = build(groups, plan)
    fresh.load_state_dict(small.state_dict())
    assert torch.equal(small(x), fresh(x))
