"""Streaming moments are those of all rows at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlprune.observe.moments import Moments, SecondMoments


@pytest.fixture
def rows() -> Tensor:
    draw = torch.randn(500, 7, generator=torch.Generator().manual_seed(0))
    return draw @ torch.randn(7, 7, generator=torch.Generator().manual_seed(1)) + 1e4


@pytest.mark.parametrize("cross", [True, False])
def test_pooled_batches_and_merged_halves_give_the_moments_of_all_rows(
    rows: Tensor, cross: bool
) -> None:
    wide = rows.double()
    wanted = wide.T.cov() if cross else wide.var(0)
    whole, halves = Moments(cross), (Moments(cross), Moments(cross))
    for number, part in enumerate(rows.split(33)):
        whole.add(part)
        whole.add(part[:0])
        halves[number % 2].add(part)
    halves[0].merge(halves[1].count, halves[1].mean, halves[1].spread)
    for found in (whole, halves[0]):
        assert found.count == 500
        torch.testing.assert_close(found.mean, wide.mean(0), rtol=1e-12, atol=0)
        torch.testing.assert_close(found.covariance, wanted, rtol=1e-9, atol=1e-9)


def test_second_moments_with_targets_and_rows_that_do_not_count(rows: Tensor) -> None:
    x, y = rows.double(), rows[:, :3].double().tanh()
    found = SecondMoments()
    mask = torch.rand(500, generator=torch.Generator().manual_seed(2)) < 0.7
    zeroed = mask[:, None]
    for a, b, m in zip(x.split(64), y.split(64), mask.split(64), strict=True):
        found.add(a * m[:, None], b * m[:, None], int(m.sum()))
    count = int(zeroed.sum())
    gram, cross, power = found.means
    assert found.count == count
    assert found.finite
    torch.testing.assert_close(gram, x[mask].T @ x[mask] / count)
    torch.testing.assert_close(cross, x[mask].T @ y[mask] / count)
    torch.testing.assert_close(power, y[mask].square().sum() / count)
    found.add(torch.full((1, 7), torch.inf), torch.zeros(1, 3))
    assert not found.finite
