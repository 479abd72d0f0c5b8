"""Torch-Pruning beside rlprune: the same networks at the same keep ratio (optional)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.zoo.networks import create


def cover(name: str, keep: float) -> dict[str, Any]:
    """Prune one network with Torch-Pruning in this process.

    Returns:
        kept (fraction of parameters), graph_s, prune_ms; or failure.
    """
    import torch_pruning as tp  # type: ignore[import-untyped, import-not-found, unused-ignore]

    try:
        model, inputs = create(name)
        model = model.float()
        if isinstance(inputs, Tensor):
            inputs = inputs.float()
        total = sum(p.numel() for p in model.parameters())
        last = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
        heads = {m: m.num_heads for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
        start = time.process_time()
        pruner = tp.pruner.MagnitudePruner(
            model,
            inputs,
            importance=tp.importance.MagnitudeImportance(p=1),
            pruning_ratio=1 - keep,
            ignored_layers=[last],
            num_heads=heads,
        )
        graph = time.process_time() - start
        start = time.process_time()
        pruner.step()
        seconds = time.process_time() - start
        with torch.no_grad():
            model(inputs)
    except Exception as error:
        return {"failure": f"{type(error).__name__}: {error}"[:300]}
    kept = sum(p.numel() for p in model.parameters()) / total
    return {"kept": kept, "graph_s": graph, "prune_ms": seconds * 1e3}


def cover_apart(name: str, keep: float, timeout: float, memory_gb: float) -> dict[str, Any]:
    """`cover` in a process of its own, stopped when it takes too long or too much memory."""
    code = (
        "import json, resource, sys\n"
        f"limit = int({memory_gb} * 2**30)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "from rlprune.zoo.peer import cover\n"
        f"print('RESULT' + json.dumps(cover({name!r}, {keep})))\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"stopped after {timeout:.0f} s"}
    for line in done.stdout.splitlines():
        if line.startswith("RESULT"):
            result: dict[str, Any] = json.loads(line.removeprefix("RESULT"))
            return result
    tail = done.stderr.strip().splitlines()[-1:] or ["no message"]
    return {"failure": f"ended with code {done.returncode}: {tail[0]}"[:300]}
