"""Prints a grading: explanations, differences, and a table of counts by type or by any other column."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from verl_rsim.evaluation.grading import REASONS, Graded

COLOURS = {"right": "green", "wrong": "red"}


def print_explanations(graded: Sequence[Graded], limit: int, console: Console) -> None:
    """Prints how each of the first rows was graded, in two lines a row."""
    for item in graded[:limit]:
        colour = COLOURS.get(item.reason, "yellow")
        console.print(f"{escape(item.row.place)}: [{colour}]{item.reason}[/]", highlight=False)
        console.print(f"  {item.kind}: {item.explanation}", markup=False, highlight=False, soft_wrap=True)
    if len(graded) > limit:
        console.print(f"... and {len(graded) - limit} more; --out writes all, --show sets how many are shown")


def print_differences(graded: Sequence[Graded], limit: int, console: Console) -> None:
    """Prints the rows that a person or another scorer judges otherwise."""
    disputed = [item for item in graded if item.disputed]
    console.print(f"\nJudged otherwise by a person or by another scorer: {len(disputed)}", highlight=False)
    for item in disputed[:limit]:
        verdicts = {"judged": item.row.right, **item.others}
        named = [f"{name} {_WORDS[verdict]}" for name, verdict in verdicts.items() if verdict is not None]
        console.print(f"{item.row.place}: {item.reason}; {', '.join(named)}", markup=False, highlight=False)
        console.print(f"  {item.kind}: {item.explanation}", markup=False, highlight=False, soft_wrap=True)


_WORDS = {True: "right", False: "wrong", None: ""}


def counts_table(graded: Sequence[Graded], by: str) -> Table:
    """Returns the counts of each verdict by a column of the rows."""
    table = _table(by, ["rows", *(reason.replace("_", " ") for reason in REASONS)])
    for key, items in _groups(graded, by):
        table.add_row(
            escape(key), str(len(items)), *(str(sum(item.reason == name for item in items)) for name in REASONS)
        )
    return table


def comparison_table(graded: Sequence[Graded], by: str) -> Table | None:
    """Returns the verdicts of all scorers by a column of the rows; None if there is nothing to compare.

    For rows that a person has judged these are the share of right verdicts and the number of wrong answers scored right
    ("false +"), else the number of answers scored right.
    """
    names = [OURS, *dict.fromkeys(name for item in graded for name in item.others)]
    judged = [item for item in graded if item.row.right is not None]
    if not judged and len(names) == 1:
        return None
    headings = ["judged" if judged else "rows"]
    for name in names:
        headings += [name, "false +"] if judged else [name]
    table = _table(by, headings)
    for key, items in _groups(judged or graded, by):
        cells = [str(len(items))]
        for name in names:
            cells += _cells(items, name, bool(judged))
        table.add_row(escape(key), *cells)
    return table


OURS = "verl-rsim"
"""Heading of this package's verdicts."""


def _cells(items: Sequence[Graded], name: str, judged: bool) -> list[str]:
    verdicts = [item.right if name == OURS else bool(item.others.get(name)) for item in items]
    if not judged:
        return [str(sum(verdicts))]
    pairs = [(verdict, item.row.right) for verdict, item in zip(verdicts, items, strict=True)]
    agree, wrong = sum(one is other for one, other in pairs), sum(one and not other for one, other in pairs)
    return [f"{agree / len(pairs):.1%}", str(wrong)]


def _table(by: str, headings: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(by, overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _groups(graded: Sequence[Graded], by: str) -> list[tuple[str, list[Graded]]]:
    """Returns the rows by the value of a column, those of each value together, then all of them."""
    groups: dict[str, list[Graded]] = {}
    for item in graded:
        key = item.kind if by == "type" else str(item.row.columns.get(by, "-"))
        groups.setdefault(key, []).append(item)
    named = sorted(groups.items())
    return [*named, ("all", list(graded))] if len(named) > 1 else named
