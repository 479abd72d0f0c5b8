"""Loads every folder below one with transformers alone and compares its outputs; no rlprune."""

import importlib
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file


def main(root: Path) -> None:
    transformers = importlib.import_module("transformers")
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        tensors = load_file(folder / "expected.tensors")
        expected = tensors.pop("expected")
        names = json.loads((folder / "auto.json").read_text(encoding="utf-8"))
        trusted = (folder / "modeling_pruned.py").is_file()
        for name in names:
            auto = getattr(transformers, name)
            model = auto.from_pretrained(folder, trust_remote_code=trusted).eval()
            if name == "AutoModel":
                continue  # the base alone; that its names and shapes fit is the test
            with torch.no_grad():
                output = model(**tensors)[0]
            assert torch.equal(output, expected), (folder.name, (output - expected).abs().max())
    assert not any(name.startswith("rlprune") for name in sys.modules)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
