"""A smaller vocabulary: the same pieces and the same answers, for every way of segmenting."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlprune import hf
from rlprune.cli import main
from rlprune.errors import ConfigError, DataError

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

from tokenizers import (  # noqa: E402  # noqa: E402, I001
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

LIBRARY = Path(json.__file__).parent  # real text: Python's own sources
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
UNSEEN = ["Ünïcödé 漢字 \U0001f600 zqxj", "\t \n", "a" * 300, "\x00\x07", "qqqqzzzz 9 != 8"]


def text(*names: str) -> list[str]:
    lines = [line for n in names for line in (LIBRARY / n).read_text("utf-8").splitlines()]
    return [line for line in lines if line.strip()]


TRAINING = text("decoder.py", "encoder.py", "scanner.py", "__init__.py")
CORPUS = text("tool.py", "scanner.py")


def trained(tokenizer: Tokenizer, trainer: Any) -> Tokenizer:
    tokenizer.train_from_iterator(TRAINING, trainer)
    first, last = (tokenizer.token_to_id(t) for t in ("<s>", "</s>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", first), ("</s>", last)]
    )
    return tokenizer


def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=SPECIAL, show_progress=False)
    return trained(tokenizer, trainer)


def byte_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return trained(
        tokenizer,
        trainers.BpeTrainer(
            vocab_size=700, special_tokens=SPECIAL, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )  # fmt: skip


def fallback_bpe() -> Tokenizer:
    """As Llama 2's: words joined by a mark, unknown characters as bytes, no pre-tokenizer."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    unseen = [f"<0x{code:02X}>" for code in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIAL + unseen, show_progress=False, max_token_length=12
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trained(tokenizer, trainer)
    content = json.loads(tokenizer.to_str())
    content["pre_tokenizer"] = None
    content["added_tokens"] = content["added_tokens"][: len(SPECIAL)]
    return Tokenizer.from_str(json.dumps(content))


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return trained(
        tokenizer,
        trainers.UnigramTrainer(
            vocab_size=400, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
        ),
    )


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "wordpiece": wordpiece, "byte bpe": byte_bpe, "fallback bpe": fallback_bpe, "unigram": unigram,
}  # fmt: skip


def fast(tokenizer: Tokenizer) -> Any:
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        pad_token="<pad>",
    )  # fmt: skip


