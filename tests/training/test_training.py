import copy
import csv
import math

import pytest
import torch

from rlprune import data as data_module
from rlprune import models
from rlprune.errors import TrainingError
from rlprune.training import (
    CsvHistory,
    FineTune,
    Pretrain,
    TensorBoardHistory,
    evaluate,
    finetune,
    pretrain,
)


@pytest.fixture(scope="module")
def digits():
    return data_module.load("digits")


@pytest.fixture(scope="module")
def dense(digits):
    return pretrain(models.create("digits_cnn", seed=0), digits, Pretrain(epochs=20))


def state_of(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def equal(left, right):
    return all(torch.equal(left[key], right[key]) for key in left)


def test_digits_network_reaches_97_5_percent(digits, dense):
    assert evaluate(dense.model, digits.test_batches())["accuracy"] >= 0.975
    assert dense.holdout == dense.history[dense.best_epoch].holdout
    assert len(dense.history) == 21
    assert math.isnan(dense.history[0].flat()["train_loss"])


def test_distillation_trains_a_smaller_network_and_changes_neither_argument(digits, dense):
    teacher = dense.model.train()
    student = models.create("digits_cnn", seed=3, width=12)
    before, guide = state_of(student), state_of(teacher)
    result = finetune(student, teacher, digits, FineTune(epochs=12, batch_size=64))
    assert equal(before, student.state_dict())
    assert equal(guide, teacher.state_dict())
    assert teacher.training
    assert all(p.requires_grad and p.grad is None for p in teacher.parameters())
    assert result.holdout["accuracy"] > 0.9
    assert not result.model.training
    assert all(p.is_contiguous() for p in result.model.parameters())


def test_same_seed_same_weights_and_another_seed_others(digits):
    config = FineTune(epochs=1, batch_size=256, distill=False)
    model = models.create("digits_cnn", seed=0, width=4)

    def run(seed):
        torch.rand(seed + 1)
        return finetune(model, None, digits, config, seed=seed).model.state_dict()

    assert equal(run(0), run(0))
    assert not equal(run(0), run(1))


def test_best_epoch_is_the_one_returned(digits, dense):
    wild = {"epochs": 3, "lr": 3.0, "schedule": "constant", "warmup": 0.0, "grad_clip": 1.0}
    result = finetune(dense.model, None, digits, FineTune(**wild, distill=False, keep="best"))
    assert result.best_epoch == 0
    assert equal(dense.model.state_dict(), result.model.state_dict())
    rows = result.history
    best = max(rows, key=lambda row: (row.holdout["accuracy"], -row.holdout["loss"]))
    assert best.epoch == result.best_epoch


def test_held_out_samples_do_not_choose_the_epoch_of_fine_tuning(digits, dense, caplog):
    config = FineTune(epochs=2, lr=3.0, warmup=0.0, distill=False, grad_clip=1.0)
    result = finetune(dense.model, None, digits, config)
    rows = result.history
    assert result.best_epoch == 2
    assert result.holdout == rows[2].holdout
    assert rows[2].holdout["accuracy"] < rows[0].holdout["accuracy"]
    assert not equal(dense.model.state_dict(), result.model.state_dict())
    assert "held-out accuracy fell" in caplog.text
    assert FineTune().keep == "last"
    assert Pretrain().keep == "best"


def test_no_epochs_return_a_copy(digits, dense):
    result = finetune(dense.model, dense.model, digits, FineTune(epochs=0))
    assert result.model is not dense.model
    assert equal(dense.model.state_dict(), result.model.state_dict())
    assert (result.best_epoch, len(result.history)) == (0, 1)


def test_frozen_parameters_stay(digits, dense):
    model = copy.deepcopy(dense.model)
    model.stem.requires_grad_(False)
    result = finetune(model, None, digits, FineTune(epochs=1, distill=False))
    stem = model.stem[0].weight
    assert torch.equal(result.model.stem[0].weight, stem)
    assert not result.model.stem[0].weight.requires_grad


def test_a_loss_that_explodes_is_said(digits):
    model = models.create("digits_cnn", seed=0, width=4)
    with torch.no_grad():
        model.fc.weight.fill_(float("inf"))
    with pytest.raises(TrainingError, match=r"epoch 1, step 1 of 8.*learning rate.*lower lr"):
        finetune(model, None, digits, FineTune(epochs=1, distill=False, batch_size=140))


def test_history_callbacks(digits, tmp_path):
    model = models.create("digits_cnn", seed=0, width=4)
    callbacks = [CsvHistory(tmp_path / "h.csv"), TensorBoardHistory(tmp_path / "tb", "finetune")]
    config = FineTune(epochs=2, batch_size=256, distill=False)
    result = finetune(model, None, digits, config, callbacks=callbacks)
    with (tmp_path / "h.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2]
    assert float(rows[2]["holdout_accuracy"]) == result.history[2].holdout["accuracy"]
    assert list((tmp_path / "tb").iterdir())
