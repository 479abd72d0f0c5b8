from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rlprune import models
from rlprune.errors import CheckpointError


@pytest.fixture
def trained():
    model = models.create("digits_cnn", seed=0)
    model.train()(torch.randn(8, 1, 8, 8))
    return model


def fresh():
    return models.create("digits_cnn", seed=9)


def equal(left, right):
    a, b = left.state_dict(), right.state_dict()
    return all(torch.equal(a[key], b[key]) for key in a)


def test_save_and_load(trained, tmp_path):
    path = models.save_weights(trained, tmp_path / "deep" / "model.safetensors")
    assert equal(models.load_checkpoint(fresh(), path), trained)
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_half_precision_without_batch_counters(trained, tmp_path):
    state = {
        k: v.half()
        for k, v in trained.state_dict().items()
        if not k.endswith("num_batches_tracked")
    }
    save_file(state, tmp_path / "half.safetensors")
    model = models.load_checkpoint(fresh(), tmp_path / "half.safetensors")
    assert model.fc.weight.dtype == torch.float32
    assert torch.equal(model.fc.weight, trained.fc.weight.half().float())
    assert int(model.stem[1].num_batches_tracked) == 0


@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_torch_files_bare_wrapped_and_prefixed(trained, tmp_path, prefix, wrapper):
    state = {prefix + k: v for k, v in trained.state_dict().items()}
    content = state if wrapper is None else {wrapper: state, "epoch": 3}
    torch.save(content, tmp_path / "model.pt")
    assert equal(models.load_checkpoint(fresh(), tmp_path / "model.pt"), trained)


def broken(change, trained, path: Path):
    state = trained.state_dict()
    change(state)
    torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("fc.bias"), "1 keys missing: fc.bias"),
        (lambda s: s.update(head=torch.zeros(2)), "1 keys unexpected: head"),
        (
            lambda s: s.update({"fc.bias": torch.zeros(4)}),
            r"fc.bias \(4,\), the model's is \(10,\)",
        ),
        (lambda s: s["fc.bias"].fill_(float("nan")), "NaN or infinite values: fc.bias"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_copied(trained, tmp_path, change, message):
    model = fresh()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        models.load_checkpoint(model, broken(change, trained, tmp_path / "broken.pt"))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_pickled_objects_are_refused(trained, tmp_path):
    torch.save(trained, tmp_path / "object.pt")
    with pytest.raises(CheckpointError, match="weights_only"):
        models.load_checkpoint(fresh(), tmp_path / "object.pt")


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(CheckpointError, match="not a file"):
        models.load_checkpoint(fresh(), tmp_path / "nothing.pt")
    for name in ("text.pt", "text.safetensors"):
        (tmp_path / name).write_text("no weights")
        with pytest.raises(CheckpointError, match=name):
            models.load_checkpoint(fresh(), tmp_path / name)
