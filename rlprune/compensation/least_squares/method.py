"""Least-squares reconstruction: surviving weights take over what removed inputs contributed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from rlprune.compensation.base import METHODS, Context
from rlprune.errors import ConfigError
from rlprune.linear.fits import Fit, Fits, prepare, refit

if TYPE_CHECKING:
    pass


@METHODS.register("least_squares")
class LeastSquares:
    r"""Refit every consumer of removed units so that its output stays what it was.

    With the dense input ``x`` of a linear layer or convolution (whole patches where affordable, a 1
    appended where there is a bias), its second moments ``M = E[x x^T]``, kept entries ``k`` and
    current weights ``W0``, the refitted weights minimise
    ``E ||W x - W' x_k||^2 + r ||W' - W0||^2``:

    .. math:: W'^T = W_0^T + (M_{kk} + rI)^{-1} (M_{k\cdot} W^T - M_{kk} W_0^T)

    (He, Zhang, Sun, ICCV 2017, eq. 3, with a ridge toward ``W0`` instead of zero). The moments come
    from one pass of the dense network, so a plan costs one linear solve per layer and no data.
    ``W0`` is what earlier methods left: after "merge", scarce data shrinks toward merging.

    Args:
        ridge: ``r`` relative to the mean square of the inputs; None chooses it for every layer by
            two-fold cross-validation over the calibration samples, with half of the units removed.
        patch_limit: 2-D convolutions are fitted on whole patches up to this many entries (channels
            times kernel positions), above on single positions.
        rows: rows sampled per layer over all calibration samples.

    Attributes:
        left_out: after `prepare`, the weights that are not refitted and why.

    Raises:
        ConfigError: ``ridge`` is negative.
    """

    def __init__(
        self, ridge: float | None = None, patch_limit: int = 1200, rows: int = 16384
    ) -> None:
        if ridge is not None and ridge < 0:
            raise ConfigError(f"least_squares: ridge is {ridge}; it must be zero or positive")
        if rows < 1:
            raise ConfigError(f"least_squares: rows is {rows}; it must be at least 1")
        self.ridge, self.patch_limit, self.rows = ridge, patch_limit, rows
        self.left_out: dict[str, str] = {}

    def identity(self) -> dict[str, Any]:
        """The options (see :mod:`rlprune.identity`)."""
        return {"ridge": self.ridge, "patch_limit": self.patch_limit, "rows": self.rows}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.ridge, self.patch_limit, self.rows)

    def prepare(self, context: Context) -> Fits:
        """Moments of the dense network; computed once per network and calibration data.

        Raises:
            DataError: there is no calibration data.
        """
        known = prepare(
            context.groups,
            context.required("least_squares"),
            ridge=self.ridge,
            patch_limit=self.patch_limit,
            rows=self.rows,
        )
        self.left_out = known.left_out
        return known

    def apply(self, context: Context) -> None:
        """Refit the consumers of ``context.module`` in place.

        Raises:
            DataError: there is no calibration data.
        """
        prepared = self.prepare(context)
        for fit in prepared.fits.values():
            kept, outputs = context.kept(fit.consumer)
            if kept is not None:
                _refit(context, fit, kept, outputs)


def _refit(context: Context, fit: Fit, kept: Tensor, outputs: Tensor | None) -> None:
    consumer = fit.consumer
    module = context.module.get_submodule(consumer.path)
    prior = consumer.matrix(module.get_parameter("weight"), getattr(module, "bias", None))
    consumer.write(module, refit(fit, kept, prior, outputs))
