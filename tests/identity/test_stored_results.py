"""Law 8 on whole runs: every ingredient, changed alone, is refused with its name."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlprune
from rlprune.errors import BudgetError, CheckpointError, ConfigError
from rlprune.problem import EvaluatorConfig
from rlprune.run.dense import dense_network
from rlprune.training import Pretrain


def pixels(count: int = 96) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    found = load_digits()
    x = torch.tensor(found.images[:count] / 16, dtype=torch.float32).unsqueeze(1)
    return x, torch.tensor(found.target[:count])


class OwnType(nn.Sequential):
    """Computes in the type of its weights, whatever it is given."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x.to(self[0].weight.dtype))
        return x


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return OwnType(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
        ).eval()


def data(x: Tensor | None = None, **options: Any) -> rlprune.Data:
    images, labels = pixels()
    return rlprune.Data(
        (images if x is None else x, labels),
        test=(images[:10], labels[:10]),
        **{"holdout": 0.25, "mean": (0.3,), "std": (0.4,), "num_classes": 10, **options},
    )


def weights_of(model: nn.Module, example_inputs: Any) -> float:
    return float(sum(p.numel() for p in model.parameters()))


def thrice(model: nn.Module, example_inputs: Any) -> float:
    return 3.0 * float(sum(p.numel() for p in model.parameters()))


def times(factor: float) -> Callable[..., float]:
    return lambda model, example_inputs: factor * weights_of(model, example_inputs)


def first_units(groups: Any, group: Any, samples: Any) -> Tensor:
    return torch.arange(group.width, 0, -1).float()


def last_units(groups: Any, group: Any, samples: Any) -> Tensor:
    return torch.arange(group.width).float()


def small_is_good(model: nn.Module) -> float:
    return -float(sum(p.numel() for p in model.parameters()))


def large_is_good(model: nn.Module) -> float:
    return float(sum(p.numel() for p in model.parameters()))


def asked(**changed: Any) -> dict[str, Any]:
    return {
        "model": network(),
        "example_inputs": torch.zeros(1, 1, 8, 8),
        "data": data(),
        "budgets": {"e": rlprune.Budget(fn=weights_of, limit=120)},
        "agent": {"name": "random"},
        "evaluations": 3,
        "importance": "l1",
        "compensation": ["least_squares"],
        "evaluator": EvaluatorConfig(images=16),
        "finetune": rlprune.FineTune(epochs=1, batch_size=16, lr=0.01),
        "exports": (),
        "latency": {"repeats": 1},
        "stages": ("search", "finetune"),
        "progress": False,
        **changed,
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    rlprune.prune(**asked(), out_dir=folder)
    return folder


def heavier() -> nn.Module:
    model = copy.deepcopy(network())
    with torch.no_grad():
        model[0].bias += 1e-3
    return model


def otherwise_activated() -> nn.Module:
    model = copy.deepcopy(network())
    model[1] = nn.GELU()
    return model


def rounded() -> Any:
    return rlprune.Budget(fn=times(1.0), limit=120)


INGREDIENTS: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "budget code": (
        lambda: {"budgets": {"e": rlprune.Budget(fn=thrice, limit=120)}},
        r"budgets\.e\.fn\.(name|code)",
    ),
    "budget version": (
        lambda: {"budgets": {"e": rlprune.Budget(fn=weights_of, limit=120, version="2")}},
        r"budgets\.e\.version None -> '2'",
    ),
    "budget limit": (
        lambda: {"budgets": {"e": rlprune.Budget(fn=weights_of, limit=119)}},
        r"budgets\.e\.limit\.value 120\.0 -> 119\.0",
    ),
    "training images all zero": (
        lambda: {"data": data(torch.zeros_like(pixels()[0]))},
        r"data\.train\.x\.content changed",
    ),
    "type of the images": (
        lambda: {"data": data((pixels()[0] * 255).to(torch.uint8))},
        r"data\.train\.x\.dtype 'float32' -> 'uint8'",
    ),
    "normalisation": (
        lambda: {"data": data(mean=(0.5,))},
        r"data\.train\.normalise\.mean \[0\.3.*\] -> \[0\.5\]",
    ),
    "split seed": (lambda: {"data": data(seed=1)}, r"data\.seed 0 -> 1"),
    "held-out share": (lambda: {"data": data(holdout=0.5)}, r"data\.holdout\.x\.shape"),
    "augmentation": (lambda: {"data": data(augmentation="crop")}, r"augmentation 'none' -> 'crop'"),
    "criterion": (lambda: {"importance": "l2"}, r"importance 'l1' -> 'l2'"),
    "own criterion": (lambda: {"importance": first_units}, r"importance 'l1' -> function"),
    "compensation option": (
        lambda: {"compensation": [rlprune.compensation.LeastSquares(ridge=0.5)]},
        r"compensation\.0\.ridge None -> 0\.5",
    ),
    "agent option": (
        lambda: {"agent": {"name": "random", "anchor": "sensitivity"}},
        r"agent\.config\.anchor 'uniform' -> 'sensitivity'",
    ),
    "score": (lambda: {"score": small_is_good}, r"score None -> function"),
    "evaluator": (lambda: {"evaluator": EvaluatorConfig(images=17)}, r"evaluator\.images 16 -> 17"),
    "recipe": (
        lambda: {"finetune": rlprune.FineTune(epochs=1, batch_size=16, lr=0.02)},
        r"recipe\.lr 0\.01 -> 0\.02",
    ),
    "weights": (lambda: {"model": heavier()}, r"network\.weights changed"),
    "architecture": (lambda: {"model": otherwise_activated()}, r"network\.layers changed"),
    "type of the weights": (
        lambda: {
            "model": network().double(),
            "example_inputs": torch.zeros(1, 1, 8, 8).double(),
        },
        r"network\.weights changed; inputs\.dtype 'float32' -> 'float64'",
    ),
    "structure": (lambda: {"min_width": 2}, r"structure\.min_width 1 -> 2"),
    "seed": (lambda: {"seed": 1}, r"seed 0 -> 1"),
}


