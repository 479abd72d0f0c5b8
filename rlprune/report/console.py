"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlprune.report import rows
from rlprune.report.units import duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from rlprune.run import PruneResult
    from rlprune.structure import Groups


def table(title: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> Table:
    """A rich table: the first column left, the others right."""
    from rich.table import Table

    made = Table(title=title or None, title_justify="left", header_style="bold")
    for index, name in enumerate(head):
        made.add_column(name, justify="right" if index else "left", overflow="fold")
    for row in body:
        made.add_row(*(_escape(cell) for cell in row))
    return made


def show_result(console: Console, result: PruneResult) -> None:
    """Dense beside pruned, the budgets, and where everything is."""
    report = result.report
    if result.front:
        show_front(console, result)
        return
    if report:
        head = ["", "dense", "before fine-tuning", "pruned", "against dense"]
        console.print(table("Dense and pruned", head, rows.comparison(report)))
        head = ["budget", "asked for", "dense", "limit", "value", "of limit", ""]
        console.print(table("Budgets", head, rows.budgets(report)))
        console.print(
            f"{report['evaluations']} unique evaluations, {duration(report['seconds'])} in all"
        )
        for line in report.get("limits", []):
            console.print(_escape(line))
        for name, entry in report["exports"].items():
            if "error" in entry:
                console.print(f"[yellow]{name} was not written:[/] {_escape(entry['error'])}")
    if result.out_dir is not None:
        path = result.out_dir.as_posix()
        if report:
            console.print(f"Report: {path}/report.html", soft_wrap=True)
        console.print(f"Load:   {rows.load_call(path, report)}", soft_wrap=True)


def show_front(console: Console, result: PruneResult) -> None:
    """The front of a run with a list of limits, and where everything is."""
    from rlprune.report import front

    if result.report:
        title = f"{result.report['measure']} against {result.report['budget']}".capitalize()
        console.print(table(title, front.TERMINAL, front.terminal(result.report)))
        console.print(f"{result.report['evaluations']} unique evaluations in all")
    if result.out_dir is not None:
        if result.report:
            console.print(f"Front:  {result.out_dir.as_posix()}/front.html", soft_wrap=True)
        for point in result.front:
            assert point.out_dir is not None
            call = rows.load_call(point.out_dir.as_posix(), point.report)
            console.print(f"Load:   {call}", soft_wrap=True)


def show_groups(console: Console, groups: Groups) -> None:
    """Every group of a network; the reason where it cannot be pruned."""
    body = [
        (
            group.name,
            group.kind,
            str(group.width),
            _widths(group) if group.prunable else "-",
            "yes" if group.prunable else f"no: {group.reason}",
        )
        for group in groups
    ]
    console.print(table("", ("group", "kind", "width", "legal widths", "prunable"), body))
    console.print(f"{len(groups.prunable)} of {len(groups)} groups can be pruned")


def show_runs(console: Console, head: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    """The runs of a sweep."""
    console.print(table("", head, body))


def _widths(group: Any) -> str:
    step = "" if group.divisor == 1 else f" by {group.divisor}"
    return f"{group.min_width}..{group.max_width}{step}"


def _escape(cell: str) -> str:
    from rich.markup import escape

    return escape(cell)
