import math

import pytest
import torch
from torch import nn

from rlprune.errors import ConfigError, TrainingError
from rlprune.tasks import Classification, Rows
from rlprune.training import FineTune, Pretrain, evaluate
from rlprune.training.losses import objective
from rlprune.training.optim import build_optimizer, learning_rate

TASK = Classification()


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("onecycle", {0: 0.04, 10: 0.52, 20: 1.0, 60: 0.5, 99: 1 / 80}),
        ("cosine", {0: 0.04, 20: 1.0, 60: 0.5, 99: 0.5 * (1 - math.cos(math.pi / 80))}),
        ("constant", {0: 0.04, 20: 1.0, 99: 1.0}),
    ],
)
def test_learning_rate(schedule, expected):
    config = FineTune(lr=1.0, schedule=schedule, warmup=0.2)
    for step, value in expected.items():
        assert learning_rate(step, 100, config) == pytest.approx(value)


def test_distillation_by_hand():
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    t = 2.0
    p = [1 / (1 + math.e), math.e / (1 + math.e)]
    q = [math.exp(0.5) / (1 + math.exp(0.5)), 1 / (1 + math.exp(0.5))]
    expected = t**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert TASK.distillation(Rows(student), Rows(teacher), t).item() == pytest.approx(
        expected, rel=1e-5
    )
    assert TASK.distillation(Rows(teacher), Rows(teacher), t).item() == pytest.approx(0, abs=1e-6)


def test_objective_mixes_the_two_losses():
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    labels = torch.tensor([0, 1, 2, 0])
    options = {"label_smoothing": 0.1, "temperature": 4.0}
    hard = nn.functional.cross_entropy(student, labels, label_smoothing=0.1)
    rows, guide = Rows(student, labels), Rows(teacher)
    soft = TASK.distillation(rows, guide, 4.0)
    mixed = objective(TASK, rows, guide, alpha=0.7, **options)
    torch.testing.assert_close(mixed, 0.3 * hard + 0.7 * soft)
    torch.testing.assert_close(objective(TASK, rows, None, alpha=0.7, **options), hard)


def test_biases_and_norms_are_not_decayed():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    model[3].weight.requires_grad_(False)
    decayed, kept = build_optimizer(model, FineTune(weight_decay=0.1)).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 1, 3, 3)]
    assert len(kept["params"]) == 4
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    (only,) = build_optimizer(model, FineTune(decay_all=True, optimizer="adamw")).param_groups
    assert len(only["params"]) == 5


def test_nothing_to_train_is_said():
    with pytest.raises(TrainingError, match="requires a gradient"):
        build_optimizer(nn.ReLU(), FineTune())


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": -1},
        {"optimizer": "lion"},
        {"schedule": "steps"},
        {"lr": 0.0},
        {"lr": math.nan},
        {"momentum": 1.0},
        {"weight_decay": -1.0},
        {"warmup": 1.0},
        {"batch_size": 0},
        {"label_smoothing": 1.0},
        {"grad_clip": 0.0},
        {"autocast": "fp16"},
        {"distill_alpha": 2.0},
        {"temperature": 0.0},
    ],
)
def test_wrong_fields_are_named(wrong):
    (field,) = wrong
    with pytest.raises(ConfigError, match=f"FineTune.{field}="):
        FineTune(**wrong)


def test_unknown_fields_are_named():
    assert Pretrain.from_dict({"epochs": 3}) == Pretrain(epochs=3)
    with pytest.raises(ConfigError, match=r"Pretrain has no option .distill"):
        Pretrain.from_dict({"distill": True})


def test_evaluate_by_hand():
    model = nn.Sequential(nn.Identity(), nn.Dropout(0.9)).train()
    x = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    y = torch.tensor([0, 1, 1])
    expected = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-3)), math.log(1 + math.e)]
    for batches in ((x, y), [(x[:2], y[:2]), (x[2:], y[2:])]):
        found = evaluate(model, batches)
        assert found["accuracy"] == pytest.approx(2 / 3)
        assert found["loss"] == pytest.approx(sum(expected) / 3)
        assert found.count == 3
    assert model.training
    assert model[1].training
