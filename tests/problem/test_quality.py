"""Scores mean what they say, and rank candidates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from rlprune.compaction import build
from rlprune.errors import ConfigError, DataError
from rlprune.plan import Plan
from rlprune.problem import KINDS, DataQuality, EvaluatorConfig, ScoreQuality
from rlprune.tasks.base import flat
from tests.problem.problems import digits, evaluator, groups, held_out, network


def scored(kind: str, candidate: nn.Module, **options: object) -> float:
    options = {"statistics": "keep", "precision": "float32", **options}
    return DataQuality(network(), held_out(), kind=kind, **options)(candidate)  # type: ignore[arg-type]


def pruned(keep: float) -> nn.Module:
    return build(groups(), Plan.uniform(groups(), keep)).eval()


@pytest.mark.parametrize(("kind", "best"), [("kl", 0.0), ("logits", 0.0), ("features", 1.0)])
def test_the_dense_network_is_at_no_distance_from_itself(kind: str, best: float) -> None:
    assert scored(kind, network()) == pytest.approx(best, abs=1e-6)


def test_kl_accuracy_and_loss_by_hand() -> None:
    images, labels = held_out()
    small = pruned(0.7)
    with torch.no_grad():
        dense, found = network()(images), small(images)
    target = dense.softmax(1)
    divergence = (target * (dense.log_softmax(1) - found.log_softmax(1))).sum(1).mean()
    right = (found.argmax(1) == labels).double().mean()
    assert scored("kl", small) == pytest.approx(-divergence.item(), rel=1e-4)
    assert scored("accuracy", small) == pytest.approx(right.item())
    assert scored("loss", small) == pytest.approx(
        -functional.cross_entropy(found, labels).item(), rel=1e-5
    )
    assert scored("logits", small) == pytest.approx(
        -((found - dense) ** 2).mean().item() / dense.var().item(), rel=1e-4
    )


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_keeping_more_scores_higher(kind: str) -> None:
    scores = [scored(kind, pruned(keep), statistics="batch") for keep in (0.15, 0.5, 0.9)]
    assert scores == sorted(scores)


def test_batch_statistics_score_better_than_stale_ones() -> None:
    small = pruned(0.4)
    stale, batch = (scored("kl", small, statistics=choice) for choice in ("keep", "batch"))
    recalibrated = scored("kl", small, statistics="recalibrate", calibration=digits())
    assert batch > stale
    assert recalibrated > stale


def test_bfloat16_orders_candidates_as_float32_does() -> None:
    for keep in (0.3, 0.6):
        single, brief = (
            scored("kl", pruned(keep), statistics="batch", precision=precision)
            for precision in ("float32", "bfloat16")
        )
        assert brief == pytest.approx(single, rel=0.05)


def test_scoring_leaves_training_flags_and_statistics_alone() -> None:
    small = pruned(0.5).train()
    before = {key: value.clone() for key, value in small.state_dict().items()}
    scored("kl", small, statistics="batch")
    assert all(part.training for part in small.modules())
    assert all(torch.equal(value, before[key]) for key, value in small.state_dict().items())


def test_batches_are_of_equal_size() -> None:
    images, labels = held_out(101)
    whole = DataQuality(
        network(), (images, labels), batch_size=50, precision="float32", statistics="keep"
    )
    parts = [(part, None) for part in images.split(17)]
    other = DataQuality(network(), parts, precision="float32", statistics="keep")
    assert whole(pruned(0.5)) == pytest.approx(other(pruned(0.5)), rel=1e-5)


def test_outputs_other_than_a_matrix() -> None:
    dense = torch.arange(24.0).reshape(2, 3, 4)
    assert flat(dense, None).answers.shape == (8 - 2, 4)
    by_class = flat(dense, torch.zeros(2, 4)).answers
    assert torch.equal(by_class, dense.movedim(1, -1).reshape(8, 3))
    assert flat(torch.zeros(2, 3, 4, 5), None).answers.shape == (40, 3)
    assert flat(torch.zeros(7), None).answers.shape == (7, 1)


def test_a_network_that_answers_with_a_mapping() -> None:
    class Wrapped(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.inner(x)}

    quality = DataQuality(Wrapped(network()), held_out(), precision="float32", statistics="keep")
    assert quality(Wrapped(pruned(0.5))) == scored("logits", pruned(0.5))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="quality 'f1' is unknown for image"):
        DataQuality(network(), held_out(), kind="f1")
    with pytest.raises(ConfigError, match="statistics 'none' is unknown"):
        DataQuality(network(), held_out(), statistics="none")
    with pytest.raises(DataError, match="'accuracy' needs labels"):
        DataQuality(network(), held_out()[0], kind="accuracy")
    with pytest.raises(DataError, match="needs held-out data"):
        DataQuality(network(), None)
    with pytest.raises(DataError, match="'recalibrate' needs calibration data"):
        DataQuality(network(), held_out(), statistics="recalibrate")
    with pytest.raises(ConfigError, match="needs a linear layer"):
        DataQuality(nn.Conv2d(1, 2, 8), held_out(), kind="features")
    with pytest.raises(ConfigError, match="score must be a function"):
        ScoreQuality(3)  # type: ignore[arg-type]


def test_a_users_score_sees_the_candidate_in_eval_mode() -> None:
    seen: list[bool] = []

    def score(model: nn.Module) -> float:
        seen.append(model.training)
        return 2.0

    problem = evaluator(quality=ScoreQuality(score))
    assert problem.evaluate(problem.space.plan(problem.space.largest)).quality == 2.0
    assert seen == [False]


def test_every_shipped_configuration_is_valid() -> None:
    folder = Path(__file__).parents[2] / "configs" / "evaluator"
    files = sorted(folder.glob("*.yaml"))
    assert files
    for file in files:
        node = yaml.safe_load(file.read_text())
        node["compensation"] = tuple(node.get("compensation", ()))
        EvaluatorConfig(**node)
