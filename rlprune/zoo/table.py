"""The coverage table as Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rlprune.zoo.cover import Coverage

TOLERANCE = 1e-10


def passed(row: Coverage) -> bool:
    """Whether a network was compacted and agreed with its mask (or has structure alone)."""
    return not row.failure and (row.error is None or row.error <= TOLERANCE)


def summary(rows: Sequence[Coverage]) -> str:
    """One sentence on how many networks are covered."""
    unbuilt = sum(not r.built for r in rows)
    rows = [r for r in rows if r.built]
    ran = [r for r in rows if r.error is not None]
    good = sum(passed(r) for r in ran)
    structure = sum(r.error is None and not r.failure for r in rows)
    failed = [r.name for r in rows if not passed(r)]
    worst = max((r.error for r in ran if r.error is not None), default=0.0)
    halved = sum(r.kept is not None and r.kept <= 0.6 for r in ran)
    text = (
        f"{good} networks: masked == compacted (worst relative difference {worst:.1e}, float64); "
        f"{structure}: structure only; {halved} keep at most 60 % of their parameters"
    )
    times = sorted(r.trace_seconds for r in rows) or [0.0]
    text += (
        f"; discovery takes {times[len(times) // 2]:.1f} s at the median, {times[-1]:.1f} at most"
    )
    text += f"; {unbuilt} have no toy configuration" if unbuilt else ""
    return f"{text}; {len(failed)} fail: {', '.join(failed)}" if failed else f"{text}; none fails"


def markdown(rows: Sequence[Coverage], peer: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The table; with a peer's results beside it where given."""
    head = [
        "network", "params (M)", "groups", "prunable", "share", "trace s", "build ms",
        "candidate ms", "kept", "error",
    ]  # fmt: skip
    if peer is not None:
        head += ["peer kept", "peer ms"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for r in rows:
        cells = [
            r.name,
            f"{r.parameters / 1e6:.1f}",
            str(r.groups),
            str(r.prunable),
            f"{r.share:.0%}",
            f"{r.trace_seconds:.2f}",
            _number(r.build_ms, ".0f"),
            _number(r.candidate_ms, ".1f"),
            _number(r.kept, ".0%"),
            f"fails: {r.failure[:160]}" if r.failure else _number(r.error, ".0e"),
        ]
        if peer is not None:
            theirs = peer.get(r.name, {})
            cells.append(theirs.get("failure", "")[:80] or _number(theirs.get("kept"), ".0%"))
            cells.append(_number(theirs.get("prune_ms"), ".0f"))
        lines.append(
            "| " + " | ".join(c.replace("|", "/").replace("\n", " ") for c in cells) + " |"
        )
    return "\n".join([*lines, "", summary(rows), "", reasons(rows)])


def short(rows: Sequence[Coverage]) -> str:
    """A table of a few columns, as comma-separated values, with the summary as a comment."""
    lines = [f"# {summary(rows)}", "network,state,parameters,prunable,groups,left,discovery_s"]
    for r in sorted(rows, key=lambda r: r.name):
        state = "unbuilt" if not r.built else "refused" if r.failure else "ok"
        state = state if passed(r) or state != "ok" else "wrong"
        left = _number(r.kept, ".2f")
        cells = (r.name, state, r.parameters, r.prunable, r.groups, left, f"{r.trace_seconds:.2f}")
        lines.append(",".join(map(str, cells)))
    return "\n".join(lines) + "\n"


def dump(rows: Sequence[Coverage], peer: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The rows as JSON text."""
    return json.dumps({"rows": [r.to_dict() for r in rows], "peer": peer}, indent=1)


def load(text: str) -> list[Coverage]:
    """The rows of a `dump`."""
    return [Coverage(**row) for row in json.loads(text)["rows"]]


def reasons(rows: Sequence[Coverage], most: int = 12) -> str:
    """The reasons that keep most parameters whole, ranked by their mean share over networks."""
    shares: dict[str, float] = {}
    for row in rows:
        for reason, share in (row.held or {}).items():
            shares[reason] = shares.get(reason, 0.0) + share / max(len(rows), 1)
    ranked = sorted(shares.items(), key=lambda item: -item[1])[:most]
    lines = [f"| {share:.1%} | {reason} |" for reason, share in ranked]
    return "\n".join(["| held | reason |", "| --- | --- |", *lines])


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
