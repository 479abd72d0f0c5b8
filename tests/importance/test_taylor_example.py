"""Taylor criteria example by example: by hand, at any batch size, and without labels."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from rlprune import importance
from rlprune.compaction import discover


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)).double()


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(12, 3, dtype=torch.float64, generator=generator)
    return inputs, torch.randint(0, 4, (12,), generator=generator)


def changes(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """What every example's loss loses to first order with each neuron, [examples, neurons]."""
    hidden = model[1](model[0](inputs)).detach().requires_grad_()  # type: ignore[index]
    losses = functional.cross_entropy(model[2](hidden), labels, reduction="sum")  # type: ignore[index]
    # a ReLU neuron's parameters times their gradients are its value times its value's gradient
    return hidden.detach() * torch.autograd.grad(losses, hidden)[0]


def test_it_is_the_mean_absolute_change_at_any_batch_size() -> None:
    model, (inputs, labels) = net(), samples()
    groups = discover(model, inputs[:2])
    expected = changes(model, inputs, labels).abs().mean(0)
    for size in (1, 5, 12):
        batches = list(zip(inputs.split(size), labels.split(size), strict=True))
        scores = importance.scores(groups, "taylor_example", data=batches)
        torch.testing.assert_close(scores["0"].double(), expected, rtol=1e-6, atol=1e-9)


def test_without_labels_it_is_the_divergence_that_removal_causes() -> None:
    model, (inputs, _) = net(), samples()
    groups = discover(model, inputs[:2])
    many = inputs.repeat(80, 1)
    scores = importance.scores(groups, "taylor_kl", data=[many])["0"].double()
    # exactly: half the mean over the network's own classes of the squared change
    with torch.no_grad():
        chances = model(inputs).softmax(1)
    squares = torch.stack(
        [changes(model, inputs, torch.full((12,), y)).square() for y in range(4)], dim=1
    )
    expected = (chances[:, :, None] * squares).sum(1).mean(0) / 2
    torch.testing.assert_close(scores, expected, rtol=0.25, atol=1e-4)
    # and nearly what it costs to shrink a neuron a little
    shrunk = []
    for neuron in range(5):
        smaller = net()
        with torch.no_grad():
            smaller[2].weight[:, neuron] *= 1 - 0.01  # type: ignore[index]
            logs = smaller(inputs).log_softmax(1)
        shrunk.append(functional.kl_div(logs, chances, reduction="batchmean") / 0.01**2)
    torch.testing.assert_close(torch.stack(shrunk), expected, rtol=0.05, atol=1e-4)
    assert importance.scores(groups, "taylor_kl", data=[many])["0"].equal(scores.float())
