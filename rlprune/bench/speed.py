"""``rlprune bench speed``: latency of compacted networks beside their MACs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlprune.bench.workbench import environment
from rlprune.budgets import LatencyMeter, LatencySettings, count_macs, count_params
from rlprune.errors import ConfigError
from rlprune.files import require_json, write_json, write_text
from rlprune.inputs import batch_of, map_tensors
from rlprune.progress import track
from rlprune.report import markdown
from rlprune.run import RUN_FILE, load, load_example

PRECISIONS = ("float32", "bfloat16")


class Cast(nn.Module):
    """A network under bfloat16 autocast.

    Args:
        network: The network.
        device_type: Where it runs.
    """

    def __init__(self, network: nn.Module, device_type: str) -> None:
        super().__init__()
        self.network = network
        self.device_type = device_type

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's answer."""
        with torch.autocast(self.device_type, dtype=torch.bfloat16):
            return self.network(*args, **kwargs)


def run(config: Mapping[str, Any]) -> list[Path]:
    """Time the compacted network of every run folder against its dense network.

    Args:
        config: The composed configuration; ``bench`` as in ``configs/bench/speed.yaml``.

    Returns:
        ``speed.md`` and ``speed.json``.

    Raises:
        ConfigError: There is no run folder, or a setting is unknown.
        CheckpointError: A folder holds no finished run, or does not say how its network is built.
    """
    options = config["bench"]
    if not options["runs"]:
        raise ConfigError("give the run folders to time: bench.runs=[outputs/...]")
    wrong = [name for name in options["precisions"] if name not in PRECISIONS]
    if wrong:
        raise ConfigError(f"bench.precisions: {wrong[0]!r} is none of {', '.join(PRECISIONS)}")
    rows = [row for folder in options["runs"] for row in time_run(Path(folder), options)]
    out = Path(options["out"]).expanduser()
    about = environment()
    write_json(out / "speed.json", {"rows": rows, "environment": about})
    write_text(out / "speed.md", _markdown(rows, about))
    return [out / "speed.md", out / "speed.json"]


def time_run(folder: Path, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Latencies of one run's network, dense and compacted timed in turn.

    Args:
        folder: The run folder.
        options: Batch sizes, threads, precisions, memory layout and repeats.

    Returns:
        One row per combination.
    """
    small, dense, inputs = networks(folder, trust=bool(options["trust"]))
    shares = {
        "macs": count_macs(small, inputs) / count_macs(dense, inputs),
        "params": count_params(small) / count_params(dense),
    }
    if options["channels_last"]:
        dense, small = (_last(network) for network in (dense, small))
    settings = [
        (precision, threads, batch)
        for precision in options["precisions"]
        for threads in options["threads"]
        for batch in options["batch_sizes"]
    ]
    rows = []
    for precision, threads, batch in track(settings, f"Timing {folder.name}"):
        many = batch_of(inputs, int(batch))
        if options["channels_last"]:
            many = map_tensors(many, _last_tensor)
        pair = (dense, small)
        if precision == "bfloat16":
            pair = (Cast(dense, "cpu"), Cast(small, "cpu"))
        meter = LatencyMeter(
            pair[0],
            many,
            LatencySettings(
                batch_size=int(batch), threads=int(threads), repeats=int(options["repeats"])
            ),
        )
        ratios = sorted(meter.ratios(pair[1]))
        share = statistics.median(ratios)
        rows.append(
            {
                "run": folder.name,
                "precision": precision,
                "threads": int(threads),
                "batch_size": int(batch),
                "dense_ms": meter.reference_ms,
                "pruned_ms": meter.reference_ms * share,
                "latency_share": share,
                "quartiles": [ratios[len(ratios) // 4], ratios[(3 * len(ratios)) // 4]],
                "macs_share": shares["macs"],
                "params_share": shares["params"],
            }
        )
    return rows


def networks(folder: Path, *, trust: bool = False) -> tuple[nn.Module, nn.Module, Any]:
    """Compacted network, dense network with fresh weights, and example inputs of a run.

    Args:
        folder: The run folder.
        trust: As for :func:`rlprune.load`.

    Raises:
        CheckpointError: The folder holds no finished run, or does not say how its network is built.
    """
    from rlprune.models import create

    small = load(folder, trust=trust)
    recorded = require_json(folder / RUN_FILE, "is this the folder of a run?")
    dense = create(**{**recorded["factory"], "weights": None}).eval()
    return small, dense, load_example(folder)


def _last(network: nn.Module) -> nn.Module:
    placed: nn.Module = network.to(memory_format=torch.channels_last)
    return placed


def _last_tensor(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _markdown(rows: list[dict[str, Any]], about: Mapping[str, Any]) -> str:
    head = (
        "run", "precision", "threads", "batch", "dense, ms", "pruned, ms", "latency kept, %",
        "MACs kept, %", "parameters kept, %", "speed-up",
    )  # fmt: skip
    body = [
        (
            row["run"],
            row["precision"],
            str(row["threads"]),
            str(row["batch_size"]),
            f"{row['dense_ms']:.2f}",
            f"{row['pruned_ms']:.2f}",
            f"{100 * row['latency_share']:.1f}",
            f"{100 * row['macs_share']:.1f}",
            f"{100 * row['params_share']:.1f}",
            f"{1 / row['latency_share']:.2f}",
        )
        for row in rows
    ]
    title = f"Dense and pruned forwards timed in turn, medians; {about['processor']}."
    return f"## Speed\n\n{title}\n\n{markdown.table(head, body)}\n"
