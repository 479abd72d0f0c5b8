"""Sensitivity curves equal what is measured where the network is linear behind the group."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlprune import Groups, Plan, discover, importance
from rlprune.compaction import build
from rlprune.compensation import compensate
from rlprune.errors import DataError
from rlprune.sensitivity import sensitivity
from tests.importance.test_importance import Residual, digits
from tests.importance.test_obs import generator, images, stirred


def curves(groups: Groups, data: Tensor, **options: object) -> dict[str, np.ndarray]:
    scores = importance.scores(groups, "l1")
    return sensitivity(groups, scores, [(data, None)], **options)  # type: ignore[arg-type]


def damage(groups: Groups, name: str, width: int, data: Tensor, refit: bool) -> float:
    """Half the mean squared change of the centred answer, measured."""
    widths = {g.name: width if g.name == name else g.width for g in groups.prunable}
    plan = Plan.from_widths(groups, widths, importance.scores(groups, "l1"))
    small = build(groups, plan).eval()
    if refit:
        compensate(groups, plan, small, ["least_squares"], data)
    with torch.no_grad():
        change = small(data) - groups.model(data)
    change = change.flatten(0, -2) - change.flatten(0, -2).mean(-1, keepdim=True)
    return float(change.square().sum()) / len(data) / 2


def shape_holds(groups: Groups, found: dict[str, np.ndarray]) -> None:
    assert set(found) == {group.name for group in groups.prunable}
    for group in groups.prunable:
        curve = found[group.name]
        assert curve.shape == (group.width + 1,)
        assert curve[-1] == 0
        assert (np.diff(curve) <= 1e-12).all()
        assert curve[0] > 0


@pytest.mark.parametrize("refit", [False, True])
def test_behind_a_linear_network_the_curve_is_the_measured_change(refit: bool) -> None:
    layers = [nn.Conv2d(1, 6, 3), nn.Conv2d(6, 5, 3), nn.Flatten(), nn.Linear(5 * 16, 4)]
    model, data = stirred(nn.Sequential(*layers)), images(1024)
    groups = discover(model, data[:2])
    found = curves(groups, data, samples=1024, reconstruct=refit)
    shape_holds(groups, found)
    for group in groups.prunable:
        for width in range(1, group.width):
            exact = damage(groups, group.name, width, data, refit)
            top = found[group.name].max()
            assert found[group.name][width] == pytest.approx(exact, rel=0.2, abs=1e-3 * top)


def test_a_refit_is_never_worse_and_removing_copies_costs_it_nothing() -> None:
    model = stirred(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6)))
    with torch.no_grad():
        model[0].weight[4:] = model[0].weight[:4]
        model[0].bias[4:] = model[0].bias[:4]
    data = images(256, 5)
    groups = discover(model, data[:2])
    (name,) = (group.name for group in groups.prunable)
    scores = {name: torch.arange(8.0).flip(0)}
    refitted = sensitivity(groups, scores, [(data, None)])[name]
    vanished = sensitivity(groups, scores, [(data, None)], reconstruct=False)[name]
    assert (refitted <= 1.05 * vanished).all()
    assert refitted[4] < 1e-3 * vanished[4]
    assert refitted[3] > 100 * refitted[4]


def test_several_layers_that_read_one_group_act_together() -> None:
    torch.manual_seed(0)
    data, model = digits()[0], Residual().eval()
    groups = discover(model, data[:2])
    found = curves(groups, data)
    shape_holds(groups, found)
    shared = next(g for g in groups.prunable if g.width == 6)
    readers = [p.tensor for p in groups.slices(shared) if p.role == "in"]
    assert sorted(readers) == ["conv1.weight", "head.weight"]
    with torch.no_grad():
        model.conv2.weight.zero_()
    head = curves(groups, data, reconstruct=False)[shared.name]
    assert (found[shared.name][1:-1] != head[1:-1]).all()
    exact = damage(groups, shared.name, 5, data, refit=False)
    assert head[5] == pytest.approx(exact, rel=0.5)


def test_groups_measured_one_at_a_time_give_the_same_curves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    data = digits()[0]
    groups = discover(Residual().eval(), data[:2])
    together = curves(groups, data)
    monkeypatch.setattr("rlprune.sensitivity._ENTRIES", 1)
    alone = curves(groups, data)
    assert list(alone) == list(together)
    for name, curve in together.items():
        assert alone[name] == pytest.approx(curve, rel=1e-5)


def test_one_tensor_that_reads_a_group_twice_is_cut_twice() -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 4), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.b(torch.cat([y, y.relu()], 1))

    data = images(4096, 5)
    groups = discover(stirred(Doubled()), data[:2])
    for refit in (False, True):
        (found,) = curves(groups, data, samples=4096, reconstruct=refit).values()
        (group,) = groups.prunable
        for width in (1, 2, 3):
            exact = damage(groups, group.name, width, data, refit)
            assert found[width] == pytest.approx(exact, rel=0.2)


@pytest.mark.parametrize("batch_first", [True, False])
def test_heads_are_felt_although_no_module_calls_their_reader(batch_first: bool) -> None:
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 4, batch_first=batch_first)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x if batch_first else x.transpose(0, 1)
            y = self.attention(x, x, x, need_weights=False)[0]
            return self.head(y if batch_first else y.transpose(0, 1)).mean(1)

    data = images(1024, 5, 8)
    groups = discover(stirred(Attend()), data[:2])
    found = curves(groups, data, samples=1024, reconstruct=False)
    heads = next(g for g in groups.prunable if g.kind == "heads")
    for width in (1, 2, 3):
        exact = damage(groups, heads.name, width, data, refit=False)
        assert found[heads.name][width] == pytest.approx(exact, rel=0.25)


def test_a_group_that_cannot_be_felt_gets_the_mean_curve_of_the_others() -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 3)
            self.c, self.d = nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                hidden = self.d(self.c(x).relu())
            return self.b(self.a(x).relu()) + hidden.round()

    data = images(64, 5)
    groups = discover(stirred(Apart()), data[:2])
    unread, read = (next(g.name for g in groups.prunable if g.width == w) for w in (6, 4))
    found = curves(groups, data)
    shape_holds(groups, found)
    at = np.linspace(0, 1, 7)
    np.testing.assert_allclose(found[unread], np.interp(at, np.linspace(0, 1, 5), found[read]))


def test_where_nothing_can_be_felt_all_units_count_alike() -> None:
    class Silent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 3)

        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).relu())

    data = images(64, 5)
    (curve,) = curves(discover(Silent(), data[:2]), data).values()
    np.testing.assert_allclose(curve, [1, 0.75, 0.5, 0.25, 0])


def test_without_batches_the_error_says_what_is_missing() -> None:
    model = stirred(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)))
    groups = discover(model, torch.zeros(2, 5))
    scores = importance.scores(groups, "l1")
    for refit in (True, False):
        with pytest.raises(DataError, match="calibration data"):
            sensitivity(groups, scores, [], reconstruct=refit)


def test_training_mode_half_precision_and_repeats() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), nn.Flatten())
    model.append(nn.Linear(4 * 36, 3)).train()
    data = torch.randn(32, 1, 8, 8, generator=generator())
    groups = discover(model, data[:2])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    full = curves(groups, data)
    assert all(np.array_equal(full[name], again) for name, again in curves(groups, data).items())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    half = discover(model.to(torch.bfloat16), data[:2].bfloat16())
    for name, curve in curves(half, data.bfloat16()).items():
        np.testing.assert_allclose(curve[:-1], full[name][:-1], rtol=0.5)
