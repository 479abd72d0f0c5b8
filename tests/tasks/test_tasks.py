"""Every task against numbers worked out by hand or by scikit-learn."""

from __future__ import annotations

import math
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor, nn

from rlprune import plugins, tasks
from rlprune.errors import ConfigError, DataError
from rlprune.identity import digest
from rlprune.tasks import (
    Classification,
    LanguageModeling,
    Metric,
    Regression,
    Rows,
    Segmentation,
    Task,
)
from rlprune.tasks.base import added
from rlprune.training import evaluate


def measured(task: Task, *batches: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Metrics over several batches of answers and labels."""
    sums: dict[str, Tensor] = {}
    for answer, labels in batches:
        sums = added(sums, task.tally(task.rows(answer, labels)))
    return task.measures(sums)


def test_regression_agrees_with_scikit_learn_over_uneven_batches() -> None:
    y, guess = torch.randn(50, 3), torch.randn(50, 3)
    found = measured(Regression(scale=10), (guess[:20], y[:20]), (guess[20:], y[20:]))
    assert found["r2"] == pytest.approx(metrics.r2_score(y, guess))
    assert found["mse"] == pytest.approx(100 * metrics.mean_squared_error(y, guess), rel=1e-5)
    assert found["mae"] == pytest.approx(10 * metrics.mean_absolute_error(y, guess), rel=1e-5)
    one = measured(Regression(), (guess[:, :1], y[:, 0]))
    assert one["r2"] == pytest.approx(metrics.r2_score(y[:, 0], guess[:, 0]))
    with pytest.raises(DataError, match="as many numbers per sample as there are targets, 3"):
        Regression().rows(guess[:, :2], y)


def test_mean_iou_agrees_with_scikit_learn_and_ignores_what_it_must() -> None:
    answer, labels = torch.randn(4, 5, 6, 7), torch.randint(0, 4, (4, 6, 7))
    labels[0, :2] = 255
    labels[1, 3] = -1
    found = measured(Segmentation(), (answer[:1], labels[:1]), (answer[1:], labels[1:]))
    kept = ((labels != 255) & (labels >= 0)).numpy()
    y, guess = labels.numpy()[kept], answer.argmax(1).numpy()[kept]
    occurring = np.union1d(y, guess)
    assert found["mean_iou"] == pytest.approx(
        metrics.jaccard_score(y, guess, labels=occurring, average="macro")
    )
    assert found["pixel_accuracy"] == pytest.approx((y == guess).mean())
    assert len(Segmentation().rows(answer, labels)) == kept.sum()


def test_answers_at_another_resolution_are_brought_to_the_labels() -> None:
    labels = torch.zeros(2, 8, 8, dtype=torch.long)
    labels[:, :, 4:] = 1
    coarse = torch.zeros(2, 2, 2, 2)
    coarse[:, 1, :, 1] = 9.0
    assert len(Segmentation().rows(coarse, labels)) == 128
    assert measured(Segmentation(), (coarse, labels))["pixel_accuracy"] == 0.75


def test_perplexity_by_hand_padding_and_first_token_left_out() -> None:
    torch.manual_seed(0)
    tokens = torch.tensor([[3, 1, 2, 0], [2, 2, 1, 3]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    answer = torch.randn(2, 4, 5)
    task = LanguageModeling()
    inputs, labels = task.unpack({"input_ids": tokens, "attention_mask": mask})
    assert labels is not None
    assert labels.tolist() == [[3, 1, 2, -100], [2, 2, 1, 3]]
    rows = task.rows(answer, labels, inputs)
    logs = answer.log_softmax(-1)
    pairs = [(0, 0, 1), (0, 1, 2), (1, 0, 2), (1, 1, 1), (1, 2, 3)]
    loss = -sum(logs[n, t, token].item() for n, t, token in pairs) / len(pairs)
    found = task.measures(task.tally(rows))
    assert found["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
    assert task.loss(rows).item() == pytest.approx(loss, rel=1e-5)
    unlabelled = task.rows(answer, None, inputs)
    assert torch.equal(unlabelled.answers, rows.answers)
    shifted = LanguageModeling(shift=False).rows(answer, labels, inputs)
    assert len(shifted) == 7
    with pytest.raises(DataError, match=r"must be \[N, T, vocabulary\]"):
        task.rows(answer[:, 0], labels)


def test_logits_are_found_in_model_outputs_and_nothing_else_is_accepted() -> None:
    logits = torch.randn(2, 3)

    class Answers(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"loss": x.sum(), "logits": x}

    assert torch.equal(Classification().answer(Answers(), logits), logits)
    with pytest.raises(DataError, match=r"shape \(6,\)"):
        Classification().rows(logits.flatten())
    with pytest.raises(DataError, match="answers with 3 values per row, the labels need 7"):
        Classification().check_network(nn.Identity(), logits, 7)
    Classification().check_network(nn.Identity(), logits, 2)
    with pytest.raises(DataError, match="need 2"):
        Regression().check_network(nn.Identity(), logits, 2)


def test_distillation_of_numbers_and_the_loss_it_is_mixed_with() -> None:
    student, teacher = Rows(torch.tensor([[1.0], [2.0]])), Rows(torch.tensor([[0.0], [4.0]]))
    assert Regression().distillation(student, teacher, 4.0).item() == pytest.approx(2.5)
    labelled = Rows(student.answers, torch.tensor([[1.0], [5.0]]))
    assert Regression().loss(labelled).item() == pytest.approx(4.5)


TOKENS = torch.randint(1, 50, (8, 6))
NUMBERS = torch.arange(8) % 2


@pytest.mark.parametrize(
    ("inputs", "labels", "name"),
    [
        (torch.rand(8, 3, 4, 4), NUMBERS, "image_classification"),
        (torch.rand(8, 5), NUMBERS, "classification"),
        (TOKENS, NUMBERS, "text_classification"),
        ({"input_ids": TOKENS}, NUMBERS, "text_classification"),
        ({"input_ids": TOKENS}, TOKENS, "language_modeling"),
        (torch.rand(8, 5), torch.rand(8), "regression"),
        (torch.rand(8, 5), torch.rand(8, 2), "regression"),
        (torch.rand(8, 3, 4, 4), torch.zeros(8, 4, 4, dtype=torch.long), "segmentation"),
    ],
)
def test_the_obvious_is_inferred(inputs: Any, labels: Tensor, name: str) -> None:
    assert tasks.infer(inputs, labels).name == name


def test_what_is_not_obvious_is_asked_for() -> None:
    with pytest.raises(DataError, match=r"no labels do not tell .* task=one of"):
        tasks.infer(TOKENS, None)
    with pytest.raises(DataError, match=r"int64 labels \(8, 3\) do not tell"):
        tasks.infer(torch.rand(8, 5), torch.zeros(8, 3, dtype=torch.long))


class Rounded(Regression):
    """Right answers to the nearest integer."""

    name = "rounded"
    metrics = (Metric("right", "right to an integer", unit="%"),)  # type: ignore[assignment]

    def tally(self, rows: Rows) -> dict[str, Tensor]:
        assert rows.labels is not None
        right = (rows.answers.round() == rows.labels).sum()
        return {**super().tally(rows), "right": right}

    def measures(self, sums: Any) -> dict[str, float]:
        return {
            "right": sums["right"].item() / sums["count"].item(),
            "loss": super().measures(sums)["loss"],
        }


def test_tasks_by_name_path_options_and_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tasks.resolve("auto") is None
    named = tasks.resolve({"name": "regression", "scale": 3, "unit": None})
    assert isinstance(named, Regression)
    assert named.scale == (3.0,)
    path = f"{__name__}.Rounded"
    assert type(tasks.resolve(path)).__qualname__ == "Rounded"
    assert type(tasks.resolve({"_target_": path, "scale": 2})).__qualname__ == "Rounded"
    point = EntryPoint("rounded", f"{__name__}:Rounded", "rlprune.tasks")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    assert type(tasks.resolve("rounded")).__qualname__ == "Rounded"
    with pytest.raises(ConfigError, match="did you mean 'regression'"):
        tasks.resolve("regresion")
    with pytest.raises(ConfigError, match="colour"):
        tasks.resolve({"name": "regression", "colour": 1})
    with pytest.raises(ConfigError, match="expected an rlprune Task"):
        tasks.resolve("builtins.dict")


def test_a_task_of_the_users_own_is_measured() -> None:
    x = torch.tensor([[0.2], [1.4], [2.0], [3.6]])
    found = evaluate(nn.Identity(), (x, torch.tensor([0.0, 1.0, 1.0, 4.0])), task=Rounded())
    assert found["right"] == 0.75
    assert found.count == 4


def test_identity_tells_options_and_own_code_apart() -> None:
    class Other(Rounded):
        def loss(self, rows: Rows, label_smoothing: float = 0.0) -> Tensor:
            return rows.answers.abs().mean()

    found = [Regression(), Regression(scale=2), Rounded(), Other(), LanguageModeling(shift=False)]
    assert len({digest(task) for task in found}) == len(found)
    assert digest(Regression()) == digest(Regression())


def test_metrics_are_shown_in_their_unit_and_direction() -> None:
    share, plain = Metric("a", "accuracy", unit="%"), Metric("p", "perplexity", False)
    assert share.show(0.91234) == "91.23 %"
    assert share.change(0.5, 0.49) == "-1.00 points"
    assert (plain.show(12.3456), plain.change(10, 12.5)) == ("12.35", "+2.5")
    assert (share.score(0.5), plain.score(12.0)) == (0.5, -12.0)
    assert share.worse(0.9, 0.88)
    assert not share.worse(0.9, 0.895)
    assert plain.worse(10.0, 10.2)
    assert not plain.worse(10.0, 9.0)
