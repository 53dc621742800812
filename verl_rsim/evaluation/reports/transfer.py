"""The table and the heat map of a transfer, drawn from its folder alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from verl_rsim.core.controls import ALONE, PLANNER
from verl_rsim.evaluation.manifest import read_manifest
from verl_rsim.evaluation.matrix import CONTROL_CELL
from verl_rsim.evaluation.records import Record, read_records
from verl_rsim.evaluation.reports.heatmap import Square, heat_map
from verl_rsim.evaluation.reports.summary import Summary, group, scores, summarize
from verl_rsim.evaluation.reports.tables import Grid, interval, p_value, to_csv
from verl_rsim.evaluation.reports.write import to_json
from verl_rsim.evaluation.statistics import Difference, paired
from verl_rsim.evaluation.transfer import ERRORS
from verl_rsim.utils.artifact_folders import write_atomically


@dataclass(frozen=True, slots=True)
class Entry:
    """One row's result in one column of the table.

    Attributes:
        row: a control or a planner's name.
        reasoner, dataset: the column.
        summary: None while there is no answer.
        gain: over the reasoner alone, on the same questions; None for itself and where that was not played.
        best_control: for a planner, the control that is right most often in this column; "" for a control.
        over_best: the planner's gain over it, on the same questions.
        complete: whether every answer is there.
        error: why the cell failed in the last start, "" if it did not.
    """

    row: str
    reasoner: str
    dataset: str
    summary: Summary | None
    gain: Difference | None
    best_control: str
    over_best: Difference | None
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
            column: list[Entry] = []
            for row, cell, records in played:
                rival = "" if cell == CONTROL_CELL else _best(column[: len(asked["controls"])])
                error = errors.get(f"{reasoner}/{dataset}/{cell}", "")
                entry = Entry(row, reasoner, dataset, None, None, rival, None, False, error)
                if records:
                    cell_asked = read_manifest(place / cell, "eval")["asked"]
                    entry = dataclasses.replace(
                        entry,
                        summary=summarize(row, records, seed),
                        gain=None if row == ALONE else _gain(records, controls.get(ALONE), seed),
                        over_best=_gain(records, controls.get(rival), seed),
                        complete=len(records) >= len(cell_asked["questions"]) * cell_asked["samples"],
                    )
                column.append(entry)
            found += column
    return found


def _best(controls: Sequence[Entry]) -> str:
    """The one that is right most often, one that was not played last; "" if there is none."""
    means = {entry.row: entry.summary.accuracy.mean if entry.summary else -1.0 for entry in controls}
    return max(means, key=means.__getitem__, default="")


def _gain(records: Sequence[Record], rival: Sequence[Record] | None, seed: int) -> Difference | None:
    return paired(scores(records), scores(rival), seed) if rival else None


def write_transfer_report(folder: Path, console: Console) -> list[Entry]:
    """Write ``table.md``, ``table.csv``, ``table.json`` and ``heatmap.svg``, and print the table."""
    found = entries(folder)
    planners = [entry for entry in found if entry.best_control]  # none if no control was asked for
    grids = [_grid("Accuracy (mean@k), %", found, _accuracy)]
    if any(entry.gain for entry in found):
        grids.append(_grid("Gain over the reasoner alone, points", found, lambda entry: _difference(entry.gain)))
    if any(entry.over_best for entry in planners):
        title = "Gain of the planners over each column's best control, points"
        grids.append(_grid(title, planners, lambda entry: _difference(entry.over_best, entry.best_control)))
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


def _grid(title: str, found: Sequence[Entry], cell: Callable[[Entry], str]) -> Grid:
    columns = list(dict.fromkeys((entry.reasoner, entry.dataset) for entry in found))
    by_place = {(entry.row, entry.reasoner, entry.dataset): entry for entry in found}

    def shown(entry: Entry) -> str:
        if entry.summary is None:
            return "failed" if entry.error else "-"
        return cell(entry)

    rows = [
        (row, *(shown(by_place[(row, *column)]) for column in columns))
        for row in dict.fromkeys(entry.row for entry in found)
    ]
    header = ("", *(" / ".join(column) for column in columns))
    return Grid(f"{title}, with 95 % confidence intervals", header, tuple(rows))


def _accuracy(entry: Entry) -> str:
    accuracy = interval(entry.summary.accuracy) if entry.summary else "-"
    return accuracy if entry.complete else f"{accuracy} (unfinished)"


def _difference(gain: Difference | None, rival: str = "") -> str:
    return f"{interval(gain.estimate, signed=True)} p={p_value(gain.p)} {rival}".strip() if gain else "-"


def _csv(found: Sequence[Entry]) -> str:
    header = "reasoner dataset row questions samples accuracy low high gain gain_low gain_high p"
    header += " best_control over_best over_best_low over_best_high over_best_p complete error"
    rows = []
    for entry in found:
        s = entry.summary
        numbers = (s.questions, s.samples, s.accuracy.mean, s.accuracy.low, s.accuracy.high) if s else ("",) * 5
        gain, over_best = (
            (g.estimate.mean, g.estimate.low, g.estimate.high, g.p) if g else ("",) * 4
            for g in (entry.gain, entry.over_best)
        )
        differences = (*gain, entry.best_control, *over_best)
        rows.append([entry.reasoner, entry.dataset, entry.row, *numbers, *differences, entry.complete, entry.error])
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
