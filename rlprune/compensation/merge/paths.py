"""What happens to the units of a group between their producers and their consumers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlprune.errors import StructureError

if TYPE_CHECKING:
    from rlprune.structure import Groups
    from rlprune.structure.groups import Slice


@dataclass(frozen=True)
class Affine:
    """One per-unit affine op on a producer's output.

    Attributes:
        op: "add", "mul" or "bn".
        tensors: state-dict names: the vector that is added or multiplied; for "bn" the weight,
            bias, running mean and running variance ("" where there is none).
        number: factor of what is added; for "bn" its epsilon.
    """

    op: str
    tensors: tuple[str, ...]
    number: float = 1.0


@dataclass(frozen=True)
class Term:
    """A linear map of the producer's input: weight rows, then per-unit affine ops."""

    weight: str
    chain: tuple[Affine, ...] = ()


@dataclass(frozen=True)
class State:
    """What a tensor is to a group: scaled by ``t ** degree`` when all its terms are scaled by t.

    Attributes:
        degree: the exponent.
        term: the linear map it still is, as long as no activation has come.
    """

    degree: float
    term: Term | None = None


@dataclass
class Path:
    """How the units of one group reach what reads them.

    Attributes:
        terms: linear maps whose sum, activated, is what consumers read.
        consumers: by weight name the degree with which what it reads follows a unit's scale.
        reason: why a scaled copy of a unit is not a scaled copy further on; "" where it is.
    """

    terms: list[Term] = field(default_factory=list)
    consumers: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    def settle(self, term: Term | None) -> None:
        """Note a linear map in its final form."""
        if term is not None and term not in self.terms:
            self.terms.append(term)


def paths(groups: Groups) -> dict[str, Path]:
    """Follow every prunable group from its producers to its consumers along the trace.

    A unit whose folded weights are ``t > 0`` times another's is ``t ** k`` times the other wherever
    only positively homogeneous ops lie between (their degrees multiply to k). Groups that meet
    anything else come back with a reason.

    Returns:
        By group name, in execution order.
    """
    from rlprune.compensation.merge.walk import Walk

    found = Walk(groups).run()
    for name, path in found.items():
        if path.reason:
            continue
        parts = groups.slices(name)
        unseen = {s.tensor for s in parts if s.role == "out"} - {t.weight for t in path.terms}
        if unseen:
            path.reason = f"{min(unseen)} was not seen to produce its units"
        elif not path.consumers:
            path.reason = "no consumer was seen to read its units"
    return found


def folded(groups: Groups, group: str, term: Term) -> tuple[Tensor, Tensor]:
    r"""A term's per-unit weight vectors and constants, batch normalisation folded in.

    With ``sigma = sqrt(running_var + eps)`` the fold is
    :math:`v_u = \gamma_u w_u / \sigma_u,\; c_u = \beta_u + \gamma_u (b_u - \mu_u) / \sigma_u`.

    Returns:
        v, [width, inputs] and c, [width, positions per unit], float64 on the CPU.

    Raises:
        StructureError: a vector does not have one value per position of the units.
    """
    parts = groups.slices(group)
    out = next(s for s in parts if s.tensor == term.weight and s.role == "out")
    width, per_unit = out.index.shape
    weight = groups.tensors[term.weight].detach().cpu().double().movedim(out.dim, 0)
    rows = weight[out.index.reshape(-1)].reshape(width, per_unit, -1)
    scale = torch.ones(width, per_unit, dtype=torch.float64)
    constant = torch.zeros(width, per_unit, dtype=torch.float64)
    for affine in term.chain:
        vectors = [_vector(groups, parts, name, per_unit) for name in affine.tensors]
        if affine.op == "add":
            constant = constant + affine.number * vectors[0]
        elif affine.op == "mul":
            scale, constant = scale * vectors[0], constant * vectors[0]
        else:
            gamma, beta, mean, variance = vectors
            gain = (variance + affine.number).rsqrt()
            if affine.tensors[0]:
                gain = gain * gamma
            scale, constant = scale * gain, (constant - mean) * gain + beta
    return (rows * scale[:, :, None]).reshape(width, -1), constant


def _vector(groups: Groups, parts: tuple[Slice, ...], name: str, per_unit: int) -> Tensor:
    """Values of a parameter at the positions of a group's units, [width, per_unit]."""
    if not name:
        return torch.zeros((), dtype=torch.float64)
    part = next((s for s in parts if s.tensor == name), None)
    tensor = groups.tensors[name].detach().cpu().double()
    if part is None or part.index.shape[1] != per_unit or tensor.numel() != tensor.shape[part.dim]:
        raise StructureError(f"{name} does not hold one value per unit")
    return tensor.reshape(-1)[part.index]
