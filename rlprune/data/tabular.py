"""Tables of numbers: csv files and the sets that scikit-learn brings along."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlprune.data.dataset import Data
from rlprune.data.sources import Deferred, draw
from rlprune.errors import ConfigError, DataError
from rlprune.tasks import Classification, Regression

BUNDLED = ("diabetes", "linnerud", "wine", "breast_cancer", "iris")
"""Sets inside scikit-learn: nothing to download."""


def tabular(
    *,
    path: str | os.PathLike[str] | None = None,
    bundled: str | None = None,
    target: str | Sequence[str] | None = None,
    classes: bool = False,
    test_share: float = 0.2,
    holdout: float | int = 0.15,
    unit: str = "",
    seed: int = 0,
    name: str | None = None,
) -> Data:
    """A table to predict one or several of its columns from the others.

    Columns of numbers are standardised by the training rows; others become one column per value.
    Numbers to predict are standardised too, and errors shown in their own unit.

    Args:
        path: A csv file whose first line names the columns.
        bundled: One of scikit-learn's own sets instead, such as ``diabetes``.
        target: The column to predict, or several; None takes the last one.
        classes: Whether the target's values are classes although they are numbers.
        test_share: Share of the rows in the test split, the same rows for every seed.
        holdout: Share or number of training rows held out.
        unit: Unit of the target, for reports.
        seed: Decides the held-out rows.
        name: Shown in messages and reports.

    Returns:
        Inputs ``[N, features]``.

    Raises:
        ConfigError: There is not exactly one of ``path`` and ``bundled``.
        DataError: The file is missing or malformed, or a column is.
    """
    if (path is None) == (bundled is None):
        raise ConfigError("data=tabular needs exactly one of path=a csv file and bundled=a set")
    if bundled is not None:
        features, goal, classes = _bundled(bundled)
    else:
        features, goal = _csv(Path(str(path)).expanduser(), target)
    words = not np.issubdtype(goal.dtype, np.number)
    names: list[str] | None = None
    if words or classes:
        if goal.shape[1] > 1:
            raise DataError("several targets must be numbers; give one column of classes")
        found, numbers = np.unique(goal[:, 0], return_inverse=True)
        names, y = [str(value) for value in found], torch.from_numpy(numbers.reshape(-1))
    else:
        y = torch.from_numpy(goal.astype(np.float32))
    x = torch.from_numpy(features.astype(np.float32))
    fixed = torch.Generator().manual_seed(0)
    test, train = draw(len(x), round(test_share * len(x)), y if names else None, fixed)
    x = _standardised(x, train)[0]
    task: Any = Classification()
    if names is None:
        y, scale = _standardised(y, train)
        y = y[:, 0] if y.shape[1] == 1 else y
        task = Regression(scale=scale.tolist(), unit=unit)
    return Data(
        (x[train], y[train]),
        test=Deferred(lambda: (x[test], y[test]), {"x": x[test], "y": y[test]}),
        task=task,
        holdout=holdout,
        class_names=names,
        facts={"in_features": x.shape[1]},
        seed=seed,
        name=name or bundled or Path(str(path)).stem,
    )


def _standardised(values: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Values less the training rows' mean over their deviation, and the deviation."""
    mean, scale = values[train].mean(0), values[train].std(0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (values - mean) / scale, scale


def _bundled(name: str) -> tuple[np.ndarray, np.ndarray, bool]:
    if name not in BUNDLED:
        raise ConfigError(f"bundled={name!r} is unknown; choose one of {', '.join(BUNDLED)}")
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")()
    goal = found.target.reshape(len(found.data), -1)
    return found.data, goal, hasattr(found, "target_names") and goal.dtype.kind in "iu"


def _csv(path: Path, target: str | Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise DataError(f"table {path} does not exist; set data.path to the right one")
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [line for line in csv.reader(file) if line]
    if len(lines) < 3:
        raise DataError(f"table {path} has no rows below its head")
    head, rows = lines[0], lines[1:]
    ragged = next((n for n, row in enumerate(rows, start=2) if len(row) != len(head)), None)
    if ragged is not None:
        raise DataError(f"{path}, row {ragged}: expected {len(head)} cells as in the first line")
    wanted = [head[-1]] if target is None else [target] if isinstance(target, str) else [*target]
    unknown = [column for column in wanted if column not in head]
    if unknown:
        raise DataError(f"{path} has no column {unknown[0]!r}; it has {', '.join(head)}")
    columns = {name: [row[at].strip() for row in rows] for at, name in enumerate(head)}
    goals = [_column(columns[name], f"{path}, column {name!r}") for name in wanted]
    kinds = {goal.dtype.kind for goal in goals}
    if len(kinds) > 1:
        raise DataError(f"{path}: targets {', '.join(wanted)} mix numbers and words")
    parts = []
    for name in head:
        if name in wanted:
            continue
        column = _column(columns[name], f"{path}, column {name!r}")
        if column.dtype.kind == "f":
            parts.append(column[:, None])
        else:
            parts.append((column[:, None] == np.unique(column)[None]).astype(np.float64))
    return np.concatenate(parts, axis=1), np.stack(goals, axis=1)


def _column(cells: Sequence[str], where: str) -> np.ndarray:
    """A column as numbers, or as the words it holds."""
    try:
        numbers = np.array([float(cell) for cell in cells])
    except ValueError:
        return np.array(cells)
    if not np.isfinite(numbers).all():
        position = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise DataError(f"{where}, row {position + 2}: {cells[position]!r} is no finite number")
    return numbers
