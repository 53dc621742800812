"""A report as tables, and tables as text: for a terminal, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table as RichTable

from verl_rsim.core.controls import BASE_PLANNER, PLANNER
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.evaluation.reports.summary import Report, Summary
from verl_rsim.evaluation.statistics import Difference, Estimate


@dataclass(frozen=True, slots=True)
class Grid:
    """A titled table of text; the first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def show(self, console: Console) -> None:
        """Print it."""
        table = RichTable(title=self.title, title_justify="left")
        for index, name in enumerate(self.header):
            table.add_column(name, justify="right" if index else "left", no_wrap=not index, overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)

    def markdown(self) -> str:
        """As Markdown, the title in bold above it."""
        rule = ["---", *["---:"] * (len(self.header) - 1)]
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.header, rule, *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines]) + "\n"


def to_csv(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Comma-separated values with full precision, an empty cell for nan."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if isinstance(v, float) and math.isnan(v) else v for v in row] for row in rows])
    return text.getvalue()


def percent(value: float) -> str:
    """A share, without the sign."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def interval(estimate: Estimate | None, signed: bool = False) -> str:
    """``61.0 [55.2, 66.4]``, in per cent."""
    if estimate is None or math.isnan(estimate.mean):
        return "-"
    sign = "+" if signed else ""
    mean = f"{100 * estimate.mean:{sign}.1f}"
    if math.isnan(estimate.low):
        return mean
    return f"{mean} [{100 * estimate.low:{sign}.1f}, {100 * estimate.high:{sign}.1f}]"


def p_value(p: float) -> str:
    """Three decimals, or that it is below the least of them."""
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def grids(report: Report) -> list[Grid]:
    """All tables of an evaluation; what does not apply is left out."""
    planners = (summary for summary in report.summaries if summary.condition in (BASE_PLANNER, PLANNER))
    return [_accuracy(report), *_comparisons(report), _cost(report), _stops(report), *map(_strategies, planners)]


def _accuracy(report: Report) -> Grid:
    several = any(summary.samples > 1 for summary in report.summaries)  # for one sample all three are the same
    header = ("condition", "questions", "k", "mean@k, %", *(("maj@k, %", "best@k, %") if several else ()))
    rows = [
        (
            s.condition,
            str(s.questions),
            str(s.samples),
            interval(s.accuracy),
            *((interval(s.majority), interval(s.best)) if several else ()),
            f"{s.strategies_chosen:.2f}",
            f"{s.strategies_shown:.2f}",
        )
        for s in report.summaries
    ]
    return Grid("Accuracy with 95 % confidence intervals", (*header, "chosen", "in text"), tuple(rows))


def _comparisons(report: Report) -> list[Grid]:
    header = ("control", "difference, points", "+/-", "p", "p (Holm)", "test")
    found = []
    for planner in dict.fromkeys(comparison.condition for comparison in report.comparisons):
        rows = []
        for c in report.comparisons:
            if c.condition == planner:
                estimate, balance, p, test = difference_cells(c.difference)
                rows.append((c.control, estimate, balance, p, p_value(c.p_holm), test))
        found.append(Grid(f"{planner} minus each control, on the same questions", header, tuple(rows)))
    return found


def difference_cells(difference: Difference) -> tuple[str, str, str, str]:
    """Difference with interval, questions better/worse, p, test."""
    estimate = interval(difference.estimate, signed=True)
    return estimate, f"{difference.wins}/{difference.losses}", p_value(difference.p), difference.test


def _cost(report: Report) -> Grid:
    header = ("condition", "turns", "R wrote", "R read", "P wrote", "P read", "R s", "P s", "s")
    rows = [
        (
            s.condition,
            f"{s.turns:.1f}",
            *(f"{n:.0f}" for n in (s.reasoner_tokens, s.reasoner_read)),
            *(f"{n:.0f}" for n in (s.planner_tokens, s.planner_read)),
            *(f"{n:.3g}" for n in (s.reasoner_seconds, s.planner_seconds, s.seconds)),
        )
        for s in report.summaries
    ]
    return Grid("Cost of an answer in tokens and seconds; R: reasoner, P: planner", header, tuple(rows))


def _stops(report: Report) -> Grid:
    reasons = [reason for reason in report.summaries[0].stops if any(s.stops[reason] for s in report.summaries)]
    rows = [(s.condition, *(percent(s.stops[reason]) for reason in reasons)) for s in report.summaries]
    return Grid("Why answers ended, %", ("condition", *reasons), tuple(rows))


def _strategies(summary: Summary) -> Grid:
    header = ("strategy", "choices, %", "answers", "right, %", "key words an answer")
    rows = []
    for strategy in STRATEGIES:
        use = summary.use[strategy.name]
        cells = (percent(use.share), str(use.answers), percent(use.win_rate), f"{use.keywords:.2f}")
        rows.append((strategy.title, *cells))
    return Grid(f"Strategies of {summary.condition}", header, tuple(rows))
