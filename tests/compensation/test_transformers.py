"""Refits of transformers: over heads, key-value groups and neurons, per token, without padding."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlprune import Groups, Plan, discover
from rlprune.compaction import build
from rlprune.compensation import LeastSquares, SequentialLeastSquares, compensate
from rlprune.compensation.sequential.samples import joined
from rlprune.observe import Watch
from rlprune.zoo import transformers_tiny

pytest.importorskip("transformers")


def tokens(*lengths: int, seed: int = 0, length: int = 24) -> dict[str, Tensor]:
    """Sequences of some lengths, padded with whatever the seed brings."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, 99, (len(lengths), length), generator=torch.Generator().manual_seed(9))
    mask = (torch.arange(length) < torch.tensor(lengths)[:, None]).long()
    junk = torch.randint(2, 99, ids.shape, generator=draw)
    return {"input_ids": torch.where(mask > 0, ids, junk), "attention_mask": mask}


@pytest.fixture(params=["bert", "llama"])
def groups(request: pytest.FixtureRequest) -> Groups:
    """A network with the widely spread activations of trained ones."""
    torch.manual_seed(0)
    network, inputs = transformers_tiny.build(request.param)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1 and "embed" not in name:
                parameter.mul_(4)
    return discover(network.eval(), inputs)


def refitted(groups: Groups, methods: Any, *batches: dict[str, Tensor]) -> nn.Module:
    plan = Plan.uniform(groups, 0.5)
    calibration = [(inputs, None) for inputs in batches]
    return compensate(groups, plan, build(groups, plan).eval(), methods, calibration)


def error(groups: Groups, small: nn.Module, inputs: dict[str, Tensor]) -> float:
    """Squared error of the answers at tokens, in units of their variance."""
    with torch.no_grad():
        wanted, found = groups.model(**inputs).logits, small(**inputs).logits
    if wanted.ndim == 3:
        kept = inputs["attention_mask"].bool()
        wanted, found = wanted[kept], found[kept]
    return float((found - wanted).square().mean() / wanted.var())


LENGTHS = tuple(8 + (7 * k) % 17 for k in range(96))


def test_refits_bring_answers_nearer_and_in_turn_nearest(groups: Groups) -> None:
    shown, unseen = tokens(*LENGTHS), tokens(*LENGTHS[:16], seed=3)
    unseen["input_ids"] = unseen["input_ids"].flip(1).contiguous()
    unseen["attention_mask"][:] = 1
    plain, least, both = (
        error(groups, refitted(groups, methods, shown), unseen)
        for methods in (None, "least_squares", ["least_squares", "sequential"])
    )
    assert least < 0.9 * plain
    assert both < 0.9 * least


@pytest.mark.parametrize("method", ["least_squares", "sequential"])
def test_what_padding_holds_changes_no_weight(groups: Groups, method: str) -> None:
    one, other = (refitted(groups, method, tokens(*LENGTHS, seed=seed)) for seed in (1, 2))
    plain = refitted(groups, None, tokens(*LENGTHS)).state_dict()
    changed = 0
    for name, weight in one.state_dict().items():
        torch.testing.assert_close(weight, other.state_dict()[name], rtol=1e-3, atol=1e-4)
        changed += not torch.equal(weight, plain[name])
    assert changed >= 4, "nothing was refitted"


def test_batches_of_different_lengths_are_fitted_together(groups: Groups) -> None:
    short, long = tokens(*LENGTHS[:16], length=24), tokens(*LENGTHS[16:32], length=30)
    together = joined([(short, None), (long, None)], 100)
    assert together["input_ids"].shape == (32, 30)
    assert torch.equal(together["attention_mask"][:16, 24:], torch.zeros(16, 6, dtype=torch.long))
    with torch.no_grad():
        wanted = groups.model(**short).logits
        found = groups.model(**{k: v[:16] for k, v in together.items()}).logits
    kept = short["attention_mask"].bool() if wanted.ndim == 3 else slice(None)
    found = found[:, :24] if wanted.ndim == 3 else found
    torch.testing.assert_close(found[kept], wanted[kept], rtol=1e-3, atol=1e-4)


def test_the_second_half_of_doubled_neurons_is_taken_over() -> None:
    torch.manual_seed(0)
    network, inputs = transformers_tiny.build("llama")
    with torch.no_grad():
        for layer in network.model.layers:
            for part in (layer.mlp.gate_proj, layer.mlp.up_proj):
                part.weight[48:] = part.weight[:48]
    groups = discover(network.eval(), inputs)
    keep = {
        group.name: tuple(range(48)) if group.width == 96 else tuple(range(group.width))
        for group in groups.prunable
    }
    plan = Plan(keep, {group.name: group.width for group in groups.prunable})
    shown = tokens(*LENGTHS, length=30)
    for method in (LeastSquares(ridge=0), SequentialLeastSquares()):
        small = build(groups, plan).eval()
        assert error(groups, copy.deepcopy(small), shown) > 1e-3
        compensate(groups, plan, small, method, [(shown, None)])
        assert error(groups, small, shown) < 1e-6, method


def test_a_tied_vocabulary_head_is_neither_refitted_nor_run_on_all_samples() -> None:
    torch.manual_seed(0)
    network, inputs = transformers_tiny.build("gpt2")
    groups = discover(network.eval(), inputs)
    sizes: list[int] = []
    watch = Watch(network)
    watch.module("lm_head", before=lambda call: sizes.append(len(call.args[0])))
    method = SequentialLeastSquares()
    with watch:
        small = refitted(groups, method, tokens(*LENGTHS))
    assert method.errors
    assert method.left_out == {"lm_head": "several modules share its weight"}
    assert torch.equal(small.lm_head.weight, network.lm_head.weight)
    assert max(sizes) <= 8
