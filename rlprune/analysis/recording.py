"""Recordings: what a network holds at some sites for every token, in mapped files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.analysis.parts import sites_of
from rlprune.analysis.rows import CHUNK
from rlprune.batches import Batch, as_batches
from rlprune.errors import ConfigError, DataError
from rlprune.files import write_atomically
from rlprune.identity import digest
from rlprune.observe import Site, capture, open_captures

_FILE = "recording.json"
_FORMAT = 1


@dataclass(frozen=True)
class Recording:
    """Activations of some sites, one row for every token that is no padding.

    Works as ``[tokens, neurons]`` wherever activations are taken, the sites side by side.

    Attributes:
        folder: where the files are.
        identity: digest of the network, the batches, the sites and the type they are stored in.
        sites: the sites that this object shows, as text.
        widths: units of every site.
    """

    folder: Path
    identity: str
    sites: tuple[str, ...]
    widths: tuple[int, ...]

    @staticmethod
    def open(folder: str | Path) -> Recording:
        """The recording in a folder.

        Raises:
            DataError: There is none, or it is not whole.
        """
        path = Path(folder) / _FILE
        if not path.is_file():
            raise DataError(f"{folder} holds no recording: there is no {_FILE}")
        content = json.loads(path.read_text())
        if content.get("format") != _FORMAT:
            raise DataError(f"{path} has format {content.get('format')}; this reads {_FORMAT}")
        found = open_captures(folder)
        sites = tuple(content["sites"])
        lengths = {len(found[site].values) for site in sites}
        if len(lengths) != 1:
            raise DataError(f"the sites of {folder} have different numbers of rows: {lengths}")
        widths = tuple(found[site].values.shape[1] for site in sites)
        return Recording(Path(folder), content["identity"], sites, widths)

    def __getitem__(self, site: str | int | Sequence[str]) -> Recording:
        """The recording of one site (by text or place) or of several."""
        wanted = [self.sites[site]] if isinstance(site, int) else site
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        for name in names:
            if name not in self.sites:
                raise ConfigError(f"no site {name!r} was recorded; there are {self.sites}")
        widths = dict(zip(self.sites, self.widths, strict=True))
        return Recording(
            self.folder, self.identity, tuple(names), tuple(widths[name] for name in names)
        )

    def __len__(self) -> int:
        """Number of tokens."""
        return self.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Tokens and neurons."""
        captures = open_captures(self.folder)
        return len(captures[self.sites[0]].values), sum(self.widths)

    def places(self) -> np.ndarray:
        """Sample, counted over all batches, and position of every token, ``[tokens, 2]``."""
        found = open_captures(self.folder)[self.sites[0]]
        return torch.stack([found.sample, found.position], 1).numpy()

    def chunks(self, size: int = CHUNK) -> Iterator[np.ndarray]:
        """Consecutive rows, at most ``size`` at a time; files are unmapped in between."""
        for start in range(0, len(self), size):
            yield self._rows(slice(start, start + size))

    def take(self, rows: Any) -> np.ndarray:
        """Chosen rows, ``[len(rows), neurons]`` float32 (or float64 where stored so)."""
        return self._rows(torch.as_tensor(np.asarray(rows)))

    def means(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Means over spans of rows, both ends included, ``[spans, neurons]`` float32.

        Args:
            first: first row of every span.
            last: its last row.
        """
        sizes = last - first + 1
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        rows = np.repeat(first - starts, sizes) + np.arange(sizes.sum())
        sums = np.add.reduceat(self.take(rows).astype(np.float64), starts, axis=0)
        return np.asarray(sums / sizes[:, None], dtype=np.float32)

    def _rows(self, at: Any) -> np.ndarray:
        found = open_captures(self.folder)
        parts = [found[site].values[at] for site in self.sites]
        wide = [p if p.dtype == torch.float64 else p.float() for p in parts]
        return np.array(torch.cat(wide, 1).numpy())


def record(
    model: nn.Module,
    batches: Any,
    sites: str | Iterable[str | Site],
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
) -> Recording:
    """Run a network over batches and write what it holds at some sites to a folder.

    Values go to the files batch by batch; memory does not grow with the number of tokens. Tokens
    that an ``attention_mask`` leaves out are not recorded. The network's answers are the same, bit
    by bit, as without recording.

    Args:
        model: the network; run in eval mode and not changed.
        batches: see :func:`rlprune.batches.as_batches`.
        sites: "residual", "ffn" (what the second feed-forward projection reads) and "heads" (what
            the attention's output projection reads) for those of every block; or sites of
            :mod:`rlprune.observe` such as ``"*.mlp@output"``.
        folder: where to. A recording of the same identity that it holds is used again.
        dtype: type on disk, such as ``torch.float16``; None keeps the network's own.

    Returns:
        The recording.

    Raises:
        ConfigError: A site does not exist, or the folder holds a recording of something else.
        DataError: There is no batch, a site was not reached, or one had more rows than another.
    """
    found = _Batches(batches)
    chosen = sites_of(model, sites)
    names = tuple(str(site) for site in chosen)
    identity = _identity(model, found, names, dtype)
    path = Path(folder) / _FILE
    if path.is_file():
        known = json.loads(path.read_text())
        if known.get("identity") == identity:
            return Recording.open(folder)
        raise ConfigError(
            f"{folder} holds a recording of another network, other batches or other sites "
            f"({', '.join(known.get('sites', ()))}); delete it or give another folder"
        )
    capture(model, found, chosen, folder, dtype=dtype)
    content = {"format": _FORMAT, "identity": identity, "sites": names}
    write_atomically(path, lambda target: target.write_text(json.dumps(content, indent=1)))
    return Recording.open(folder)


class _Batches:
    """Batches that are read anew in every pass; only what cannot be read twice is held."""

    def __init__(self, data: Any) -> None:
        again = isinstance(data, Iterable) and not isinstance(data, (Iterator, Tensor, tuple))
        self._data = data if again and not hasattr(data, "calibration") else as_batches(data)

    def __iter__(self) -> Iterator[Batch]:
        for item in self._data:
            yield from as_batches([item])


def _identity(
    model: nn.Module, batches: _Batches, sites: tuple[str, ...], dtype: torch.dtype | None
) -> str:
    network = [type(model).__qualname__, dict(model.state_dict())]
    seen = [digest(inputs) for inputs, _ in batches]
    if not seen:
        raise DataError("there is nothing to record: no batch was given")
    return digest([_FORMAT, network, seen, list(sites), str(dtype)])
