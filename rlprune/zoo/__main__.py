"""``python -m rlprune.zoo``: the coverage table from a shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlprune.errors import ConfigError, RlpruneError
from rlprune.zoo.cover import Coverage, coverage
from rlprune.zoo.networks import names
from rlprune.zoo.table import dump, load, markdown, passed, short


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    args = argparse.ArgumentParser(
        "rlprune zoo", description="Which networks are covered, and how well."
    )
    args.add_argument("names", nargs="*", help="families, names or globs; everything when empty")
    args.add_argument("--keep", type=float, default=0.5, help="keep ratio of the random plan")
    args.add_argument("--seed", type=int, default=0, help="of the weights and of the plan")
    args.add_argument("--out", type=Path, help="folder for coverage.md and coverage.json")
    args.add_argument("--part", default="1/1", help="K/N: the K-th of N parts of the networks")
    args.add_argument(
        "--resume", action="store_true", help="keep the rows that coverage.json in --out holds"
    )
    args.add_argument("--short", type=Path, help="file for a table of a few columns")
    args.add_argument("--peer", choices=["torch-pruning"], help="measure it side by side")
    args.add_argument("--timeout", type=float, default=120.0, help="seconds for the peer's run")
    args.add_argument("--memory", type=float, default=8.0, help="GiB for the peer's process")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the table; returns 0 when every network passes, 1 otherwise."""
    args = parser().parse_args(argv)
    try:
        wanted = _part(names(*args.names), args.part)
    except RlpruneError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    rows: list[Coverage] = []
    if args.resume and args.out is not None and (args.out / "coverage.json").exists():
        rows = [r for r in load((args.out / "coverage.json").read_text()) if r.name in wanted]
    known = {row.name for row in rows}
    peer: dict[str, dict[str, Any]] | None = {} if args.peer else None
    for row in coverage([n for n in wanted if n not in known], keep=args.keep, seed=args.seed):
        rows.append(row)
        if peer is not None:
            from rlprune.zoo.peer import cover_apart

            peer[row.name] = cover_apart(row.name, args.keep, args.timeout, args.memory)
        sys.stderr.write(f"{len(rows)}/{len(wanted)} {markdown([row], peer).splitlines()[2]}\n")
        sys.stderr.flush()
        if args.out is not None:
            args.out.mkdir(parents=True, exist_ok=True)
            (args.out / "coverage.md").write_text(markdown(rows, peer) + "\n")
            (args.out / "coverage.json").write_text(dump(rows, peer) + "\n")
    sys.stdout.write(markdown(rows, peer) + "\n")
    if args.short is not None:
        args.short.write_text(short(rows))
    return 0 if all(passed(row) or not row.built for row in rows) else 1


def _part(wanted: Sequence[str], part: str) -> list[str]:
    """Every N-th name from the K-th on, for ``part`` "K/N"."""
    first, _, parts = part.partition("/")
    if not (first.isdigit() and parts.isdigit() and 1 <= int(first) <= int(parts)):
        raise ConfigError(f"--part is '{part}'; it must be K/N with 1 <= K <= N, such as 2/8")
    return list(wanted[int(first) - 1 :: int(parts)])


if __name__ == "__main__":
    sys.exit(main())
