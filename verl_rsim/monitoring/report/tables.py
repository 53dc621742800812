"""The report as Markdown for reading and as CSV for computing."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.monitoring.report.facts import Facts
from verl_rsim.monitoring.report.page import comparison, numbers, summary

COLUMNS = ("table", "group", "step", "name", "measure", "value", "low", "high", "count")


def write_markdown(path: Path, facts: Facts) -> None:
    """Write the tables that a person reads."""
    parts = [f"# {facts.title}", summary(facts), *([f"Alarms: {said}"] if (said := facts.alarms()) else [])]
    if pair := facts.pair():
        rows = comparison(pair[0].tally, pair[1].tally)
        head = ["", pair[0].label, pair[1].label]
        parts += [
            f"## {facts.pair_title}",
            markdown_table(head, [[row.name, row.before, row.after] for row in rows]),
        ]
    if facts.steps:
        head = ["curve", "first step", "last step", "first", "last"]
        rows_ = [
            [f"{panel.title}: {c.label}", *(f"{x:g}" for x in (c.points[0][0], c.points[-1][0])),
             *(f"{y:.4g}" for y in (c.points[0][1], c.points[-1][1]))]
            for panel in facts.panels() for c in panel.curves
        ]  # fmt: skip
        parts += ["## Training", markdown_table(head, rows_)]
    studied = facts.studied()
    if studied.tally.episodes:
        head = ["strategy", "turns", "share", "per answer", "key words per answer", "win rate (95 %)", "lift (95 %)"]
        parts += [f"## Strategies, {studied.label}", markdown_table(head, numbers(studied.tally.strategies()))]
    if phases := facts.phases():
        parts += [
            "## Time",
            markdown_table(["phase", "seconds a step"], [[p.name, f"{p.seconds:.2f}"] for p in phases]),
        ]
    path.write_text("\n\n".join(parts) + "\n")


def write_csv(path: Path, facts: Facts) -> None:
    """Write every number as one row of a long table with the columns :data:`COLUMNS`."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(_rows(facts))


def _rows(facts: Facts) -> Iterator[dict[str, object]]:
    for step in facts.steps:
        for name, value in step.items():
            if name != "step" and isinstance(value, int | float):
                yield {"table": "metrics", "step": step["step"], "name": name, "value": value}
    groups = [(g.condition or g.kind, g.step, g.tally) for g in facts.groups.values()]
    for kind, number, tally in [*groups, ("all", "", facts.overall)]:
        place = {"group": kind, "step": number}
        if accuracy := tally.accuracy():
            yield {"table": "episodes", **place, "measure": "accuracy", **_estimate(accuracy)}
        for item in tally.strategies():
            row = {"table": "strategies", **place, "name": item.name}
            for measure in ("turns", "share", "per_answer", "keywords_per_answer"):
                yield {**row, "measure": measure, "value": getattr(item, measure), "count": tally.episodes}
            for measure, found in (("win_rate", item.win_rate), ("lift", item.lift)):
                if found:
                    yield {**row, "measure": measure, **_estimate(found)}
        names = [strategy.name for strategy in STRATEGIES]
        for source, shares in zip([*names, "BEGIN"], tally.transitions(), strict=True):
            for target, share in zip([*names, "END"], shares, strict=True):
                if share:
                    yield {"table": "transitions", **place, "name": source, "measure": target, "value": share}


def _estimate(found) -> dict[str, object]:
    return {"value": found.value, "low": found.low, "high": found.high, "count": found.count}


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, without a newline at its end."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
