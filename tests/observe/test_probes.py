"""Probes: unbiased, and nothing of the network is touched."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlprune.observe.probes import Probed, probe


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stirred(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.copy_(drawn(*parameter.shape, seed=seed))
    return model


def network(inplace: bool = False) -> nn.Sequential:
    """Linear behind the layer "2"."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace), nn.Linear(4, 5), nn.Linear(5, 6))
    stirred(model)
    return model


def probed(model: nn.Module, x: Any, *layers: str, **options: Any) -> list[dict[str, list[Probed]]]:
    return [calls for _, calls in probe(model, [(x, None)], layers, **options)]


def squares(model: nn.Module, x: Tensor, layer: str, change: Tensor, **options: Any) -> float:
    """Mean squared projection of what a change of a layer's output does to the answer."""
    found = [
        (calls[layer][0].gradient * change).flatten(1).sum(1)
        for calls in probed(model, x, layer, **options)
    ]
    return float(torch.cat(found).square().mean())


def centred(answer: Tensor, classes: int = -1) -> Tensor:
    return answer - answer.mean(classes, keepdim=True)


def test_the_mean_squared_projection_is_the_squared_change_of_the_centred_answer() -> None:
    model, change, x = network(), drawn(5, seed=7), drawn(1, 3).expand(4096, 3)
    model[3].weight.data += 1
    exact = float(centred(change @ model[3].weight.detach().T).square().sum())
    options = {"samples": 4096, "chunk": 1024}
    assert squares(model, x, "2", change, **options) == pytest.approx(exact, rel=0.12)
    plain = float((change @ model[3].weight.detach().T).square().sum())
    assert abs(plain - exact) > 0.2 * exact, "the test could not tell them apart"
    few = [squares(model, x[:1], "2", change, seed=seed, samples=1) for seed in range(300)]
    assert sum(few) / 300 == pytest.approx(exact, rel=0.3)


@pytest.mark.parametrize(("shape", "classes"), [((3, 4, 5), 1), ((3, 4), -1)])
def test_the_classes_of_an_answer_with_more_dimensions(
    shape: tuple[int, ...], classes: int
) -> None:
    model, x = nn.Sequential(nn.Identity()), drawn(1, *shape).expand(2048, *shape)
    change = drawn(*shape, seed=3) + 2
    exact = float(centred(change[None], classes).square().sum())
    assert squares(model, x, "0", change, samples=2048, chunk=2048) == pytest.approx(
        exact, rel=0.15
    )


@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, torch.inference_mode])
def test_nothing_of_the_network_changes_in_any_mode(
    mode: Callable[[], AbstractContextManager[Any]],
) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), nn.Dropout(), nn.Conv2d(4, 3, 3)
    )
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with mode():
        x = drawn(8, 1, 6, 6).requires_grad_(mode is nullcontext)
        first = probed(model, x, "0", "4", chunk=4)
        second = probed(model, x, "0", "4", chunk=4)
    assert len(first) == 2
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a["0"][0].gradient, b["0"][0].gradient)
        assert a["0"][0].gradient.shape == a["0"][0].output.shape == (4, 4, 4, 4)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert [p.requires_grad for p in model.parameters()] == [False, *[True] * 5]
    assert x.grad is None
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.backends.mha.get_fastpath_enabled()


def test_activations_in_place_change_neither_record_nor_gradient() -> None:
    x = drawn(16, 3)
    (plain,) = probed(network(), x, "0", "2")
    (inplace,) = probed(network(inplace=True), x, "0", "2")
    for layer in ("0", "2"):
        a, b = plain[layer][0], inplace[layer][0]
        for one, other in ((a.output, b.output), (a.gradient, b.gradient), (a.args[0], b.args[0])):
            torch.testing.assert_close(one, other)
    assert float(inplace["0"][0].output.min()) < 0


class Twice(nn.Module):
    """Reads what it then overwrites, calls a layer twice and another never."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.idle = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, *, x: Tensor, scale: float) -> dict[str, Tensor]:
        y = self.a(self.a(x))
        z = self.b(y)
        return {"z": z + y.relu_() * scale, "other": y}


def test_layers_called_twice_or_never_keywords_and_overwritten_inputs() -> None:
    model = stirred(Twice())
    (calls,) = probed(model, {"x": drawn(4, 3), "scale": 2.0}, "a", "b", "idle")
    assert {path: len(found) for path, found in calls.items()} == {"a": 2, "b": 1, "idle": 0}
    read = calls["b"][0].args[0]
    torch.testing.assert_close(model.b(read), calls["b"][0].output)
    assert float(read.min()) < 0


def test_the_first_of_several_tensors_is_probed_and_others_pass() -> None:
    attention = nn.MultiheadAttention(4, 2, batch_first=True)

    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: Tensor) -> Tensor:
            mixed, weights = self.attention(x, x, x)
            assert weights.shape == (3, 5, 5)
            return mixed

    x = drawn(3, 5, 4)
    (calls,) = probed(Attend().eval(), x, "attention")
    (call,) = calls["attention"]
    torch.testing.assert_close(call.output, attention(x, x, x)[0])
    assert call.gradient.shape == (3, 5, 4)


def test_samples_are_counted_over_batches_and_chunks() -> None:
    batches = [(drawn(5, 3), None), (drawn(5, 3), None), (drawn(5, 3), None)]
    counts = [count for count, _ in probe(network(), batches, ["2"], samples=8, chunk=3)]
    assert counts == [3, 2, 3]


def test_a_layer_behind_which_derivatives_end_is_left_out() -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.inside, self.after = (nn.Linear(3, 3) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.before(x)
            with torch.no_grad():
                x = self.inside(x)
            return self.after(x)

    (calls,) = probed(Apart(), drawn(4, 3), "before", "inside", "after")
    assert {path: len(found) for path, found in calls.items()} == {
        "before": 0,
        "inside": 0,
        "after": 1,
    }
    assert probed(Apart(), drawn(4, 3), "before") == []
