"""Converts a report to tables, and tables to text for a terminal, Markdown or CSV."""

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
class TextTable:
    """Holds a table of text with a title; the first column names the rows."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def show(self, console: Console) -> None:
        """Prints the table."""
        table = RichTable(title=self.title, title_justify="left")
        for index, name in enumerate(self.header):
            table.add_column(name, justify="right" if index else "left", no_wrap=not index, overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)

    def markdown(self) -> str:
        """Returns the table as Markdown, below its title in bold."""
        rule = ["---", *["---:"] * (len(self.header) - 1)]
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.header, rule, *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines]) + "\n"


def to_csv(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Returns comma-separated values in full precision; nan becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow("" if isinstance(value, float) and math.isnan(value) else value for value in row)
    return text.getvalue()


def percent(value: float) -> str:
    """Returns a share in per cent without the sign, "-" for nan."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def interval(estimate: Estimate | None, signed: bool = False) -> str:
    """Returns mean and interval in per cent, e.g. ``61.0 [55.2, 66.4]``; "-" if there is none."""
    if estimate is None or math.isnan(estimate.mean):
        return "-"
    sign = "+" if signed else ""
    mean = f"{100 * estimate.mean:{sign}.1f}"
    if math.isnan(estimate.low):
        return mean
    return f"{mean} [{100 * estimate.low:{sign}.1f}, {100 * estimate.high:{sign}.1f}]"


def p_value(p: float) -> str:
    """Returns a p-value with three decimals, "<0.001" below that, "-" for nan."""
    if math.isnan(p):
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def report_tables(report: Report) -> list[TextTable]:
    """Returns all tables of a report that apply to it."""
    planners = (summary for summary in report.summaries if summary.condition in (BASE_PLANNER, PLANNER))
    return [_accuracy(report), *_comparisons(report), _cost(report), _stops(report), *map(_strategies, planners)]


def _accuracy(report: Report) -> TextTable:
    several = any(
        summary.samples > 1 for summary in report.summaries
    )  # with one sample the three columns would be equal
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
    return TextTable("Accuracy with 95 % confidence intervals", (*header, "chosen", "in text"), tuple(rows))


def _comparisons(report: Report) -> list[TextTable]:
    header = ("control", "difference, points", "+/-", "p", "p (Holm)", "test")
    tables = []
    for planner in dict.fromkeys(comparison.condition for comparison in report.comparisons):
        rows = []
        for c in report.comparisons:
            if c.condition == planner:
                estimate, balance, p, test = difference_cells(c.difference)
                rows.append((c.control, estimate, balance, p, p_value(c.p_holm), test))
        tables.append(TextTable(f"{planner} minus each control, on the same questions", header, tuple(rows)))
    return tables


def difference_cells(difference: Difference) -> tuple[str, str, str, str]:
    """Returns the cells of a difference: estimate with interval, questions better/worse, p, test."""
    estimate = interval(difference.estimate, signed=True)
    return estimate, f"{difference.wins}/{difference.losses}", p_value(difference.p), difference.test


def _cost(report: Report) -> TextTable:
    header = ("condition", "turns", "R wrote", "R read", "P wrote", "P read", "R s", "P s", "s")
    rows = []
    for s in report.summaries:
        tokens = (s.reasoner_tokens, s.reasoner_read, s.planner_tokens, s.planner_read)
        seconds = (s.reasoner_seconds, s.planner_seconds, s.seconds)
        cells = (*(f"{count:.0f}" for count in tokens), *(f"{value:.3g}" for value in seconds))
        rows.append((s.condition, f"{s.turns:.1f}", *cells))
    return TextTable("Cost of an answer in tokens and seconds; R: reasoner, P: planner", header, tuple(rows))


def _stops(report: Report) -> TextTable:
    reasons = []
    for reason in report.summaries[0].stops:
        if any(summary.stops[reason] for summary in report.summaries):
            reasons.append(reason)
    rows = []
    for summary in report.summaries:
        rows.append((summary.condition, *(percent(summary.stops[reason]) for reason in reasons)))
    return TextTable("Why answers ended, %", ("condition", *reasons), tuple(rows))


def _strategies(summary: Summary) -> TextTable:
    header = ("strategy", "choices, %", "answers", "right, %", "key words an answer")
    rows = []
    for strategy in STRATEGIES:
        use = summary.use[strategy.name]
        cells = (percent(use.share), str(use.answers), percent(use.win_rate), f"{use.keywords:.2f}")
        rows.append((strategy.title, *cells))
    return TextTable(f"Strategies of {summary.condition}", header, tuple(rows))
