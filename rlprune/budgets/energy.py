"""Energy of a forward pass by a table: what a multiply-accumulate and what a byte costs."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from rlprune.budgets.base import CostFunction, Estimate
from rlprune.budgets.holders import BY_MACS, Holders
from rlprune.budgets.metric import METRICS, Metric
from rlprune.budgets.metrics import count_macs, count_params
from rlprune.budgets.units import MICROJOULES
from rlprune.errors import BudgetError
from rlprune.inputs import ExampleInputs
from rlprune.structure import Groups

PJ_PER_MAC, PJ_PER_BYTE = 4.6, 160.0
"""A 32-bit multiplication and addition, and reading a byte from DRAM, in 45 nm (Horowitz, 2014)."""


def energy_uj(model: nn.Module, example_inputs: Any) -> float:
    """Microjoules of one forward pass per sample, by the table of Horowitz (2014)."""
    return _microjoules(model, example_inputs, PJ_PER_MAC, PJ_PER_BYTE, 4.0)


def _microjoules(
    model: nn.Module, inputs: Any, per_mac: float, per_byte: float, weight_bytes: float
) -> float:
    return 1e-6 * (
        per_mac * count_macs(model, inputs) + per_byte * weight_bytes * count_params(model, inputs)
    )


@METRICS.register("energy")
class Energy(Metric):
    r"""Energy of a forward pass of one sample, by a table of two costs.

    .. math:: E = e_{mac} \cdot MACs + e_{byte} \cdot b \cdot parameters

    every parameter being read once, activations staying on the chip. The defaults are those of
    45 nm (M. Horowitz, Computing's energy problem, ISSCC 2014, figure 1.1.9); measure your own
    device's and give them.

    Args:
        limit: Share of the dense value (``0.5``, ``"50%"``) or an absolute one (``"300 uJ"``).
        pj_per_mac: Picojoules per multiply-accumulate.
        pj_per_byte: Picojoules per byte of a weight that is read.
        weight_bytes: Bytes per weight: 4, 2 for half types, 1 for int8.
        name: Shown in reports.

    Raises:
        BudgetError: A cost is negative, or all are zero.
    """

    unit: ClassVar[str] = MICROJOULES.name
    key: ClassVar[str] = "energy"
    title: ClassVar[str] = "energy by table"
    holders: ClassVar[Holders] = BY_MACS
    function = staticmethod(energy_uj)

    def __init__(
        self,
        limit: float | str = 0.5,
        pj_per_mac: float = PJ_PER_MAC,
        pj_per_byte: float = PJ_PER_BYTE,
        weight_bytes: float = 4.0,
        name: str | None = None,
    ) -> None:
        super().__init__(limit, name)
        self.table = (float(pj_per_mac), float(pj_per_byte), float(weight_bytes))
        if min(self.table) < 0 or not any(self.table[:2]):
            raise BudgetError(f"budget {self.name!r}: costs must be 0 or more, got {self.table}")

    def _bind(self, model: nn.Module, example_inputs: ExampleInputs) -> CostFunction:
        return lambda candidate, inputs: _microjoules(candidate, inputs, *self.table)

    def _estimate(self, groups: Groups) -> Estimate:
        per_mac, per_byte, weight_bytes = self.table
        macs, params = groups.formulas["macs"].many, groups.formulas["params"].many
        a, b = 1e-6 * per_mac, 1e-6 * per_byte * weight_bytes
        return Estimate(
            lambda widths: a * groups.macs(widths) + b * groups.params(widths),
            lambda widths: a * macs(widths) + b * params(widths),
        )
