"""Conditions that a trace can settle only at its end."""

from __future__ import annotations

import numpy as np

from rlprune.ops.labels import Labels, compress, varying
from rlprune.ops.notes import Meeting
from rlprune.structure.records import Trace


def settle_conditions(trace: Trace) -> None:
    """Settle meetings and rectangles until nothing changes.

    Where a split dimension lost no axis by itself, its shorter axes are tied (the finest choice).
    Of equal axes the last one stays: ``view(b, groups, c // groups)`` names the others.
    """
    labels = trace.labels
    pending = list(trace.rectangles)
    while True:
        before = labels.roots().copy()
        for meeting in trace.meetings:
            _settle_meeting(labels, meeting)
        for rectangle in pending:
            plane = compress(labels, rectangle.labels)
            if plane is None or len(varying(plane)) < 2:
                continue
            unit = max(reversed(varying(plane)), key=plane.shape.__getitem__)
            for dim in varying(plane):
                if dim != unit:
                    first = plane.narrow(dim, 0, 1)
                    labels.union(
                        first.expand(plane.shape).contiguous().numpy(),
                        plane.contiguous().numpy(),
                        rectangle.where,
                    )
                    plane = first
        if np.array_equal(before, labels.roots()):
            return


def _settle_meeting(labels: Labels, meeting: Meeting) -> None:
    """Join what met element-wise, unless units no longer vary along the common dimensions."""
    plane, partner = compress(labels, meeting.plane), compress(labels, meeting.partner)
    if partner is None:
        return
    if plane is None or not set(varying(plane)) & set(varying(partner)):
        labels.freeze(partner.reshape(-1).numpy(), meeting.reason)
        return
    fixed = labels.frozen()[labels.find(partner.reshape(-1).numpy())] >= 0
    rest = [d for d in varying(plane) if d not in varying(partner)]
    if fixed.any() and rest:
        for dim in set(varying(plane)) & set(varying(partner)):
            first = plane.narrow(dim, 0, 1)
            labels.union(first.numpy(), plane.contiguous().numpy(), meeting.reason)
            plane = first
        return
    labels.union(plane.numpy(), partner.numpy(), meeting.reason)
