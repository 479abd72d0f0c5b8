"""A pruned decoder writes what its masked twin writes, whatever attention and cache."""

from __future__ import annotations

import pytest
import torch

from rlprune import hf
from rlprune.compaction import build, discover
from rlprune.compaction.build import mask_in_place
from rlprune.plan import Plan
from rlprune.structure.twin import copied
from rlprune.zoo import transformers_tiny

pytest.importorskip("transformers")


@pytest.mark.parametrize(
    ("name", "attention", "dropped"),
    [
        ("llama", "eager", ()), ("llama", "sdpa", ()), ("mixtral", "eager", ()),
        ("gpt2", "sdpa", ()), ("bart", "sdpa", ()),
        ("llama", "sdpa", ("model.layers.0.self_attn",)),
        ("gpt2", "sdpa", ("transformer.h.0.attn", "transformer.h.0.mlp")),
    ],
)  # fmt: skip
def test_the_same_tokens_as_the_masked_twin(
    name: str, attention: str, dropped: tuple[str, ...]
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs = transformers_tiny.build(name, attention)
        for parameter in model.double().eval().parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    groups = discover(model, inputs)
    generator = torch.Generator().manual_seed(2)
    scores = {g.name: torch.rand(g.width, generator=generator) for g in groups.prunable}
    uneven = [max(1, g.width * (2 + at % 2) // 4) for at, g in enumerate(groups.prunable)]
    plan = Plan.from_widths(groups, uneven, scores).drop(groups, dropped)
    masked = copied(model, {})
    mask_in_place(groups, masked, plan)
    small = hf.follow(build(groups, plan))
    prompt = {k: inputs[k].flip(1) for k in ("input_ids", "attention_mask")}  # padded on the left
    written = {}
    for cache in ("dynamic", "static"):
        for label, network in (("masked", masked), ("small", small)):
            written[cache, label] = network.generate(
                **prompt, max_new_tokens=6, min_new_tokens=6, do_sample=False, num_beams=1,
                pad_token_id=0, cache_implementation=cache, disable_compile=True,
            )  # fmt: skip
    first = written["dynamic", "masked"]
    assert first.unique().numel() > 2
    assert all(torch.equal(first, other) for other in written.values())
