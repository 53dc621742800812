"""Writes the report as Markdown for reading and as CSV for computing."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.monitoring.report.page import compare_groups, strategy_rows, summarize
from verl_rsim.monitoring.report.report_data import Curve, ReportData
from verl_rsim.monitoring.report.stats import ShareEstimate, Tally

COLUMNS = ("table", "group", "step", "name", "measure", "value", "low", "high", "count")
"""Columns of the CSV file."""


def write_markdown(path: Path, data: ReportData) -> None:
    """Writes the tables that a person reads."""
    parts = [f"# {data.title}", summarize(data)]
    alarms = data.alarms()
    if alarms:
        parts.append(f"Alarms: {alarms}")
    pair = data.compared_groups()
    if pair:
        before, after = pair
        rows = [[row.name, row.before, row.after] for row in compare_groups(before.tally, after.tally)]
        parts += [f"## {data.comparison_title}", markdown_table(["", before.label, after.label], rows)]
    if data.steps:
        rows = []
        for panel in data.panels():
            rows += [_curve_row(panel.title, curve) for curve in panel.curves]
        head = ["curve", "first step", "last step", "first", "last"]
        parts += ["## Training", markdown_table(head, rows)]
    main_group = data.main_group()
    if main_group.tally.episodes:
        head = ["strategy", "turns", "share", "per answer", "key words per answer", "win rate (95 %)", "lift (95 %)"]
        table = markdown_table(head, strategy_rows(main_group.tally.strategies()))
        parts += [f"## Strategies, {main_group.label}", table]
    phases = data.phases()
    if phases:
        rows = [[phase.name, f"{phase.seconds:.2f}"] for phase in phases]
        parts += ["## Time", markdown_table(["phase", "seconds a step"], rows)]
    path.write_text("\n\n".join(parts) + "\n")


def _curve_row(title: str, curve: Curve) -> list[str]:
    """Returns the row of a curve: its first and last step and their values."""
    (first_step, first), (last_step, last) = curve.points[0], curve.points[-1]
    return [f"{title}: {curve.label}", f"{first_step:g}", f"{last_step:g}", f"{first:.4g}", f"{last:.4g}"]


def write_csv(path: Path, data: ReportData) -> None:
    """Writes every number as one row of a long table with the columns :data:`COLUMNS`."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(_metric_rows(data))
        for group in data.groups.values():
            writer.writerows(_group_rows(group.condition or group.kind, group.step, group.tally))
        writer.writerows(_group_rows("all", "", data.overall))


def _metric_rows(data: ReportData) -> Iterator[dict[str, object]]:
    """Yields a row for each metric of each step."""
    for step in data.steps:
        for name, value in step.items():
            if name != "step" and isinstance(value, int | float):
                yield {"table": "metrics", "step": step["step"], "name": name, "value": value}


def _group_rows(name: str, step: int | str, tally: Tally) -> Iterator[dict[str, object]]:
    """Yields the rows of a group of episodes: accuracy, strategies, transitions."""
    group = {"group": name, "step": step}
    accuracy = tally.accuracy()
    if accuracy:
        yield {"table": "episodes", **group, "measure": "accuracy", **_estimate_cells(accuracy)}
    for item in tally.strategies():
        row = {"table": "strategies", **group, "name": item.name}
        for measure in ("turns", "share", "per_answer", "keywords_per_answer"):
            yield {**row, "measure": measure, "value": getattr(item, measure), "count": tally.episodes}
        for measure, estimate in (("win_rate", item.win_rate), ("lift", item.lift)):
            if estimate:
                yield {**row, "measure": measure, **_estimate_cells(estimate)}
    names = [strategy.name for strategy in STRATEGIES]
    for source, shares in zip([*names, "BEGIN"], tally.transitions(), strict=True):
        for target, share in zip([*names, "END"], shares, strict=True):
            if share:
                yield {"table": "transitions", **group, "name": source, "measure": target, "value": share}


def _estimate_cells(estimate: ShareEstimate) -> dict[str, object]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "count": estimate.count}


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown, without a newline at its end."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
