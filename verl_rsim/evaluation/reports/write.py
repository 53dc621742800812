"""The files beside an evaluation's records: every table, drawn from records and manifest, and again at will."""

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
from verl_rsim.evaluation.reports.tables import Grid, difference_cells, grids, percent, to_csv
from verl_rsim.evaluation.statistics import Difference, paired
from verl_rsim.utils.artifact_folders import write_atomically
from verl_rsim.utils.errors import ConfigError, DataError


def write_report(folder: Path, console: Console) -> Report:
    """Write ``report.md``, ``report.json`` and ``conditions.csv`` of an evaluation, and print its tables.

    Raises:
        DataError: the folder holds no evaluation.
    """
    manifest = read_manifest(folder, "eval")
    records = read_records(folder)
    if not records:
        raise DataError(f"{folder / RECORDS}: holds no answer yet")
    found = report(records, manifest["fixed"]["draw"]["seed"])
    tables = grids(found)
    models = ", ".join(f"{name}: {source}" for name, source in manifest["asked"]["models"].items())
    lines = [f"# Evaluation on {manifest['asked']['data']}", "", models, "", *(grid.markdown() for grid in tables)]
    expected = len(manifest["asked"]["questions"]) * manifest["asked"]["samples"]
    missing = [s.condition for s in found.summaries if len(group(records)[s.condition]) < expected]
    if missing:
        note = f"Unfinished: {', '.join(missing)}. The same command goes on."
        lines.insert(3, f"\n{note}")
        console.print(note)
    write_atomically(folder / "report.md", "\n".join(lines))
    write_atomically(folder / "report.json", to_json(dataclasses.asdict(found)))
    write_atomically(folder / "conditions.csv", conditions_csv(found))
    for grid in tables:
        grid.show(console)
    console.print(f"Written: {folder}/report.md, report.json, conditions.csv", highlight=False)
    return found


def conditions_csv(found: Report) -> str:
    """A line a condition, numbers in full."""
    rows = []
    for summary in found.summaries:
        flat: dict[str, Any] = {}
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
    """JSON with null for nan, which JSON does not have."""

    def clean(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: clean(entry) for key, entry in item.items()}
        if isinstance(item, list | tuple):
            return [clean(entry) for entry in item]
        return None if isinstance(item, float) and math.isnan(item) else item

    return json.dumps(clean(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def compare(first: Path, second: Path, console: Console, conditions: tuple[str, ...] = ()) -> dict[str, Difference]:
    """Compare two evaluations, condition by condition, on the questions that both hold; prints a table.

    Args:
        conditions: of both; all common ones if none is named.

    Returns:
        ``first`` minus ``second`` for each condition.

    Raises:
        DataError: a folder holds no evaluation, or they have no question or condition in common.
        ConfigError: a condition is not in both.
    """
    seed = read_manifest(first, "eval")["fixed"]["draw"]["seed"]
    read_manifest(second, "eval")
    one, other = group(read_records(first)), group(read_records(second))
    common = [name for name in one if name in other]
    for name in conditions:
        if name not in common:
            raise ConfigError("condition", name, f"is not in both; common are {', '.join(common) or 'none'}")
    differences, rows = {}, []
    for name in conditions or sorted(common):
        scored = scores(one[name]), scores(other[name])
        difference = paired(*scored, seed)
        if not difference.questions:
            continue
        differences[name] = difference
        rows.append((name, str(difference.questions), *_accuracies(*scored), *difference_cells(difference)))
    if not rows:
        raise DataError(f"{first} and {second} have no condition with a question in common")
    header = ("condition", "questions", "A, %", "B, %", "A - B, points", "better/worse", "p", "test")
    Grid(f"A = {first}, B = {second}", header, tuple(rows)).show(console)
    return differences


def _accuracies(first: dict[str, list[float]], second: dict[str, list[float]]) -> tuple[str, str]:
    common = [question for question in first if question in second]

    def mean(scored: dict[str, list[float]]) -> str:
        return percent(math.fsum(sum(scored[q]) / len(scored[q]) for q in common) / len(common))

    return mean(first), mean(second)
