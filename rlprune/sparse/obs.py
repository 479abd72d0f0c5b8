"""Layer-wise Optimal Brain Surgeon with weights updated as others go (SparseGPT)."""

from __future__ import annotations

import torch
from torch import Tensor

from rlprune.errors import StructureError
from rlprune.sparse.pattern import Pattern


def solve(
    weight: Tensor, hessian: Tensor, pattern: Pattern, sparsity: float, *, damping: float = 0.01,
    block: int = 128,
) -> Tensor:  # fmt: skip
    r"""Zero weights of one layer and change the others so that its output changes least.

    SparseGPT (Frantar and Alistarh, ICML 2023, Algorithm 1): columns are visited in order; with
    ``H = X^T X`` and the upper Cholesky factor ``U`` of ``H^{-1}``, removing ``w_c`` costs
    :math:`w_c^2 / U_{cc}^2` and is made up for by :math:`w_{c:} \leftarrow w_{c:} - (w_c / U_{cc})
    U_{c, c:}`. The mask of a block of columns is chosen when the block is reached (adaptive mask
    selection), that of a run of an n:m pattern when the run is reached.

    Args:
        weight: ``[outputs, inputs]``.
        hessian: ``X^T X`` of the layer's inputs, ``[inputs, inputs]``; any scale.
        pattern: Where zeros may lie.
        sparsity: Share of zeros in every block of columns.
        damping: Added to the diagonal, as a share of its mean.
        block: Columns per block; rounded up to whole runs and blocks of the pattern.

    Returns:
        The new weight, ``[outputs, inputs]``, of ``weight``'s type.

    Raises:
        StructureError: The Hessian cannot be inverted, whatever the damping.
    """
    columns = weight.shape[1]
    w = weight.detach().to(torch.float32).clone()
    h = hessian.to(torch.float32).clone()
    dead = h.diagonal() == 0
    h.diagonal()[dead] = 1
    w[:, dead] = 0
    factor = _upper_factor(h, damping)
    step = pattern.run or pattern.block[1]
    width = -(-block // step) * step
    for start in range(0, columns, width):
        end = min(start + width, columns)
        part = w[:, start:end].clone()
        errors = torch.zeros_like(part)
        local = factor[start:end, start:end]
        keep = torch.ones_like(part, dtype=torch.bool)
        if not pattern.run:
            keep = pattern.mask(part.square() / local.diagonal().square(), sparsity)
        for column in range(end - start):
            if pattern.run and column % pattern.run == 0:
                run = slice(column, column + pattern.run)
                scores = part[:, run].square() / local.diagonal()[run].square()
                keep[:, run] = pattern.mask(scores, sparsity)
            values = part[:, column]
            kept = torch.where(keep[:, column], values, 0.0)
            error = (values - kept) / local[column, column]
            part[:, column:] -= error[:, None] * local[column, column:][None]
            part[:, column] = kept
            errors[:, column] = error
        w[:, start:end] = part
        w[:, end:] -= errors @ factor[start:end, end:]
    return w.to(weight.dtype)


def _upper_factor(hessian: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor of the inverse; damped more and more until there is one."""
    mean = hessian.diagonal().mean()
    for power in range(6):
        damped = hessian.clone()
        damped.diagonal().add_(damping * 10**power * mean)
        lower, info = torch.linalg.cholesky_ex(damped)
        if int(info):
            continue
        factor, info = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not int(info):
            return factor
    raise StructureError("obs: the second moments of the layer's inputs are not finite")
