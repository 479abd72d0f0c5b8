"""Looking into a running network: what its layers read, hold and answer.

Everything that is seen passes one recorder. It names places by `Site`s, hands values to sinks as
the network computes them, and keeps nothing itself::

    def sink(seen: Observation) -> None:
        ...  # seen.value [samples, ..., width], seen.site, seen.start, seen.mask

    with Recorder(network, {"encoder.layer.*.output": sink, "fc@input": sink},
                  gradients={"encoder.layer.0": sink}):
        network(**inputs).loss.backward()

    stream(network, batches, {"layer?.conv1": sink})   # eval mode, no gradients, attention masks

Per token and without padding, to memory-mapped files::

    found = capture(network, batches, ["*.mlp.act"], folder, dtype=torch.float16)
    found["h.0.mlp.act@output"].values      # [rows, width]; .sample, .position, .call [rows]
    found = open_captures(folder)           # later, in another process
"""

from rlprune.observe.captures import Capture, CaptureWriter, capture, open_captures
from rlprune.observe.recorder import (
    Observation,
    Recorder,
    Sink,
    attention_mask,
    differentiable,
    stream,
)
from rlprune.observe.rows import by_unit, channel_axis, places, rows
from rlprune.observe.sites import Site, expand
from rlprune.observe.watch import Call, Watch, Watcher

__all__ = [
    "Call",
    "Capture",
    "CaptureWriter",
    "Observation",
    "Recorder",
    "Sink",
    "Site",
    "Watch",
    "Watcher",
    "attention_mask",
    "by_unit",
    "capture",
    "channel_axis",
    "differentiable",
    "expand",
    "open_captures",
    "places",
    "rows",
    "stream",
]
