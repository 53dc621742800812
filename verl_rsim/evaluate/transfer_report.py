"""The table and the heat map of a transfer, drawn from its folder alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from verl_rsim.checkpoint import write_atomically
from verl_rsim.evaluate.conditions import ALONE, PLANNER
from verl_rsim.evaluate.heatmap import Square, heat_map
from verl_rsim.evaluate.manifest import read_manifest
from verl_rsim.evaluate.matrix import CONTROL_CELL
from verl_rsim.evaluate.records import Record, read_records
from verl_rsim.evaluate.report import Summary, group, scores, summarize
from verl_rsim.evaluate.results import to_json
from verl_rsim.evaluate.statistics import Difference, paired
from verl_rsim.evaluate.tables import Grid, interval, p_value, to_csv
from verl_rsim.evaluate.transfer import ERRORS


@dataclass(frozen=True, slots=True)
class Entry:
    """One row's result in one column of the table.

    Attributes:
        row: a control or a planner's name.
        reasoner, dataset: the column.
        summary: None while there is no answer.
        gain: over the reasoner alone, on the same questions; None for itself and where that was not played.
        complete: whether every answer is there.
        error: why the cell failed in the last start, "" if it did not.
    """

    row: str
    reasoner: str
    dataset: str
    summary: Summary | None
    gain: Difference | None
    complete: bool
    error: str


def entries(folder: Path) -> list[Entry]:
    """All results of a transfer, column by column.

    Raises:
        DataError: the folder holds no transfer.
    """
    manifest = read_manifest(folder, "transfer")
    asked, seed = manifest["asked"], manifest["fixed"]["draw"]["seed"]
    errors = json.loads((folder / ERRORS).read_text()) if (folder / ERRORS).is_file() else {}
    found = []
    for reasoner in asked["reasoners"]:
        for dataset in asked["datasets"]:
            place = folder / reasoner / dataset
            controls = group(read_records(place / CONTROL_CELL))
            played = [(name, CONTROL_CELL, controls.get(name, [])) for name in asked["controls"]]
            for name in asked["planners"]:
                played.append((name, name, group(read_records(place / name)).get(PLANNER, [])))
            alone = controls.get(ALONE, [])
            for row, cell, records in played:
                error = errors.get(f"{reasoner}/{dataset}/{cell}", "")
                found.append(_entry(row, reasoner, dataset, records, alone, place / cell, seed, error))
    return found


def _entry(
    row: str,
    reasoner: str,
    dataset: str,
    records: Sequence[Record],
    alone: Sequence[Record],
    cell: Path,
    seed: int,
    error: str,
) -> Entry:
    if not records:
        return Entry(row, reasoner, dataset, None, None, False, error)
    gain = paired(scores(records), scores(alone), seed) if alone and row != ALONE else None
    asked = read_manifest(cell, "eval")["asked"]
    complete = len(records) >= len(asked["questions"]) * asked["samples"]
    return Entry(row, reasoner, dataset, summarize(row, records, seed), gain, complete, error)


def write_transfer_report(folder: Path, console: Console) -> list[Entry]:
    """Write ``table.md``, ``table.csv``, ``table.json`` and ``heatmap.svg``, and print the table."""
    found = entries(folder)
    accuracy, gains = _grid(found, gain=False), _grid(found, gain=True)
    grids = [accuracy, gains] if any(entry.gain for entry in found) else [accuracy]
    failed = {entry.error: None for entry in found if entry.error}
    notes = [f"Failed: {message.strip().splitlines()[-1]}" for message in failed]
    write_atomically(folder / "table.md", "\n".join([*(grid.markdown() for grid in grids), *notes]))
    write_atomically(folder / "table.csv", _csv(found))
    write_atomically(folder / "table.json", to_json([dataclasses.asdict(entry) for entry in found]))
    write_atomically(folder / "heatmap.svg", heat_map([_square(entry) for entry in found], "Accuracy, %"))
    for grid in grids:
        grid.show(console)
    for note in notes:
        console.print(note, style="red", highlight=False, markup=False)
    console.print(f"Written: {folder}/table.md, table.csv, table.json, heatmap.svg", highlight=False)
    return found


def _grid(found: Sequence[Entry], gain: bool) -> Grid:
    columns = list(dict.fromkeys((entry.reasoner, entry.dataset) for entry in found))
    by_place = {(entry.row, entry.reasoner, entry.dataset): entry for entry in found}
    rows = [
        (row, *(_cell(by_place[(row, *column)], gain) for column in columns))
        for row in dict.fromkeys(entry.row for entry in found)
    ]
    header = ("", *(" / ".join(column) for column in columns))
    title = "Gain over the reasoner alone, points" if gain else "Accuracy (mean@k), %"
    return Grid(f"{title}, with 95 % confidence intervals", header, tuple(rows))


def _cell(entry: Entry, gain: bool) -> str:
    if entry.summary is None:
        return "failed" if entry.error else "-"
    if not gain:
        return interval(entry.summary.accuracy) + ("" if entry.complete else " (unfinished)")
    if entry.gain is None:
        return "-"
    return f"{interval(entry.gain.estimate, signed=True)} p={p_value(entry.gain.p)}"


def _csv(found: Sequence[Entry]) -> str:
    header = "reasoner dataset row questions samples accuracy low high gain gain_low gain_high p complete error"
    rows = []
    for entry in found:
        s, g = entry.summary, entry.gain
        numbers = (s.questions, s.samples, s.accuracy.mean, s.accuracy.low, s.accuracy.high) if s else ("",) * 5
        gains = (g.estimate.mean, g.estimate.low, g.estimate.high, g.p) if g else ("",) * 4
        rows.append([entry.reasoner, entry.dataset, entry.row, *numbers, *gains, entry.complete, entry.error])
    return to_csv(header.split(), rows)


def _square(entry: Entry) -> Square:
    summary = entry.summary
    return Square(
        row=entry.row,
        column=f"{entry.reasoner} / {entry.dataset}",
        value=summary.accuracy.mean if summary else None,
        low=summary.accuracy.low if summary else None,
        high=summary.accuracy.high if summary else None,
        gain=entry.gain.estimate.mean if entry.gain else None,
    )
