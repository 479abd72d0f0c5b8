"""Feed-forward units as memories: triggers, concepts, edits, and what layers would answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlprune
from rlprune.analysis import record
from rlprune.analysis.concepts import auc, concepts
from rlprune.analysis.controls import untrained
from rlprune.analysis.editing import choose, draw, edited, effects, token_losses
from rlprune.analysis.lens import layer_agreement
from rlprune.analysis.memories import (
    agreement,
    concept_map,
    concept_rows,
    contexts,
    overlap,
    predictions,
    unembedding,
)
from rlprune.analysis.tokens import Corpus, Source, read
from rlprune.analysis.windows import top_windows
from rlprune.errors import ConfigError, DataError, StructureError
from rlprune.zoo.transformers_tiny import build


def brute_force(values: np.ndarray, k: int) -> list[list[int]]:
    """Of every column the rows with the largest values, earlier rows first among equals."""
    found = []
    for unit in range(values.shape[1]):
        pairs = sorted(enumerate(values[:, unit].tolist()), key=lambda pair: (-pair[1], pair[0]))
        found.append([row for row, _ in pairs[:k]])
    return found


def test_top_windows_are_those_of_brute_force(
    trained: tuple[Any, Any], programs: list[Source], tmp_path: Path
) -> None:
    model, tokenizer = trained
    corpus = read(programs, tokenizer, length=32, batch_size=1, each=32 * 10)
    top = top_windows(model, corpus.batches, 20)
    recording = record(model, corpus.batches, "ffn", tmp_path)
    for layer, at, values in zip(top.layers, top.rows, top.values, strict=True):
        held = recording[str(layer.site("ffn"))].take(np.arange(len(recording)))
        np.testing.assert_allclose(
            np.take_along_axis(held.T, at.numpy(), 1), values.numpy(), atol=1e-5
        )
        expected = np.sort(held.T, 1)[:, ::-1][:, :20]
        np.testing.assert_allclose(values.numpy(), expected, atol=1e-5)
        same = [a == b for a, b in zip(at.tolist(), brute_force(held, 20), strict=True)]
        assert np.mean(same) > 0.95  # the rest: sums in another order, and all but equal values


def test_batching_and_padding_do_not_matter_to_the_last_bit(
    trained: tuple[Any, Any], programs: list[Source]
) -> None:
    model, tokenizer = trained
    found = []
    for size, side in ((1, "right"), (5, "right"), (8, "left")):
        options: Any = {"length": 48, "batch_size": size, "padding_side": side}
        found.append(top_windows(model, read(programs, tokenizer, each=500, **options).batches, 50))
    for other in found[1:]:
        for a, b in zip(found[0].rows + found[0].values, other.rows + other.values, strict=True):
            assert torch.equal(a, b)


def test_equal_coefficients_stand_in_the_order_of_rows(trained: tuple[Any, Any]) -> None:
    window = torch.arange(20)[None].repeat(6, 1)
    top = top_windows(trained[0], [{"input_ids": window[:2]}, {"input_ids": window[2:]}], 6)
    first = top.rows[0]
    assert (first % 20 == first[:, :1] % 20).all()
    assert torch.equal(first // 20, torch.arange(6).expand_as(first))


def test_gated_units_have_two_sides() -> None:
    torch.manual_seed(0)
    model, _ = build("llama")
    ids = torch.randint(0, 99, (6, 24))
    top = top_windows(model.eval(), [{"input_ids": ids}], 5)
    assert top.rows[0].shape == (2, 96, 5)
    assert (top.values[0][0, :, 0] > 0).all()
    assert (top.values[0][1, :, 0] < 0).all()
    assert (top.values[0].abs().diff(dim=2) <= 0).all()


def test_concepts_by_label_and_by_pattern(trained: tuple[Any, Any], corpus: Corpus) -> None:
    number = concept_rows(corpus, "NUMBER")
    assert 0.002 < number.mean() < 0.2
    texts = [corpus.window(int(row))[1].strip() for row in np.flatnonzero(number)]
    assert all(re.fullmatch(r"[0-9a-fA-FxXobjeJ._]+", text) for text in texts)
    returned = concept_rows(corpus, r"/return \w+/")
    assert all("return " in "".join(corpus.window(int(r))[:2]) for r in np.flatnonzero(returned))
    top = top_windows(trained[0], corpus.batches, 20)
    maps = [concept_map(top, name, concept_rows(corpus, name)) for name in ("NAME", "OPERATOR")]
    for found in maps:
        assert sum(map(len, found.holders)) > 0
        assert max(found.lift) > 1
    layer = next(i for i, units in enumerate(maps[0].holders) if units)
    unit = maps[0].holders[layer][0]
    hits = concept_rows(corpus, "NAME")[top.rows[layer][unit].numpy()]
    assert hits.mean() >= 0.5
    shared, chance = overlap(maps[0], maps[1], top)
    assert shared <= sum(map(len, maps[0].holders))
    assert chance > 0
    context = contexts(corpus, 3)
    same = np.flatnonzero(context == context[500])
    assert {tuple(corpus.ids[max(0, r - 2) : r + 1]) for r in same} == {tuple(corpus.ids[498:501])}
    once = concept_map(top, "NUMBER", number, number.astype(np.int64))
    assert sum(map(len, once.holders)) == 0  # one witness proves nothing
    shuffled = np.random.default_rng(0).permutation(concept_rows(corpus, "NUMBER"))
    assert sum(map(len, concept_map(top, "noise", shuffled).holders)) == 0
    with pytest.raises(ConfigError, match="no token"):
        concept_rows(corpus, "WALRUS")


def test_values_vote_for_tokens(trained: tuple[Any, Any], corpus: Corpus) -> None:
    model = trained[0]
    top = top_windows(model, corpus.batches, 5)
    ids, sizes = predictions(model, top.layers[1].down, 3)
    value = model.transformer.h[1].mlp.c_proj.weight.detach()[7]
    logits = unembedding(model) @ value
    assert ids[7].tolist() == logits.topk(3).indices.tolist()
    torch.testing.assert_close(sizes[7], logits.topk(3).values)
    shares = agreement(model, top, corpus)
    assert len(shares) == 3
    assert all(0 <= real <= 1 and 0 <= chance <= 1 for real, chance in shares)


def test_an_edit_is_the_masked_plan_and_leaves_nothing_behind(
    trained: tuple[Any, Any], corpus: Corpus
) -> None:
    model = trained[0]
    ids = corpus.batches[0][0]["input_ids"][:2, :20]
    before = model(input_ids=ids).logits
    state = {name: value.clone() for name, value in model.state_dict().items()}
    few = corpus.batches[:6]
    count = sum(int(batch["attention_mask"].sum()) for batch, _ in few)
    concept, others, moments = effects(model, few, concept_rows(corpus, "NAME")[:count])
    edit = choose(concept, others, 0.05)
    assert edit.count == int(0.05 * 384)
    with edited(model, edit):
        inside = model(input_ids=ids).logits
        with pytest.raises(RuntimeError), edited(model, edit):
            model(input_ids=ids.float())
    assert not torch.equal(inside, before)
    assert torch.equal(model(input_ids=ids).logits, before)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    groups = rlprune.discover(model, {"input_ids": ids})
    masked = rlprune.mask(model, {"input_ids": ids}, edit.plan(groups))
    torch.testing.assert_close(masked(input_ids=ids).logits, inside, rtol=1e-5, atol=1e-5)
    with edited(model, edit.within(moments, 1e6)):
        torch.testing.assert_close(model(input_ids=ids).logits, inside)
    with edited(model, edit.within(moments, 0.0)):
        torch.testing.assert_close(model(input_ids=ids).logits, before)


def test_first_order_effects_and_losses(trained: tuple[Any, Any], corpus: Corpus) -> None:
    model = trained[0]
    batches = corpus.batches[:3]
    count = sum(int(batch["attention_mask"].sum()) for batch, _ in batches)
    wanted = concept_rows(corpus, "NAME")[:count]
    losses = token_losses(model, batches)
    assert len(losses) == count
    inputs = batches[0][0]
    own = model(**inputs).logits[0].log_softmax(-1)
    length = int(inputs["attention_mask"][0].sum())
    expected = -own[torch.arange(length - 1), inputs["input_ids"][0, 1:length]]
    torch.testing.assert_close(losses[1:length], expected.detach(), rtol=1e-4, atol=1e-4)
    assert torch.isnan(losses[0])
    concept, others, _ = effects(model, batches, wanted)
    site, unit = "transformer.h.1.mlp.c_proj@input", 5
    unit = int(concept[site].abs().argmax())
    module = model.transformer.h[1].mlp.c_proj
    kept = module.weight.detach().clone()
    with torch.no_grad():
        module.weight[unit] *= 1 - 1e-2
        changed = token_losses(model, batches) - losses
        module.weight.copy_(kept)
    told = ~torch.isnan(changed)
    rows = torch.from_numpy(wanted)
    for effect, part in ((concept, rows & told), (others, ~rows & told)):
        slope = changed[part].double().mean() / 1e-2
        assert float(slope) == pytest.approx(float(effect[site][unit]), rel=0.1, abs=2e-4)


def test_chosen_keys_hurt_the_concept_more_than_random_ones(
    trained: tuple[Any, Any], corpus: Corpus
) -> None:
    model = trained[0]
    half = len(corpus.batches) // 2
    split = sum(int(batch["attention_mask"].sum()) for batch, _ in corpus.batches[:half])
    wanted = concept_rows(corpus, "NAME")
    concept, others, _ = effects(model, corpus.batches[:half], wanted[:split])
    test = corpus.batches[half:]
    before = token_losses(model, test)
    rises = []
    edit = choose(concept, others, 0.03)
    for one in (edit, draw(concept, edit.count, 0), draw(concept, edit.count, 1)):
        with edited(model, one):
            after = token_losses(model, test)
        rises.append(float((after - before)[torch.from_numpy(wanted[split:])].nanmean()))
    assert rises[0] > 3 * max(rises[1], rises[2], 0.0)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_the_last_layer_agrees_with_the_answer(name: str) -> None:
    torch.manual_seed(0)
    model, _ = build(name)
    ids = torch.randint(0, 99, (8, 30))
    found = layer_agreement(model.eval(), [{"input_ids": ids}], contexts=(2, 8, 16), positions=10)
    assert found.share[-1] == 1.0
    assert len(found.share) == len(found.layers) == 2
    assert [shares[-1] for shares in found.by_context] == [1.0, 1.0, 1.0]
    assert all(1 <= depth <= 2 for depth in found.settled)
    with pytest.raises(StructureError, match="head"):
        layer_agreement(build("bert")[0].eval(), [{"input_ids": ids}])
    with pytest.raises(DataError, match="input_ids"):
        layer_agreement(model, [ids])


def test_single_neurons_and_concepts(
    trained: tuple[Any, Any], corpus: Corpus, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    x, positive = np.round(generator.normal(size=(200, 3)), 1), generator.random(200) < 0.3
    pairs = x[positive][:, None] - x[~positive][None]
    np.testing.assert_allclose(
        auc(x, positive), ((pairs > 0) + 0.5 * (pairs == 0)).mean((0, 1)), atol=1e-12
    )
    recording = record(trained[0], corpus.batches, "residual", tmp_path / "a")
    blank = record(untrained(trained[0]), corpus.batches, "residual", tmp_path / "b")
    found = {c.name: c for c in concepts(recording, corpus.words(), untrained=blank)}
    assert {"NAME", "parameter"} <= set(found)
    name = found["NAME"]
    assert name.auc > 0.65
    assert 0.3 < name.control < 0.9
    assert name.untrained is not None
    assert name.count >= len(name.members)
    assert len(name.words) > 3
    assert recording.means(np.array([3]), np.array([5]))[0] == pytest.approx(
        recording.take([3, 4, 5]).mean(0), abs=1e-6
    )
    # told again from scratch
    again = {c.name: c for c in concepts(recording, corpus.words(), ["parameter"])}
    assert again["parameter"].auc == found["parameter"].auc
