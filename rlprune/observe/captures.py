"""Activations on disk: one memory-mapped file per site, a row per position that counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.batches import Batch
from rlprune.errors import DataError
from rlprune.files import write_atomically
from rlprune.observe.recorder import Observation, attention_mask, stream
from rlprune.observe.rows import places, rows
from rlprune.observe.sites import Site, expand

_INDEX = "captures.json"
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
}


@dataclass(frozen=True)
class Capture:
    """What was written of one site, in files that are mapped and so loaded as they are read.

    Attributes:
        values: ``[rows, width]``.
        sample: ``[rows]`` int32: the sample that each row belongs to, counted over all batches.
        position: ``[rows]`` int32: its position in the sample.
        call: ``[rows]`` int32: in which call of the site it was seen.
    """

    values: Tensor
    sample: Tensor
    position: Tensor
    call: Tensor


class CaptureWriter:
    """Sinks that write to a folder; its index is written when the block ends without an error.

    Args:
        folder: Made if needed; captures that it holds are replaced.
        dtype: Floating-point type on disk; None keeps each site's own.
        axis: Dimension of the units; None decides by the module (see `rows`).
    """

    def __init__(
        self, folder: str | Path, *, dtype: torch.dtype | None = None, axis: int | None = None
    ) -> None:
        self.folder = Path(folder)
        self._dtype, self._axis = dtype, axis
        self._files: dict[str, _Files] = {}

    def __enter__(self) -> CaptureWriter:
        """Open the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / _INDEX).unlink(missing_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: Any) -> None:
        """Write the index."""
        if kind is None:
            index = {site: files.record for site, files in self._files.items()}
            text = json.dumps(index, indent=1)
            write_atomically(self.folder / _INDEX, lambda path: path.write_text(text))

    def sink(self, site: Site) -> Callable[[Observation], None]:
        """What writes the values of a site."""
        files = self._files[str(site)] = _Files(self.folder / f"{len(self._files):04d}")

        def write(seen: Observation) -> None:
            kept = rows(seen, self._axis)
            if self._dtype is not None and kept.is_floating_point():
                kept = kept.to(self._dtype)
            at = places(seen, self._axis)
            call = torch.full_like(at[:, :1], seen.site.call or 0)
            files.add(str(site), kept, torch.cat([at, call], 1).int())

        return write


class _Files:
    """The two files of a site, which grow by every batch."""

    def __init__(self, stem: Path) -> None:
        self.record: dict[str, Any] = {"files": stem.name, "rows": 0}
        self._values, self._where = stem.with_suffix(".values"), stem.with_suffix(".rows")
        self._values.write_bytes(b"")
        self._where.write_bytes(b"")

    def add(self, site: str, kept: Tensor, where: Tensor) -> None:
        name = str(kept.dtype).removeprefix("torch.")
        if name not in _DTYPES:
            raise DataError(f"'{site}' holds {name}; only floating-point values are captured")
        found = {"width": kept.shape[1], "dtype": name}
        known = {key: self.record.setdefault(key, value) for key, value in found.items()}
        if known != found:
            raise DataError(f"'{site}' held {known} and now {found}; capture its calls one by one")
        self.record["rows"] += len(kept)
        for path, tensor in ((self._values, kept), (self._where, where)):
            whole = tensor.contiguous().cpu().reshape(-1)
            with path.open("ab") as handle:
                whole.view(torch.uint8).numpy().tofile(handle)


def capture(
    network: nn.Module,
    batches: Iterable[Batch],
    sites: Iterable[str | Site],
    folder: str | Path,
    *,
    mask: Callable[[Any], Tensor | None] = attention_mask,
    dtype: torch.dtype | None = None,
    axis: int | None = None,
) -> dict[str, Capture]:
    """Run a network over batches and write what it holds at some sites to a folder.

    Args:
        network: The network; run in eval mode without gradients, not changed.
        batches: ``(inputs, labels)`` pairs.
        sites: Sites or patterns (see `Site.parse` and `expand`).
        folder: Where to.
        mask: From a batch's inputs to its ``[samples, positions]`` mask; positions where it is
            false are not written.
        dtype: See `CaptureWriter`.
        axis: Likewise.

    Returns:
        The captures, by the text of their site.

    Raises:
        ConfigError: A site matches nothing.
        DataError: A mask does not fit, a width changes, or a site was never reached.
    """
    found = dict.fromkeys(site for pattern in sites for site in expand(network, pattern))
    with CaptureWriter(folder, dtype=dtype, axis=axis) as writer:
        sinks = {site: writer.sink(site) for site in found}
        recorder = stream(network, batches, sinks, mask=mask, title="recording activations")
        if recorder.silent:
            raise DataError(
                f"nothing was seen at '{recorder.silent[0]}': its module is not called by itself, "
                "or there is no tensor"
            )
    return open_captures(folder)


def open_captures(folder: str | Path) -> dict[str, Capture]:
    """The captures in a folder, mapped rather than read.

    Raises:
        DataError: The folder holds none, or not whole ones.
    """
    path = Path(folder) / _INDEX
    if not path.is_file():
        raise DataError(f"{folder} holds no captures: there is no {_INDEX}")
    found = {}
    for site, record in json.loads(path.read_text()).items():
        stem, count, width = path.with_name(record["files"]), record["rows"], record["width"]
        values = _mapped(Path(f"{stem}.values"), (count, width), _DTYPES[record["dtype"]])
        sample, position, call = _mapped(Path(f"{stem}.rows"), (count, 3), torch.int32).unbind(1)
        found[site] = Capture(values, sample, position, call)
    return found


def _mapped(path: Path, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    size = shape[0] * shape[1]
    if not path.is_file() or path.stat().st_size != size * dtype.itemsize:
        raise DataError(f"{path} is missing or not {size * dtype.itemsize} bytes long")
    if not size:
        return torch.empty(shape, dtype=dtype)
    return torch.from_file(str(path), shared=False, size=size, dtype=dtype).reshape(shape)
