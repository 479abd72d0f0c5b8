"""Zeros where the method wants them, and weights that make up for them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import rlprune
from rlprune.errors import ConfigError, DataError
from rlprune.sparse import Pattern
from rlprune.sparse.layers import layers
from rlprune.sparse.obs import solve

METHODS = ("magnitude", "wanda", "obs")


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding="valid", groups=2), nn.ReLU(),
        nn.Conv2d(8, 16, (1, 3), dilation=(1, 2), padding=(0, 2), padding_mode="circular"),
        nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 12),
    ).eval()  # fmt: skip


def images(count: int = 32) -> Tensor:
    return torch.randn(count, 4, 9, 9, generator=torch.Generator().manual_seed(1))


def sparse_layers(model: nn.Module) -> dict[str, Tensor]:
    return {path: layer.matrix(layer.weight.detach()) for path, layer in layers(model)[0].items()}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "1:4", "block:4x4"])
def test_every_method_in_every_pattern(method: str, pattern: str) -> None:
    model, x = network(), images()
    before = copy.deepcopy(model.state_dict())
    result = rlprune.sparsify(model, x[:1], 0.5, method, pattern, data=x)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert set(sparse_layers(result)) == {"0", "5", "9"}  # the grouped convolution stays dense
    counts = [0, 0]
    for weight in sparse_layers(result).values():
        kept = weight != 0
        counts = [counts[0] + int((~kept).sum()), counts[1] + kept.numel()]
        parsed = Pattern.parse(pattern)
        if parsed.run:
            assert (kept.reshape(len(kept), -1, parsed.run).sum(2) <= parsed.kept).all()
        high, wide = parsed.block
        if high > 1:
            blocks = kept.reshape(len(kept) // high, high, -1, wide)
            assert ((blocks.sum((1, 3)) == 0) | (blocks.sum((1, 3)) == high * wide)).all()
    expected = Pattern.parse(pattern).sparsity or 0.5
    assert counts[0] / counts[1] == pytest.approx(expected, abs=0.02)
    assert torch.equal(result[3].weight, model[3].weight)


@pytest.mark.parametrize("path", ["0", "5", "9"])
def test_a_layer_is_its_matrix_times_its_rows(path: str) -> None:
    model, x = network(), images(3)
    layer = layers(model)[0][path]
    read: list[Tensor] = []
    hook = layer.module.register_forward_hook(lambda m, args, out: read.extend([args[0], out]))
    model(x)
    hook.remove()
    product = layer.rows(read[0]) @ layer.matrix(layer.weight).T + layer.module.bias
    answer = read[1].movedim(1, -1).reshape(-1, read[1].shape[1]) if read[1].ndim > 2 else read[1]
    assert torch.allclose(product, answer, atol=1e-5)
    assert torch.equal(layer.stored(layer.matrix(layer.weight)), layer.weight)


def test_magnitude_keeps_the_largest_of_the_whole_network_or_of_each_layer() -> None:
    model = network()
    with torch.no_grad():
        model[9].weight.mul_(1e5)
    everywhere = sparse_layers(rlprune.sparsify(model, images(1), 0.4))
    assert not bool((everywhere["9"] == 0).any())
    total = sum(weight.numel() for weight in everywhere.values())
    assert sum(int((w == 0).sum()) for w in everywhere.values()) == round(0.4 * total)
    alike = sparse_layers(rlprune.sparsify(model, images(1), 0.5, scope="layer"))
    for path, weight in alike.items():
        dense = sparse_layers(model)[path]
        assert (weight == 0).sum() == round(0.5 * weight.numel())
        assert dense[weight == 0].abs().max() <= dense[weight != 0].abs().min()


def test_wanda_is_weight_times_input_norm_within_a_row() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5))
    x = torch.randn(64, 6) * torch.tensor([0.01, 1, 1, 1, 1, 50])
    kept = rlprune.sparsify(model, x[:1], 0.5, "wanda", data=x)[0].weight != 0
    scores = model[0].weight.abs() * x.norm(dim=0)
    expected = scores >= scores.topk(3, dim=1).values[:, -1:]
    assert torch.equal(kept, expected)


def test_obs_equals_the_exact_solution_for_one_removed_weight() -> None:
    """One weight per row goes; the others follow from the normal equations."""
    torch.manual_seed(0)
    x = (torch.randn(200, 4) @ torch.randn(4, 4)).double()
    weight = torch.randn(3, 4).double()
    hessian = x.T @ x
    solved = solve(weight.float(), hessian.float(), Pattern(), 0.25, damping=1e-7).double()
    for row, new in zip(weight, solved, strict=True):
        gone = (new == 0).nonzero().reshape(-1)
        for first in gone.tolist():
            rest = [i for i in range(4) if i > first]
            fixed = [i for i in range(first)]
            target = x @ row - x[:, fixed] @ new[fixed]
            best = torch.linalg.lstsq(x[:, rest], target[:, None]).solution[:, 0]
            if len(gone) == 1:
                assert torch.allclose(new[rest], best, atol=1e-3)


def test_obs_hurts_less_than_wanda_and_magnitude() -> None:
    model, x = network(), images(256)
    with torch.no_grad():
        dense = model(x)
        errors = {
            method: float(
                (rlprune.sparsify(model, x[:1], 0.6, method, data=x, scope="layer")(x) - dense)
                .square()
                .mean()
            )
            for method in METHODS
        }
    assert errors["obs"] < 0.8 * min(errors["wanda"], errors["magnitude"])


def test_padding_does_not_count() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix = nn.Embedding(9, 8), nn.Linear(8, 8)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return self.mix(self.embed(input_ids)) * attention_mask[..., None]

    torch.manual_seed(0)
    model = Tokens()
    ids, mask = torch.randint(1, 9, (4, 6)), torch.ones(4, 6)
    padded = {
        "input_ids": torch.cat([ids, torch.zeros(4, 30, dtype=torch.long)], 1),
        "attention_mask": torch.cat([mask, torch.zeros(4, 30)], 1),
    }
    plain = {"input_ids": ids, "attention_mask": mask}
    results = [
        rlprune.sparsify(model, item, 0.5, "obs", data=[item]).mix.weight
        for item in (plain, padded)
    ]
    assert torch.equal(*results)
    assert not bool((model.embed.weight == 0).any())


def test_weights_shared_with_an_embedding_stay() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.hidden = nn.Linear(8, 9, bias=False), nn.Linear(8, 8)
            self.embed = nn.Embedding(9, 8)
            self.head.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.hidden(self.embed(x)))

    result = rlprune.sparsify(Tied(), torch.zeros(1, 3, dtype=torch.long), 0.5)
    assert bool((result.hidden.weight == 0).any())
    assert result.head.weight is result.embed.weight
    assert not bool((result.embed.weight == 0).any())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "4:2"}, "pattern '4:2' is unknown"),
        ({"method": "taylor"}, "method 'taylor' is unknown"),
        ({"sparsity": 1.0}, "sparsity is 1.0"),
        ({"exclude": ["nope"]}, "'nope' matches no layer"),
        ({"exclude": ["*"]}, "no layer can be made sparse: 0: excluded"),
        ({"scope": "world"}, "scope 'world'"),
        ({"stages": 0}, "stages is 0"),
    ],
)
def test_mistakes_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rlprune.sparsify(network(), images(1), **options)  # type: ignore[arg-type]


def test_data_is_asked_for() -> None:
    with pytest.raises(DataError, match="'wanda' needs calibration data"):
        rlprune.sparsify(network(), images(1), method="wanda")
