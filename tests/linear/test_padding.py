"""Padding leaves no trace in the moments of inputs, in fits, or in probes of the answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rlprune import Groups, discover
from rlprune.linear.fits import prepare
from rlprune.linear.moments import InputMoments
from rlprune.observe.probes import probe
from rlprune.zoo.transformers_tiny import build

pytest.importorskip("transformers")

POOLED = ("bert.pooler.dense.weight", "classifier.weight")
"""They read one position of a sample."""


def padded(length: int = 10, kept: int = 7) -> list[tuple[dict[str, Any], None]]:
    ids = torch.randint(2, 99, (6, length), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros_like(ids)
    mask[:, :kept] = 1
    return [({"input_ids": ids, "attention_mask": mask}, None)]


def cut(batches: list[tuple[dict[str, Any], None]], kept: int = 7) -> Any:
    return [({k: v[:, :kept] for k, v in inputs.items()}, None) for inputs, _ in batches]


@pytest.fixture(scope="module", params=["bert", "llama"])
def groups(request: pytest.FixtureRequest) -> Groups:
    torch.manual_seed(0)
    network, inputs = build(request.param)
    return discover(network.eval(), inputs)


def test_moments_are_those_of_sequences_without_padding(groups: Groups) -> None:
    batches = padded()
    long, short = InputMoments(groups, batches), InputMoments(groups, cut(batches))
    assert set(long.found) == set(short.found)
    assert long.found
    for name, found in long.found.items():
        assert found.rows == ([3, 3] if name in POOLED else [21, 21])
        torch.testing.assert_close(
            found.mean(0, 1), short.found[name].mean(0, 1), rtol=1e-4, atol=1e-6
        )
    blind = InputMoments(groups, [(drop_mask(inputs), None) for inputs, _ in batches])
    name = next(iter(long.found))
    assert not torch.allclose(blind.found[name].mean(0), long.found[name].mean(0), rtol=1e-2)


def drop_mask(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"input_ids": inputs["input_ids"]}


def test_few_rows_are_drawn_from_what_counts(groups: Groups) -> None:
    found = InputMoments(groups, padded(40, 20) * 12, rows=1, limit=64).found
    for moments in found.values():
        wanted = 16 * moments.consumer.inputs
        if moments.consumer.name not in POOLED:
            assert 0.6 * wanted < sum(moments.rows) < min(1.5 * wanted, 72 * 20)


def test_fits_and_probes_do_not_depend_on_what_padding_holds(groups: Groups) -> None:
    batches = padded()
    other = [({**inputs, "input_ids": inputs["input_ids"].clone()}, None) for inputs, _ in batches]
    other[0][0]["input_ids"][:, 7:] = 5
    fits, same = (prepare(groups, data).fits for data in (batches, other))
    for name, fit in fits.items():
        torch.testing.assert_close(fit.gram, same[name].gram, rtol=1e-4, atol=1e-6)
    layer = next(
        name for name, module in groups.model.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(("query", "q_proj"))
    )  # fmt: skip
    gradients = [next(probe(groups.model, data, [layer]))[1][layer][0].gradient[:, :7]
                 for data in (batches, other)]  # fmt: skip
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