def test_the_same_again_is_read_back(finished: Path) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in finished.glob("stages/*.json")}
    result = rlprune.prune(**asked(example_inputs=torch.ones(1, 1, 8, 8)), out_dir=finished)
    assert result.costs == {"e": weights_of(result.model, None)}
    assert stamps == {path: path.stat().st_mtime_ns for path in finished.glob("stages/*.json")}


@pytest.mark.parametrize("ingredient", INGREDIENTS)
def test_another_ingredient_is_refused_by_name(finished: Path, ingredient: str) -> None:
    make, message = INGREDIENTS[ingredient]
    with pytest.raises(ConfigError, match=message):
        rlprune.prune(**asked(**make()), out_dir=finished)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (lambda: times(1.0), lambda: times(1.01), r"budgets\.e\.fn\.closure\.factor 1\.0 -> 1\.01"),
    ],
)
def test_a_closure_is_part_of_a_budget(
    tmp_path: Path, before: Any, after: Any, message: str
) -> None:
    only = {"stages": ("search",)}
    first = {"e": rlprune.Budget(fn=before(), limit=120)}
    second = {"e": rlprune.Budget(fn=after(), limit=120)}
    rlprune.prune(**asked(budgets=first, **only), out_dir=tmp_path)
    with pytest.raises(ConfigError, match=message):
        rlprune.prune(**asked(budgets=second, **only), out_dir=tmp_path)
    again = rlprune.prune(**asked(budgets=second, **only), out_dir=tmp_path, redo=True)
    kept = sum(tensor.numel() for tensor in network().parameters())
    assert 0 < again.costs["e"] / 1.01 < kept


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("importance", first_units, last_units),
        ("score", small_is_good, large_is_good),
    ],
)
def test_other_code_gives_another_result_when_redone(
    tmp_path: Path, name: str, before: Any, after: Any
) -> None:
    only = {"stages": ("search",), "finetune": None, "evaluations": 6}
    first = rlprune.prune(**asked(**{name: before}, **only), out_dir=tmp_path)
    with pytest.raises(ConfigError, match=rf"{name}\.(name|code)"):
        rlprune.prune(**asked(**{name: after}, **only), out_dir=tmp_path)
    second = rlprune.prune(**asked(**{name: after}, **only), out_dir=tmp_path, redo=True)
    fresh = rlprune.prune(**asked(**{name: after}, **only))
    assert (second.plan, second.quality) == (fresh.plan, fresh.quality)
    assert (second.plan, second.quality) != (first.plan, first.quality)


def test_a_finished_network_is_measured_again(tmp_path: Path) -> None:
    """A table on the disk is beyond what an identity sees; the network handed over is not."""
    table = tmp_path / "table.json"
    table.write_text("1.0")

    def energy(model: nn.Module, example_inputs: Any) -> float:
        return json.loads(table.read_text()) * weights_of(model, example_inputs)

    run = asked(budgets={"e": rlprune.Budget(fn=energy, limit=120)})
    folder = tmp_path / "run"
    first = rlprune.prune(**run, out_dir=folder)
    table.write_text("1.001")
    again = rlprune.prune(**{**run, "budgets": {"e": rlprune.Budget(fn=energy, limit=120)}},
                          out_dir=folder)  # fmt: skip
    assert again.costs["e"] == pytest.approx(1.001 * first.costs["e"])
    table.write_text("3.0")
    with pytest.raises(BudgetError, match=r"does not meet its budgets any more.* e: .* over"):
        rlprune.prune(**run, out_dir=folder)
    with pytest.raises(BudgetError, match="does not meet its budgets any more"):
        rlprune.prune(**{**run, "stages": ("search",)}, out_dir=folder)


def test_old_folders_are_refused(finished: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(finished, tmp_path / "old")
    path = tmp_path / "old" / "run.json"
    content = json.loads(path.read_text())
    del content["format"]
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="made by an older rlprune"):
        rlprune.prune(**asked(), out_dir=tmp_path / "old")
    result = rlprune.prune(**asked(), out_dir=tmp_path / "old", redo=True)
    assert result.costs["e"] <= 120


def test_old_stores_are_refused(tmp_path: Path) -> None:
    from rlprune.problem.store import Store

    path = tmp_path / "evaluations.jsonl"
    path.write_text('{"version":1,"fingerprint":{"quality":"score f 0"},"reference":{}}\n')
    with pytest.raises(CheckpointError, match="older rlprune"):
        Store(path, {"quality": 1}, {}, {})
    path.unlink()
    Store(path, {"quality": torch.zeros(2), "budgets": 1}, {}, {}).close()
    with pytest.raises(CheckpointError, match="another problem: quality changed"):
        Store(path, {"quality": torch.zeros(2).double(), "budgets": 1}, {}, {})


def test_a_network_trained_on_other_data_is_not_taken(tmp_path: Path) -> None:
    model = {"name": "digits_cnn", "in_channels": 1, "width": 4}
    recipe = Pretrain(epochs=1, batch_size=32)

    def train(samples: rlprune.Data) -> int:
        dense_network(model, samples, recipe, seed=0, folder=tmp_path, progress=False)
        return len(list(tmp_path.glob("*.safetensors")))

    counts = [
        train(data()),
        train(data()),
        train(data(mean=(0.5,))),
        train(data(augmentation="crop")),
        train(data(1 - pixels()[0])),
    ]
    assert counts == [1, 1, 2, 3, 4]
