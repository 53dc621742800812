"""Writes an evaluation's report files from its records and manifest, and compares two evaluations."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console

from verl_rsim.evaluation.manifest import read_manifest
from verl_rsim.evaluation.records import RECORDS, read_records
from verl_rsim.evaluation.reports.summary import Report, group, report, scores
from verl_rsim.evaluation.reports.tables import TextTable, difference_cells, percent, report_tables, to_csv
from verl_rsim.evaluation.statistics import Difference, paired
from verl_rsim.utils.artifact_folders import write_atomically
from verl_rsim.utils.errors import ConfigError, DataError


def write_report(folder: Path, console: Console) -> Report:
    """Writes ``report.md``, ``report.json`` and ``conditions.csv`` of an evaluation, and prints its tables.

    Raises:
        DataError: the folder holds no evaluation, or no answer yet.
    """
    manifest = read_manifest(folder, "eval")
    records = read_records(folder)
    if not records:
        raise DataError(f"{folder / RECORDS}: holds no answer yet")
    result = report(records, manifest["fixed"]["draw"]["seed"])
    tables = report_tables(result)
    models = ", ".join(f"{name}: {source}" for name, source in manifest["asked"]["models"].items())
    lines = [f"# Evaluation on {manifest['asked']['data']}", "", models, "", *(table.markdown() for table in tables)]
    expected = len(manifest["asked"]["questions"]) * manifest["asked"]["samples"]
    unfinished = [s.condition for s in result.summaries if len(group(records)[s.condition]) < expected]
    if unfinished:
        note = f"Unfinished: {', '.join(unfinished)}. The same command continues."
        lines.insert(3, f"\n{note}")
        console.print(note)
    write_atomically(folder / "report.md", "\n".join(lines))
    write_atomically(folder / "report.json", to_json(dataclasses.asdict(result)))
    write_atomically(folder / "conditions.csv", conditions_csv(result))
    for table in tables:
        table.show(console)
    console.print(f"Written: {folder}/report.md, report.json, conditions.csv", highlight=False)
    return result


def conditions_csv(result: Report) -> str:
    """Returns one CSV row per condition with numbers in full precision."""
    rows = []
    for summary in result.summaries:
        flat: dict[str, float | str | None] = {}
        for name, value in dataclasses.asdict(summary).items():
            if name == "use":
                continue
            if name == "stops":
                flat |= {f"stop_{reason}": share for reason, share in value.items()}
            elif name in ("accuracy", "best", "majority"):
                value = value or {"mean": "", "low": "", "high": ""}
                flat |= {name: value["mean"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
            else:
                flat[name] = value
        rows.append(flat)
    return to_csv(rows[0], [row.values() for row in rows])


def to_json(value: Any) -> str:
    """Returns JSON text in which nan is null, since JSON has no nan."""

    def clean(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: clean(entry) for key, entry in item.items()}
        if isinstance(item, list | tuple):
            return [clean(entry) for entry in item]
        return None if isinstance(item, float) and math.isnan(item) else item

    return json.dumps(clean(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def compare_evaluations(
    first: Path, second: Path, console: Console, conditions: tuple[str, ...] = ()
) -> dict[str, Difference]:
    """Compares two evaluations on their common questions, condition by condition, and prints a table.

    Args:
        first, second: folders of the evaluations.
        console: gets the table.
        conditions: conditions to compare; all common ones if empty.

    Returns:
        The difference ``first`` minus ``second`` by condition.

    Raises:
        DataError: a folder holds no evaluation, or the two have no condition with a common question.
        ConfigError: a condition is not in both evaluations.
    """
    seed = read_manifest(first, "eval")["fixed"]["draw"]["seed"]
    read_manifest(second, "eval")
    records, other_records = group(read_records(first)), group(read_records(second))
    common = [name for name in records if name in other_records]
    for name in conditions:
        if name not in common:
            raise ConfigError("condition", name, f"is not in both; choose one of {', '.join(common) or 'none'}")
    differences, rows = {}, []
    for name in conditions or sorted(common):
        first_scores, second_scores = scores(records[name]), scores(other_records[name])
        difference = paired(first_scores, second_scores, seed)
        if not difference.questions:
            continue
        differences[name] = difference
        accuracies = _accuracies(first_scores, second_scores)
        rows.append((name, str(difference.questions), *accuracies, *difference_cells(difference)))
    if not rows:
        raise DataError(f"{first} and {second} have no condition with a question in common")
    header = ("condition", "questions", "A, %", "B, %", "A - B, points", "better/worse", "p", "test")
    TextTable(f"A = {first}, B = {second}", header, tuple(rows)).show(console)
    return differences


def _accuracies(first: dict[str, list[float]], second: dict[str, list[float]]) -> tuple[str, str]:
    """Returns both accuracies on the common questions, in per cent."""
    common = [question for question in first if question in second]

    def mean(samples: dict[str, list[float]]) -> str:
        return percent(math.fsum(sum(samples[q]) / len(samples[q]) for q in common) / len(common))

    return mean(first), mean(second)
