"""Train a small GPT-2 on source code, to have something of one's own to analyse and prune.

    python tests/examples/train_code_model.py OUT --steps 3000
    python tests/examples/train_code_model.py OUT --sources DIR --suffix .go --steps 3000

OUT then is a folder as on the Hugging Face hub. Every tenth file is held out; the script ends by
saying the perplexity on those.
"""

from __future__ import annotations

import argparse
import math
import sys
import sysconfig
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def files(folders: list[Path], suffixes: list[str], limit: int) -> list[Path]:
    """Source files below the folders, tests left out; at most ``limit`` bytes of each folder."""
    found: list[Path] = []
    for folder in folders:
        room = limit
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parts
            if path.suffix not in suffixes or any("test" in part for part in parts):
                continue
            if "site-packages" in parts or path.stat().st_size > room:
                continue
            room -= path.stat().st_size
            found.append(path)
    return found


def train_tokenizer(texts: list[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer of the texts that splits numbers into digits."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")


def loss_of(model: Any, rows: Tensor) -> Tensor:
    """Mean negative log-likelihood of the next token, in nats."""
    logits = model(input_ids=rows[:, :-1]).logits
    return cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def main(arguments: list[str]) -> float:
    """Train, save, and return the perplexity on the held-out files."""
    from transformers import GPT2Config, GPT2LMHeadModel

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    parser.add_argument("--sources", type=Path, nargs="+", default=[stdlib])
    parser.add_argument("--suffix", nargs="+", default=[".py"])
    parser.add_argument("--megabytes", type=float, default=6.0, help="at most, of every folder")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=2048)
    options = parser.parse_args(arguments)
    chosen = files(options.sources, options.suffix, int(1e6 * options.megabytes))
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in chosen]
    kept = [text for place, text in enumerate(texts) if place % 10]
    held = texts[::10]
    tokenizer = train_tokenizer(kept, options.vocabulary)
    end = tokenizer.eos_token_id
    train, test = (
        torch.tensor([i for ids in tokenizer(part).input_ids for i in (*ids, end)])
        for part in (kept, held)
    )
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=options.width, n_layer=options.layers,
        n_head=max(1, options.width // 32), n_positions=2 * options.length, bos_token_id=end,
        eos_token_id=end, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, options.steps, pct_start=0.1)
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(options.out)
    (options.out / "held_out.txt").write_text("\n".join(map(str, chosen[::10])) + "\n")
    window = torch.arange(options.length + 1)
    for step in range(options.steps):
        starts = torch.randint(len(train) - options.length - 1, (options.batch, 1))
        loss = loss_of(model, train[starts + window])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            sys.stdout.write(f"step {step}: loss {loss.item():.3f}\n")
            sys.stdout.flush()
        if step % 500 == 499:
            model.save_pretrained(options.out)
    model.save_pretrained(options.out)
    model.eval()
    rows = test[: len(test) // len(window) * len(window)].reshape(-1, len(window))[:64]
    with torch.no_grad():
        perplexity = math.exp(loss_of(model, rows).item())
    sys.stdout.write(
        f"{len(train)} tokens of {len(kept)} files; perplexity {perplexity:.2f} on {len(held)} "
        f"held-out files; saved in {options.out}\n"
    )
    return perplexity


if __name__ == "__main__":
    main(sys.argv[1:])