def network(name: str, size: int) -> Any:
    common = {
        "vocab_size": size, "pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2,
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 48, "max_position_embeddings": 512,
    }  # fmt: skip
    bart = {
        "vocab_size": size, "pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2,
        "decoder_start_token_id": 2, "forced_eos_token_id": 2, "d_model": 32,
        "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    }  # fmt: skip
    kinds = {
        "tied head with bias": (transformers.BertForMaskedLM, transformers.BertConfig, common),
        "untied head": (
            transformers.LlamaForCausalLM,
            transformers.LlamaConfig,
            common | {"tie_word_embeddings": False},
        ),
        "positions from padding": (
            transformers.RobertaForMaskedLM,
            transformers.RobertaConfig,
            common,
        ),
        "encoder and decoder": (
            transformers.BartForConditionalGeneration,
            transformers.BartConfig,
            bart,
        ),
    }
    kind, config, options = kinds[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config(**options)).double().eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        for name, tensor in model.named_buffers():
            if name.endswith("logits_bias"):
                tensor.normal_()
    return model


CASES = [
    ("wordpiece", "tied head with bias"), ("byte bpe", "untied head"),
    ("fallback bpe", "untied head"), ("unigram", "encoder and decoder"),
    ("byte bpe", "positions from padding"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=", ".join)
def test_pieces_and_answers_are_the_same_for_every_line(
    case: tuple[str, str], tmp_path: Path
) -> None:
    tokenizer = fast(KINDS[case[0]]())
    size = len(tokenizer)
    model = network(case[1], size)
    before = copy.deepcopy(model.state_dict())
    state = tokenizer.backend_tokenizer.to_str()
    small, shorter, kept = hf.trim_vocabulary(model, tokenizer, CORPUS)
    assert tokenizer.backend_tokenizer.to_str() == state
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert model.config.vocab_size == size
    assert len(shorter) == len(kept) == small.config.vocab_size < 0.95 * size
    hf.save(small, tmp_path, shorter)
    loaded, again = hf.load(tmp_path)
    for token in ("unk_token", "bos_token", "eos_token", "pad_token"):
        assert kept[getattr(again, f"{token}_id")] == getattr(tokenizer, f"{token}_id")
    for line in CORPUS:
        new = shorter(line)["input_ids"]
        assert kept[torch.tensor(new)].tolist() == tokenizer(line)["input_ids"]
        assert again(line)["input_ids"] == new
    dense = tokenizer(CORPUS[:12], padding=True, return_tensors="pt")
    short = again(CORPUS[:12], padding=True, return_tensors="pt")
    keys = ("input_ids", "attention_mask")
    with torch.no_grad():
        want = model(**{k: dense[k] for k in keys}).logits[..., kept]
        got = loaded(**{k: short[k] for k in keys}).logits
    assert (want - got).abs().max() <= 1e-12 * want.abs().max()
    for line in UNSEEN:
        ids = again(line)["input_ids"]
        assert max(ids) < len(kept)
        if "bpe" in case[0]:
            assert again.unk_token_id not in ids


def test_special_ids_follow_in_every_configuration() -> None:
    tokenizer = fast(byte_bpe())
    size = len(tokenizer)
    model = network("encoder and decoder", size)
    last = size - 1
    model.generation_config.suppress_tokens = [5, last]
    model.generation_config.eos_token_id = [2, last]
    model.generation_config.pad_token_id = 3
    small, _, kept = hf.trim_vocabulary(model, tokenizer, CORPUS[:3])
    new = {old: at for at, old in enumerate(kept.tolist())}
    assert last in new
    assert small.generation_config.eos_token_id == [2, new[last]]
    assert small.generation_config.suppress_tokens == [new[i] for i in (5, last) if i in new]
    assert small.config.decoder_start_token_id == new[2]
    assert small.model.shared.padding_idx == new[3]
    assert small.model.shared.num_embeddings == small.lm_head.out_features == len(kept)
    assert small.lm_head.weight is small.model.shared.weight
    assert small.final_logits_bias.shape == (1, len(kept))
    assert model.generation_config.eos_token_id == [2, last]


def test_rare_tokens_go_and_their_words_fall_apart() -> None:
    tokenizer = fast(byte_bpe())
    model = network("untied head", len(tokenizer))
    sizes = [len(hf.trim_vocabulary(model, tokenizer, CORPUS, n)[2]) for n in (1, 3, 1000)]
    assert sizes[0] > sizes[1] > sizes[2] >= 256 + len(SPECIAL)
    _, shorter, _ = hf.trim_vocabulary(model, tokenizer, CORPUS, 1000)
    for line in CORPUS:
        assert shorter.decode(shorter(line)["input_ids"], skip_special_tokens=True) == line


def test_a_word_that_wordpiece_does_not_know_stays_unknown() -> None:
    pieces = ["[UNK]", "a", "ab", "##bc", "##c", "c"]
    inner = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    # "abc" takes "ab" and then finds no end: without "ab" it would become "a", "##bc"
    content = json.loads(inner.to_str())
    del content["model"]["vocab"]["##c"]
    content["model"]["vocab"]["c"] = 4
    inner = Tokenizer.from_str(json.dumps(content))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")
    assert tokenizer.tokenize("abc") == ["[UNK]"]
    model = network("untied head", 8)
    _, shorter, _ = hf.trim_vocabulary(model, tokenizer, ["abc"])
    assert shorter.tokenize("abc") == ["[UNK]"]


def test_the_command_makes_a_folder_of_the_same_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = fast(byte_bpe())
    hf.save(network("untied head", len(tokenizer)).float(), tmp_path / "dense", tokenizer)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(CORPUS), encoding="utf-8")
    out = tmp_path / "small"
    command = ["rlprune", "vocab", f"model.path={tmp_path / 'dense'}", f"corpus={corpus}"]
    monkeypatch.setattr(sys, "argv", [*command, f"out={out}"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert "tokens" in capsys.readouterr().out
    model, shorter = hf.load(out)
    assert model.config.vocab_size == len(shorter) < len(tokenizer)
    # line ends and what follows them are tokens of a file, too
    whole = corpus.read_text(encoding="utf-8")
    pieces = [tokenizer.tokenize(whole), shorter.tokenize(whole)]
    assert pieces[0] == pieces[1]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "out= is missing" in capsys.readouterr().err


def test_what_cannot_be_trimmed_says_why(tmp_path: Path) -> None:
    tokenizer = fast(byte_bpe())
    model = network("untied head", len(tokenizer))
    with pytest.raises(DataError, match="no file"):
        hf.trim_vocabulary(model, tokenizer, tmp_path / "nowhere.txt")
    with pytest.raises(DataError, match="no line"):
        hf.trim_vocabulary(model, tokenizer, [])
    for count in (0, "2", 1.5, True):
        with pytest.raises(ConfigError, match="min_count"):
            hf.trim_vocabulary(model, tokenizer, CORPUS, count)  # type: ignore[arg-type]
    for corpus in (3, b"x", {"a": 1}):
        with pytest.raises(DataError, match="give a text file, or strings"):
            hf.trim_vocabulary(model, tokenizer, corpus)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="rows"):
        hf.trim_vocabulary(network("untied head", 300), tokenizer, CORPUS)
