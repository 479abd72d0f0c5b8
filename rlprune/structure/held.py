"""What no plan can remove of a network, and why."""

from __future__ import annotations

import re

from rlprune.structure.groups import Groups


def held(groups: Groups) -> dict[str, float]:
    """Share of the parameters that lie in tensors which no plan cuts, by the reason why.

    Args:
        groups: The network's groups.

    Returns:
        Reason -> share of all parameters, largest first; sizes in reasons are written as ``N``.
    """
    cut = {s.tensor for g in groups.prunable for s in groups.slices(g)}
    labels = groups.trace.labels
    frozen, roots = labels.frozen(), labels.roots()
    reasons: dict[int, str] = {}
    for k, origin in enumerate(labels.origins):
        reason = frozen[roots[origin.start]]
        if reason >= 0 and (origin.tensor not in reasons or groups.trace.roles.get(k) == "out"):
            text = labels.reasons[reason].split(": ", 1)[-1]
            reasons[origin.tensor] = re.sub(r"\d+(, -?\d+)*", "N", text)
    parameters = dict(groups.model.named_parameters())
    total = sum(parameter.numel() for parameter in parameters.values())
    shares: dict[str, float] = {}
    for index, name in enumerate(groups.trace.names):
        if name in parameters and name not in cut:
            reason = reasons.get(index, "it is not used")
            shares[reason] = shares.get(reason, 0.0) + parameters[name].numel() / total
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
